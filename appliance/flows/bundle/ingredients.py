"""What a bundle is made of, and how it is written."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from appliance.acquire.bundle import Archive, Known, images, pack
from appliance.acquire.bundle.images import Box
from appliance.bundle.index import CHUNK, Component
from appliance.domain.deployment import Model
from appliance.domain.host import Podman
from appliance.domain.release import Artifact

STARTERS: Final = ("appliance", "python")
"""Kinds of components that a machine without Python starts from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine or the gateway, as it lies on this machine."""

    artifact: Artifact
    version: str
    directory: pack.Directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """An adapter's directory, or a chat template, as models of the plan point to it."""

    path: str
    key: str
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
    podman: Podman | None
    """What has them in Docker's place."""
    attached: tuple[Attached, ...]
    models: tuple[tuple[Model, tuple[Path, ...]], ...]
    """Each with where its files are."""

    def sizes(self, left: frozenset[str]) -> tuple[int, ...]:
        """Return the bytes of each payload; `left` are the keys of components that the target has."""
        directories = (
            size for one in self.engines if one.artifact.digest not in left for size in one.directory.sizes
        )  # fmt: skip
        beside = (size for one in self.attached for size in one.directory.sizes)
        weights = (file.size for model, _ in self.models if model.digest not in left for file in model.weights.files)
        small = (one.size for one in self.small if one.component.key not in left)
        there = images.left_out(self.boxes, left)
        boxes = {one.image.id: one.image.size for one in self.boxes if set(one.image.layers) - there}
        layers = {layer for one in self.boxes for layer in one.image.layers}
        # Of each by itself Docker tells when it comes.
        single = (0,) * (len(layers) + len(self.boxes))
        sizes = (*small, *directories, *beside, *weights, *boxes.values(), *single)
        return (len(self.plan), len(self.sbom), *sizes)

    @property
    def components(self) -> int:
        """How many components there will be."""
        return 2 + len(self.small) + len(self.engines) + len(self.models) + len(self.boxes) + len(self.attached)

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
        return "\n".join((whole, *files, *engines, *(repr(one) for one in (*self.boxes, *self.attached))))

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
        found += images.add(archive, self.boxes, self.podman)
        found += [_engine(archive, one, left) for one in self.engines]
        for key, directory in {one.key: one.directory for one in self.attached}.items():
            name, tree = directory.root.name, pack.add(archive, directory)
            found.append(Component(kind="files", name=name, key=key, payloads=(tree,), unpacked=directory.unpacked))
        return (*found, *(_model(archive, model, paths, left) for model, paths in self.models))


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
