"""What goes into a bundle, in which order, and under which names."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from appliance import __version__, acquire, resources
from appliance.acquire import store
from appliance.acquire.bundle import Archive, Known, bootstrap, images, pack
from appliance.acquire.bundle.bootstrap import Package
from appliance.acquire.bundle.images import Box
from appliance.acquire.source import Source
from appliance.acquire.wheels import COMPILED
from appliance.bundle import cargo, sbom
from appliance.bundle.index import CHUNK, Component
from appliance.domain.deployment import Artifact, Deployment, Model
from appliance.domain.host import Host
from appliance.errors import ArtifactError, HostError
from appliance.flows.site import Site
from appliance.report import amount_text
from appliance.system.download import file_digest

INSTALLER: Final = "install.sh"
PORTABLE: Final = {"x86_64": ("avx", "avx2", "bmi2", "f16c", "fma", "sse4_2")}
"""What ggml asks of a processor where it is not told to take all that this one has (GGML_NATIVE=OFF)."""
STARTERS: Final = ("appliance", "python")
"""Kinds of components that a machine without Python starts from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine or the gateway, as it lies on this machine."""

    artifact: Artifact
    version: str
    directory: pack.Directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A file that is a component, or a part of one."""

    component: Component
    kind: str
    content: bytes = b""
    path: Path | None = None
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """Everything that a bundle is made of."""

    plan: bytes
    sbom: bytes
    small: tuple[Small, ...]
    engines: tuple[Engine, ...]
    boxes: tuple[Box, ...]
    """Container images."""
    models: tuple[tuple[Model, tuple[Path, ...]], ...]
    """Each with where its files are."""

    def sizes(self, left: frozenset[str]) -> tuple[int, ...]:
        """Return the bytes of each payload; `left` are the keys of components that the target has."""
        directories = (
            size for one in self.engines if one.artifact.digest not in left for size in one.directory.sizes
        )  # fmt: skip
        weights = (file.size for model, _ in self.models if model.digest not in left for file in model.weights.files)
        small = (one.size for one in self.small if one.component.key not in left)
        layers = {layer: one.image for one in self.boxes for layer in one.image.layers}
        whole = {one.image.id: one.image.size for one in self.boxes}
        return (len(self.plan), len(self.sbom), *small, *directories, *weights, *whole.values(), *(0 for _ in layers))

    @property
    def components(self) -> int:
        """How many components there will be."""
        return 2 + len(self.small) + len(self.engines) + len(self.models) + len(self.boxes)

    @property
    def room(self) -> int:
        """Bytes of an index that it may need beside that: Docker tells how large layers are when they come.

        Small files make a layer larger than what is in it, hardly ever four times as large.
        """
        names = sum(66 * (2 + len(one.image.layers)) + 24 * len(one.image.layers) for one in self.boxes)
        return names + 70 * sum(4 * one.image.size // CHUNK + len(one.image.layers) for one in self.boxes)

    @property
    def mark(self) -> str:
        """Text that is the same only when all of it is."""
        paths = (*(one.path for one in self.small if one.path), *(path for _, found in self.models for path in found))
        files = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths]
        contents = (self.plan, self.sbom, *(one.content for one in self.small))
        whole = hashlib.sha256(b"\0".join(contents)).hexdigest()
        engines = (repr(one.directory) for one in self.engines)
        return "\n".join((whole, *files, *engines, *(repr(one) for one in self.boxes)))

    def base(self, there: Known) -> frozenset[str]:
        """Return the digests to leave out: of images not what Docker would not know again where it is to be loaded."""
        ours = {one.image.id.removeprefix("sha256:") for one in self.boxes}
        ours |= {layer for one in self.boxes for layer in one.image.layers}
        return (there.digests - ours - self.starters) | images.left_out(self.boxes, there.keys)

    @property
    def starters(self) -> frozenset[str]:
        """Digests of what a machine without Python starts from."""
        return frozenset(one.component.key for one in self.small if one.component.kind in STARTERS)

    def write(self, archive: Archive, left: frozenset[str]) -> tuple[Component, ...]:
        """Put everything into an archive, the weights last, and return what is in it."""
        plan = archive.add("plan", self.plan)
        bom = archive.add("sbom", self.sbom)
        documents = (("plan", plan, "plan.json"), ("sbom", bom, "sbom.cdx.json"))
        found = [
            Component(kind="document", name=name, key=digest, payloads=(digest,), files=(file,))
            for name, digest, file in documents
        ]
        for one in self.small:
            if one.component.key in left:
                found.append(replace(one.component, payloads=(), files=(), base=True))
                continue
            if one.path:
                archive.file(one.kind, one.path, one.size, known=one.component.key)
            else:
                archive.add(one.kind, one.content)
            found.append(one.component)
        found += images.add(archive, self.boxes)
        found += [_engine(archive, one, left) for one in self.engines]
        return (*found, *(_model(archive, model, paths, left) for model, paths in self.models))


def gather(
    site: Site, deployment: Deployment, given: tuple[Path, ...], source: Source, *, system: str, dry_run: bool
) -> Ingredients:
    """Look through everything that goes into a bundle for a `system`, a distribution's name; little in a dry run."""
    cache = Path(deployment.layout.cache)
    packages: tuple[Package, ...] = ()
    if not dry_run:
        packages += bootstrap.wheels(cache, site.machine, source, site.progress)
        packages += bootstrap.debs(cache, site.machine, source, site.progress)
    small = (*_own(), *(_package(one) for one in packages))
    small += tuple(_package(bootstrap.given(path), kind="package") for path in given)
    engines = tuple(
        Engine(artifact=one, version=_version(one, deployment), directory=pack.look(home))
        for one in deployment.artifacts
        if one.kind != "image" and (home := acquire.home(one, deployment)).is_dir()
    )
    boxes = tuple(
        images.look(one, _version(one, deployment))
        for one in deployment.artifacts
        if one.kind == "image" and not dry_run
    )
    models = tuple((model, _paths(model, deployment)) for model in deployment.models)
    bom = sbom.document("llm-appliance bundle", __version__, _entries(deployment, small, engines, system))
    plan = cargo.dump(cargo.of(deployment))
    return Ingredients(plan=plan, sbom=bom, small=small, engines=engines, boxes=boxes, models=models)


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


def _engine(archive: Archive, one: Engine, left: frozenset[str]) -> Component:
    base = one.artifact.digest in left
    return Component(
        kind="gateway" if one.artifact.kind == "debs" else "engine",
        name=one.artifact.name,
        key=one.artifact.digest,
        version=one.version,
        source=one.artifact.ref,
        payloads=() if base else (pack.add(archive, one.directory),),
        unpacked=one.directory.unpacked,
        base=base,
    )


def _model(archive: Archive, model: Model, paths: tuple[Path, ...], left: frozenset[str]) -> Component:
    base = model.digest in left
    pairs = () if base else zip(model.weights.files, paths, strict=True)
    return Component(
        kind="model",
        name=model.name,
        key=model.digest,
        version=model.weights.quantisation,
        source=model.source,
        payloads=tuple(archive.file("weights", path, file.size, known=file.sha256) for file, path in pairs),
        files=() if base else tuple(file.name for file in model.weights.files),
        unpacked=model.weights.size,
        base=base,
    )


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
