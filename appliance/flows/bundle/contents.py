"""Looks through everything that goes into a bundle, on the machine that makes it."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from appliance import __version__, acquire, resources
from appliance.acquire import store
from appliance.acquire.bundle import bootstrap, images, pack
from appliance.acquire.bundle.bootstrap import Package
from appliance.acquire.source import Source
from appliance.acquire.wheels import COMPILED
from appliance.bundle import cargo, sbom
from appliance.bundle.index import Component
from appliance.domain.deployment import Deployment, Model
from appliance.domain.host import Host
from appliance.domain.release import Artifact
from appliance.errors import ArtifactError, HostError
from appliance.flows.bundle.ingredients import Attached, Engine, Ingredients, Small
from appliance.flows.site import Site
from appliance.report import amount_text
from appliance.system.download import file_digest

INSTALLER: Final = "install.sh"
PORTABLE: Final = {"x86_64": ("avx", "avx2", "bmi2", "f16c", "fma", "sse4_2")}
"""What ggml asks of a processor where it is not told to take all that this one has (GGML_NATIVE=OFF)."""


def gather(
    site: Site, deployment: Deployment, given: tuple[str, ...], source: Source, *, system: str, dry_run: bool
) -> Ingredients:
    """Look through everything that goes into a bundle for a `system`, a distribution's name; little in a dry run."""
    cache = Path(deployment.layout.cache)
    packages: tuple[Package, ...] = ()
    if not dry_run:
        packages += bootstrap.wheels(cache, site.machine, source, site.progress)
        packages += bootstrap.debs(cache, site.machine, source, site.progress)
    small = (*_own(), *(_package(one) for one in packages))
    files = tuple(word for word in given if _is_file(word))
    more = [bootstrap.given(Path(word)) for word in files]
    if not dry_run:
        names = tuple(word for word in given if not _is_file(word))
        more += bootstrap.named(names, cache, site.machine, source, site.progress)
    small += tuple({one.component.key: one for one in (_package(one, kind="package") for one in more)}.values())
    engines = tuple(
        Engine(artifact=one, version=_version(one, deployment), directory=pack.look(home))
        for one in deployment.artifacts
        if one.kind != "image" and (home := acquire.home(one, deployment)).is_dir()
    )
    boxes = tuple(
        images.look(one, _version(one, deployment), deployment.podman)
        for one in deployment.artifacts
        if one.kind == "image" and (not dry_run or acquire.present(one, deployment))
    )
    models = tuple((model, _paths(model, deployment)) for model in deployment.models)
    bom = sbom.document("llm-appliance bundle", __version__, _entries(deployment, small, engines, system))
    attached = tuple(_attached(deployment))
    plan = cargo.dump(cargo.of(deployment, {one.path: _place(one) for one in attached}))
    return Ingredients(
        plan=plan, sbom=bom, small=small, engines=engines, boxes=boxes, podman=deployment.podman, attached=attached,
        models=models,
    )  # fmt: skip


def _is_file(word: str) -> bool:
    """Whether a package was given by its file, and not by its name in the distribution."""
    return word.endswith(".deb") or word.startswith((".", "/"))


def _attached(deployment: Deployment) -> Iterator[Attached]:
    for path in sorted({path for one in deployment.spec.models for path in cargo.paths(one)}):
        directory = pack.look_at(Path(path))
        yield Attached(path=path, key=pack.digest(directory), directory=directory)


def _place(one: Attached) -> str:
    """Return how the plan in the bundle names it."""
    path = Path(one.path)
    return one.key if path.is_dir() else f"{one.key}/{path.name}"


def processor(deployment: Deployment, here: Host) -> tuple[str, ...]:
    """Return what a processor must have for the engines that are compiled, on a machine like this one."""
    found: set[str] = set()
    for one in deployment.artifacts:
        if one.portable or "NATIVE=OFF" in one.pins:
            found |= set(PORTABLE.get(here.arch, ()))
        elif one.kind == "build" or "NATIVE=ON" in one.pins or (one.name in COMPILED and not one.indexes):
            found |= set(here.cpu_flags)
    return tuple(sorted(found))


def refuse_small_disk(target: Path, size: int) -> None:
    """Raise HostError when a bundle of `size` bytes finds no room where it is to lie."""
    place = next(path for path in target.absolute().parents if path.exists())
    # What an earlier run of the same command wrote is taken up, or written over.
    drafts = place.glob(f".{target.name}*.new")
    free = shutil.disk_usage(place).free + sum(one.stat().st_blocks * 512 for one in drafts)
    if size > free:
        raise HostError(
            f"{place}: {amount_text(free)} free, the bundle takes {amount_text(size)}",
            hint="write it elsewhere, or leave out what the target has: --base",
        )


def _own() -> tuple[Small, ...]:
    name, wheel = bootstrap.own_wheel()
    script = resources.data(f"installers/{INSTALLER}").read_bytes()
    return (
        _content("appliance", "installer", INSTALLER, "", script),
        _content("appliance", "appliance", name, __version__, wheel),
    )


def _content(part: str, kind: str, name: str, version: str, content: bytes) -> Small:
    digest = hashlib.sha256(content).hexdigest()
    component = Component(
        kind=part, name=name.partition("-")[0], key=digest, version=version, licence="Apache-2.0", payloads=(digest,),
        files=(name,), unpacked=len(content),
    )  # fmt: skip
    return Small(component=component, kind=kind, content=content, size=len(content))


def _package(one: Package, kind: str = "") -> Small:
    digest = file_digest(one.path)
    part = kind or {"wheel": "appliance", "deb": "python"}[one.kind]
    component = Component(
        kind=part, name=one.name, key=digest, version=one.version, licence=one.licence, payloads=(digest,),
        files=(one.path.name,), unpacked=one.size,
    )  # fmt: skip
    return Small(component=component, kind=kind or one.kind, path=one.path, size=one.size)


def _paths(model: Model, deployment: Deployment) -> tuple[Path, ...]:
    """Return where a model's files are: in the store, else where they were found."""
    home = store.home(model, deployment.layout.state)
    if home.is_dir():
        return tuple(home / file.name for file in model.weights.files)
    for file in model.weights.files:
        if not file.url and not Path(file.path).is_file():
            raise ArtifactError(f"{model.name}: {file.path} is gone and no copy is in the store")
    return tuple(Path(file.path) for file in model.weights.files if not file.url)


def _version(artifact: Artifact, deployment: Deployment) -> str:
    return next((one.version for one in deployment.services if artifact.digest in one.artifacts), "")


def _entries(
    deployment: Deployment, small: tuple[Small, ...], engines: tuple[Engine, ...], system: str
) -> Iterator[sbom.Entry]:
    for one in small:
        part = one.component
        kinds = {"wheel": ("pypi", ""), "deb": ("deb", system), "package": ("deb", system)}
        purl = ""
        if one.kind in kinds:
            kind, namespace = kinds[one.kind]
            purl = sbom.purl(kind, part.name, part.version, namespace)
        yield sbom.Entry(
            kind="library" if purl else part.kind, name=part.name, version=part.version, licence=part.licence,
            purl=purl, sha256=part.key,
        )  # fmt: skip
    for engine in engines:
        yield sbom.Entry(kind="engine", name=engine.artifact.name, version=engine.version)
        yield from _inside(engine, system)
    for box in (one for one in deployment.artifacts if one.kind == "image"):
        yield sbom.Entry(kind="engine", name=box.ref, version=_version(box, deployment))
    for model in deployment.models:
        for file in model.weights.files:
            yield sbom.Entry(kind="model", name=f"{model.name}/{file.name}", sha256=file.sha256)


def _inside(engine: Engine, system: str) -> Iterator[sbom.Entry]:
    """Yield the packages that a Python environment was made of, or that the gateway was unpacked from."""
    locked = engine.directory.root / "requirements.txt"
    for line in locked.read_text().splitlines() if locked.is_file() else ():
        name, _, version = line.partition(" ")[0].partition("==")
        if version:
            yield sbom.Entry(kind="library", name=name, version=version, purl=sbom.purl("pypi", name, version))
    for name in engine.artifact.ref.split() if engine.artifact.kind == "debs" else ():
        yield sbom.Entry(kind="library", name=name, purl=sbom.purl("deb", name, namespace=system))
