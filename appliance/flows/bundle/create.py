"""Makes a bundle: plans for the target, makes what it needs on this machine, writes it in one pass."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from appliance import __version__, acquire, codec
from appliance.acquire.bundle import Archive, Known, chunk_size, slot
from appliance.acquire.source import Source
from appliance.bundle import keys
from appliance.bundle.index import NAME, SCHEMA, Base, Component, Index, Payload, Target
from appliance.catalog import load as load_catalog
from appliance.detect import detect
from appliance.domain.deployment import Deployment
from appliance.domain.host import Host
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.errors import HostError, UsageError
from appliance.flows import converge, planning
from appliance.flows.bundle import contents, script
from appliance.flows.bundle.ingredients import Ingredients
from appliance.flows.site import Site, require_rights
from appliance.report import work
from appliance.system.lock import lock
from appliance.system.web import names_user

DOCKER: Final = (
    "carry its packages along: --package docker.io --package iptables --package docker-compose-v2 "
    "(on Debian 13 docker-compose), or --package FILE.deb for each of those of docker.com"
)
Sign = Callable[[bytes], tuple[bytes, keys.Key]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a bundle is to hold, and where it goes."""

    target: Path
    """`site.llmb`; parts are called `site.llmb.001` and so on."""
    models: tuple[ModelSpec, ...] = ()
    """() = those that are configured here, or the built-in one."""
    split: int = 0
    """Bytes of a part; 0 = one file."""
    base: Known | None = None
    """What the target has already."""
    serial: int | None = None
    portable: bool = False
    """Compile engines for every processor of the architecture."""
    edit: planning.Edit = lambda spec: spec
    """Changes the plan's settings."""
    packages: tuple[str, ...] = ()
    """Packages that the operator adds, a driver, Docker: files, or names that the distribution has."""
    sign: Sign | None = None
    """Returns signature and public key; None = it is not signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A bundle that was made, or that would be."""

    index: Index | None
    files: tuple[Path, ...]
    key: keys.Key | None
    size: int
    """Bytes."""
    components: tuple[Component, ...]
    installer: Path | None = None
    """The script that installs it where there is nothing."""
    installer_sha256: str = ""


def create(
    site: Site, wanted: Wanted, host: Host | None, source: Source, *, terms: planning.Terms, dry_run: bool = False
) -> Created:
    """Make a bundle for `host`, None = a machine like this one. Raises what planning and acquiring raise."""
    name = wanted.target.name.removesuffix(".llmb")
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a bundle's name", hint="letters, digits, . _ -")
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        site.progress.step("plan", f"for {'another machine' if host else 'a machine like this one'}")
        here = detect(site.machine, state=site.layout.state)
        deployment = _deployment(site, wanted, host or here, here, terms)
        _refuse(deployment, host or here, here)
        if not dry_run:
            acquire.engines(deployment, site.machine, source, site.progress)
            _bring_from_hubs(site, deployment, source)
        found = contents.gather(site, deployment, wanted.packages, source, system=(host or here).os, dry_run=dry_run)
        target = _target(deployment, host or here, here, terms, site.layout.state)
        if dry_run:
            size = sum(found.sizes(wanted.base.keys if wanted.base else frozenset()))
            return Created(index=None, files=(wanted.target,), key=None, size=size, components=())
        return _write(site, wanted, name, found, target)


def _deployment(site: Site, wanted: Wanted, host: Host, here: Host, terms: planning.Terms) -> Deployment:
    # Nobody's ports and nobody's memory: what is free on this machine now says nothing of the target.
    idle = replace(_with_docker(host, here, wanted.packages), ports=())

    def edit(spec: ApplianceSpec) -> ApplianceSpec:
        spec = wanted.edit(spec)
        if spec.runtime == "compose" and here.docker.server and not idle.docker.server:
            raise HostError("no Docker answers on the target", hint=DOCKER)
        spec = replace(spec, images=replace(spec.images, portable=spec.images.portable or wanted.portable))
        return replace(spec, models=wanted.models) if wanted.models else converge.with_smoke(spec)

    return planning.planned(site, edit, replace(terms, whole=True), idle).changes.deployment


def _with_docker(host: Host, here: Host, packages: tuple[str, ...]) -> Host:
    """Return a target as it will be when the Docker or Podman that the operator adds is there: as on this machine."""
    if host.docker.server or not any(Path(word).name.startswith(("docker", "podman")) for word in packages):
        return host
    ours = here.docker
    added = replace(
        host.docker, client=ours.client, server=ours.server, compose=ours.compose, podman=ours.podman, failure=""
    )
    return replace(host, docker=added)


def _refuse(deployment: Deployment, target: Host, here: Host) -> None:
    """Raise HostError for what this machine cannot make for the target, or a bundle cannot carry."""
    reasons = []
    if target.arch != here.arch:
        reasons.append(f"the target is {target.arch}, this machine {here.arch}")
    if (target.os, target.os_version) != (here.os, here.os_version):
        theirs, ours = f"{target.os} {target.os_version}", f"{here.os} {here.os_version}"
        reasons.append(f"the target's packages are of {theirs}, this machine's of {ours}")
    if target.python != here.python:
        reasons.append(f"the target has Python {target.python}, this machine {here.python}")
    lacking = sorted(set(contents.processor(deployment, here)) - set(target.cpu_flags))
    if lacking:
        way_out = "" if deployment.spec.images.portable else " (--portable asks for less of it)"
        reasons.append(
            f"an engine is compiled for a processor with {', '.join(lacking)}; the target's has not{way_out}"
        )
    reasons += [
        f"{one.name}: artifacts of kind {one.kind} are not carried in bundles"
        for one in deployment.artifacts
        if one.kind not in ("debs", "build", "wheels", "image")
    ]
    reasons += [
        f"{one.name}: its source names a user or a password, and a bundle holds no secrets"
        for one in deployment.models
        if any(names_user(text) for text in (one.source, *(file.url for file in one.weights.files)))
    ]
    if reasons:
        raise HostError("no bundle can be made:\n" + "\n".join(reasons), hint="make it on a machine like the target")


def _bring_from_hubs(site: Site, deployment: Deployment, source: Source) -> None:
    """Have the weights of hubs in the store; files of this machine are read where they are."""
    access = planning.access(site, deployment.spec, offline=source.offline)
    for model in deployment.models:
        if any(file.url for file in model.weights.files):
            acquire.add(model, access)


def _target(deployment: Deployment, host: Host, here: Host, terms: planning.Terms, state: str) -> Target:
    rows = load_catalog(terms.catalog, state=state).releases
    drivers: dict[str, str] = {}
    for one in deployment.services:
        lowest = next(
            (row.driver for row in rows
             if (row.engine, row.version, row.accelerator) == (one.engine, one.version, one.accelerator)), "",
        )  # fmt: skip
        if one.vendor and lowest:
            drivers[one.vendor] = max(drivers.get(one.vendor, lowest), lowest, key=_numbers)
    return Target(
        os=host.os, os_version=host.os_version, arch=host.arch, glibc=min(here.glibc, host.glibc, key=_numbers),
        python=here.python, cpu_flags=contents.processor(deployment, here),
        drivers=tuple(sorted(drivers.items())), docker=any(one.kind == "image" for one in deployment.artifacts),
    )  # fmt: skip


def _numbers(text: str) -> tuple[int, ...]:
    from appliance.domain.version import version

    return version(text)


def _write(site: Site, wanted: Wanted, name: str, found: Ingredients, target: Target) -> Created:
    base = wanted.base or Known()
    serial = wanted.serial if wanted.serial is not None else base.serial + 1
    # All of what starts a machine is in it, or nothing: half of it would be of no use.
    left = base.keys | found.starters if found.starters <= base.digests else base.keys
    digests = found.base(base)
    sizes = found.sizes(left)
    chunk = chunk_size(sum(sizes))
    mark = "\n".join((found.mark, codec.dump_json(target), repr((name, serial, sorted(left), sorted(digests)))))
    contents.refuse_small_disk(wanted.target, sum(sizes))
    signed_by: list[keys.Key] = []

    def sign(content: bytes) -> bytes:
        assert wanted.sign is not None
        signature, key = wanted.sign(content)
        signed_by.append(key)
        return signature

    site.progress.step("write", str(wanted.target))
    with (
        work(site.progress, wanted.target.name, sum(sizes)) as bar,
        Archive(
            wanted.target, slot=slot(sizes, found.components, chunk, found.room), mark=mark, split=wanted.split,
            chunk=chunk, base=digests, bar=bar,
        ) as archive,
    ):  # fmt: skip
        components = found.write(archive, left)

        def index(payloads: tuple[Payload, ...], left_out: tuple[Base, ...], size: int) -> Index:
            return Index(
                schema=SCHEMA, name=name, serial=serial, appliance=__version__, target=target, size=size,
                payloads=payloads, components=components, base=left_out, chunk=chunk,
            )  # fmt: skip

        made = archive.finish(index, sign if wanted.sign else None)
    created = Created(
        index=made, files=archive.files, key=signed_by[0] if signed_by else None, size=made.size, components=components
    )
    return script.beside(created, wanted.sign)
