"""Installs from a bundle: the same pipeline as ever, with the bundle in place of every registry and hub."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from appliance import __version__, acquire, runtimes
from appliance.acquire.bundle import Bundle, Reader, open_bundle
from appliance.acquire.source import Source
from appliance.bundle import cargo, fits
from appliance.bundle.keys import Key
from appliance.detect import detect
from appliance.domain.deployment import Deployment
from appliance.domain.host import Host, Podman
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.domain.version import version
from appliance.errors import ArtifactError, HostError
from appliance.flows import converge, planning
from appliance.flows.bundle import trust
from appliance.flows.converge import Converged
from appliance.flows.planning import Edit, Planned, Terms
from appliance.flows.site import Site, require_rights
from appliance.system.docker import Daemon
from appliance.system.lock import lock

WAITING: Final = "/var/tmp"  # noqa: S108 - whose it is says Podman
"""Where Podman has images that it is taking in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which bundle, and how far it is believed."""

    path: Path
    places: tuple[Path, ...] = ()
    """Other directories in which parts lie."""
    trusted: tuple[Key, ...] = ()
    """Keys that the operator names."""
    first: Key | None = None
    """Key that is believed where none is pinned yet: the one in the script that came with the bundle."""
    allow_unsigned: bool = False
    allow_older: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an installation would do."""

    planned: Planned
    reader: Reader
    bytes: int
    """That would be written."""


def install(site: Site, wish: Wish, edit: Edit, terms: Terms) -> Converged:
    """Bring the machine into the state that the bundle was made for, beside what is served already."""
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command), _opened(site, wish) as reader:
        bundle = _checked(site, reader, wish)
        planned = planning.planned(site, _with(site, bundle, edit), _terms(terms, bundle))
        _refuse_missing(planned.changes.deployment, bundle)
        done = converge.bring_about(site, planned.changes, Source(offline=True, bundle=bundle))
        if reader.key:
            trust.pin(site, reader.key)
        trust.remember(site, reader.index.name, reader.index.serial)
        return done


def preview(site: Site, wish: Wish, edit: Edit, terms: Terms) -> Preview:
    """Return what would be done; nothing is written."""
    with _opened(site, wish) as reader:
        bundle = _checked(site, reader, wish)
        planned = planning.planned(site, _with(site, bundle, edit), _terms(terms, bundle))
        deployment = planned.changes.deployment
        _refuse_missing(deployment, bundle)
        return Preview(planned=planned, reader=reader, bytes=sum(acquire.missing(deployment, bundle)))


def trusted(site: Site, wish: Wish) -> tuple[Key, ...]:
    """Return the keys that are believed in this run."""
    known = (*trust.pinned(site), *wish.trusted)
    return known if known or wish.first is None else (wish.first,)


def _opened(site: Site, wish: Wish) -> Reader:
    site.progress.step("check", f"signature and index of {wish.path.name}")
    return open_bundle(
        wish.path, places=wish.places, trusted=trusted(site, wish), allow_unsigned=wish.allow_unsigned
    )  # fmt: skip


def _checked(site: Site, reader: Reader, wish: Wish) -> Bundle:
    """Refuse what cannot be installed here, all reasons at once, before a payload is read. Raises HostError."""
    index = reader.index
    if version(index.appliance) > version(__version__):
        raise HostError(
            f"{wish.path} brings llm-appliance {index.appliance}, this is {__version__}",
            hint=f"sudo {wish.path}.install brings the newer one along",
        )
    host = detect(site.machine, state=site.layout.state)
    reasons = list(fits.misfits(index, host))
    why = fits.older(index, trust.serials(site).get(index.name, -1), __version__)
    if why and not wish.allow_older:
        reasons.append(f"it is older: {why} (--allow-older takes it all the same)")
    reasons += _space(site, reader, host)
    if index.target.docker and (unfit := runtimes.runtime("compose").refuse(host, site.layout.prefix)):
        reasons.append(f"its engines are container images: {unfit}")
    if reasons:
        raise HostError(f"{wish.path} cannot be installed here:\n" + "\n".join(reasons))
    bundle = Bundle(reader, site.layout.state, host.cpu_flags, host.docker.podman)
    absent = [*_absent(site, reader), *(f"blob {digest}" for digest in bundle.missing_base())]
    if absent:
        raise ArtifactError(
            f"{wish.path} builds on what is not on this machine:\n" + "\n".join(absent[:20]),
            hint="install the bundle that it was made after, or one that is whole",
        )
    return bundle


def _space(site: Site, reader: Reader, host: Host) -> Iterator[str]:
    there = _present(site)
    new = tuple(one for one in reader.index.of("engine", "gateway", "model", "files") if one.key not in there)
    boxes = tuple(fits.unpacked((one,)) for one in new if one.image)
    needed = fits.unpacked(tuple(one for one in new if not one.image))
    if boxes and host.docker.server:
        yield from _room(boxes, host.docker.podman)
    if host.disk_free and needed > host.disk_free:
        yield f"{site.layout.state}: {host.disk_free:,} bytes free, {needed:,} needed"


def _room(boxes: tuple[int, ...], podman: Podman | None) -> Iterator[str]:
    """Yield where there is no room to load images of so many bytes, one after the other."""
    root, total = Daemon(podman).root(), sum(boxes)
    # Docker unpacks what it is given before it takes it in; Podman writes it down first, then each layer by itself.
    places = ((root, total), (WAITING, 2 * max(boxes))) if podman else ((root, 2 * total),)
    needed: dict[int, tuple[str, int]] = {}
    for place, amount in places:
        first, before = needed.get(disk := Path(place).stat().st_dev, (place, 0))
        needed[disk] = first, before + amount
    for place, amount in needed.values():
        if amount > (free := shutil.disk_usage(place).free):
            yield f"{place}: {free:,} bytes free, {amount:,} needed to load images"


def _present(site: Site) -> frozenset[str]:
    """Return the keys of all that is installed: engines, gateways and models by digest, whole or their beginning."""
    record = site.generations.record()
    if record is None:
        return frozenset()
    deployment = record.deployment
    return frozenset((*(one.digest for one in deployment.artifacts), *(one.digest for one in deployment.models)))


def _absent(site: Site, reader: Reader) -> Iterator[str]:
    """Yield what the bundle leaves out as a whole and is not here."""
    state = Path(site.layout.state)
    for one in reader.index.of("engine", "gateway", "model"):
        if one.base and one.kind == "model" and not (state / "store" / "models" / one.key).is_dir():
            yield f"model {one.name}"
        elif one.base and one.kind != "model":
            part = "gateway" if one.kind == "gateway" else "engines"
            if not any(path.name.endswith(one.key[:16]) for path in (state / part).glob("[!.]*")):
                yield f"{one.kind} {one.name} {one.version}"


def _landed(site: Site, bundle: Bundle) -> Iterator[ModelSpec]:
    """Yield the bundle's models with the paths that hold here. Raises HostError while a provider's key is not there."""
    here = {one.key for one in bundle.reader.index.of("files")}
    for item in bundle.cargo.specs:
        one = cargo.landed(item, site.layout.state, f"{site.layout.etc}/secrets")
        if {path[:64] for path in cargo.paths(item)} - here:
            raise ArtifactError(f"{bundle.reader.path}: {one.name}: a file that it is served with is not in it")
        if one.key_file and not Path(one.key_file).is_file():
            raise HostError(
                f"{one.name}: no bundle carries the key of its provider, and {one.key_file} is not there",
                hint=f"install -D -m 600 KEYFILE {one.key_file}, then again",
            )
        yield one


def _with(site: Site, bundle: Bundle, edit: Edit) -> Edit:
    """Return the edit that serves the bundle's models, too; one of a name that is served already takes its place."""

    def both(spec: ApplianceSpec) -> ApplianceSpec:
        spec = edit(spec)
        ours = tuple(_landed(site, bundle))
        names = {one.name for one in ours}
        others = tuple(one for one in spec.models if one.name not in names)
        made = bundle.cargo.images
        if bundle.cargo.runtime != "auto":
            # What is carried runs nowhere else, and is known by its name only.
            spec = replace(spec, runtime=bundle.cargo.runtime, images=made)
        elif made.portable:
            spec = replace(spec, images=replace(spec.images, portable=True))
        return replace(spec, models=tuple(sorted((*others, *ours), key=lambda one: one.name)))

    return both


def _terms(terms: Terms, bundle: Bundle) -> Terms:
    return replace(terms, offline=True, bundle=bundle)


def _refuse_missing(deployment: Deployment, bundle: Bundle) -> None:
    """Raise HostError when the plan needs what is neither here nor in the bundle."""
    for one in deployment.artifacts:
        if not acquire.present(one, deployment) and bundle.component(one) is None:
            made = bundle.reader.index.target
            raise HostError(
                f"{one.name} is needed as built for this machine, and the bundle has another: made for {made.os} "
                f"{made.os_version}, Python {made.python}, processor with {' '.join(made.cpu_flags) or 'anything'}",
                hint="make one from this machine's `detect --json`: llm-appliance bundle create --host FILE",
            )
