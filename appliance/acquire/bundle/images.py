"""Container images: out of Docker's own stream into a bundle, layer by layer, and from a bundle into another Docker.

Podman gives and takes the same, but for one thing: it wants whole images, also where it has some of the layers.
"""

import json
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

from appliance.acquire.bundle.archive import Archive
from appliance.acquire.bundle.reader import Reader
from appliance.bundle import image as images
from appliance.bundle import tar
from appliance.bundle.index import Base, Component, Payload
from appliance.domain.host import Podman
from appliance.domain.release import Artifact
from appliance.errors import ArtifactError
from appliance.report import Bar, Progress, amount_text, work
from appliance.system.docker import Daemon, Image

SMALL: Final = 64 << 10
"""Bytes of a member of Docker's stream that is kept until manifest.json says what it is; a larger one is a layer."""
MOST: Final = 10_000
"""Members of such a stream; images have 127 layers at most."""
READ: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """An image that this machine's Docker or Podman has."""

    artifact: Artifact
    version: str
    image: Image


def look(artifact: Artifact, version: str, podman: Podman | None = None) -> Box:
    """Look an image up. Raises ArtifactError."""
    found = Daemon(podman).image(artifact.ref)
    if found is None:
        raise ArtifactError(f"the image {artifact.ref} is not here", hint="llm-appliance image pull, or image build")
    return Box(artifact=artifact, version=version, image=found)


def left_out(boxes: Sequence[Box], there: frozenset[str]) -> frozenset[str]:
    """Return the layers that a target has whose Docker knows these chain IDs, wherever they are needed."""
    pairs = [pair for one in boxes for pair in zip(one.image.layers, images.chains(one.image.layers), strict=True)]
    needed = {layer for layer, chain in pairs if chain not in there}
    return frozenset(layer for layer, _ in pairs) - needed


def add(archive: Archive, boxes: Sequence[Box], podman: Podman | None = None) -> tuple[Component, ...]:
    """Put images into a bundle, all from one stream, so that what they share is read once. Raises ArtifactError."""
    if not boxes:
        return ()
    refs = tuple(one.artifact.ref for one in boxes)
    with Daemon(podman).saved(refs, "the images cannot be read") as content:
        return taken(archive, boxes, content)


def taken(archive: Archive, boxes: Sequence[Box], content: IO[bytes]) -> tuple[Component, ...]:
    """Put images into a bundle from what Docker gives: its own old form, or an OCI layout. Raises ArtifactError."""
    kept, placed = _members(archive, content)
    rows = json.loads(kept.get("manifest.json", b"[]"))

    def digest(path: str) -> str:
        return placed[path] if path in placed else archive.add("image", kept[path])

    try:
        return tuple(_component(one, [digest(path) for path in _paths(one, rows)]) for one in boxes)
    except KeyError as error:
        raise ArtifactError(f"Docker gave images that are not whole: {error} is missing in its stream") from None


def load(reader: Reader, component: Component, ref: str, progress: Progress, podman: Podman | None = None) -> None:
    """Give an image to this machine's Docker, under a name. Raises ArtifactError."""
    daemon, missing = Daemon(podman), omitted(reader, component)
    there = frozenset(missing) if podman else images.known(daemon.stacks())
    size = sum(one.size for one in _needed(reader, component, there))
    progress.step("load", f"image {ref}: {amount_text(size)}")
    with work(progress, f"loading {component.name}", size) as bar:
        blocks = stream(reader, component, ref, there, bar, dict.fromkeys(missing.values()) if podman else ())
        daemon.feed(blocks, f"the image {ref}")
    if daemon.image(ref) is None:
        name = "podman" if podman else "docker"
        raise ArtifactError(f"{name.title()} took the image {ref}, and does not have it", hint=f"{name} images")


def stream(
    reader: Reader, component: Component, ref: str, there: frozenset[str], bar: Bar, blanks: Iterable[Base] = ()
) -> Iterator[bytes]:
    """Yield the tar that Docker loads, less the layers that it has: `there` are chain IDs.

    It gets bytes before they are checked. What says what they are comes last, and without it Docker loads nothing.

    Podman refuses an archive that lacks a layer, asks it for the lengths of all, and does not read those that it has:
    `blanks` are as long as they are. Where it does read one, it finds that the digest is another, and loads nothing.
    """
    for blank in blanks:
        yield images.header(images.NAME.format(blank.digest), blank.size)
        for place in range(0, tar.padded(blank.size), READ):
            yield bytes(min(READ, tar.padded(blank.size) - place))
    for one in _needed(reader, component, there):
        yield images.header(images.NAME.format(one.digest), one.size)
        for block in reader.blocks(one):
            bar.advance(len(block))
            yield block
        yield bytes(tar.padded(one.size) - one.size)
    config, *below = component.payloads
    last = images.manifest(config, below, ref)
    yield images.header("manifest.json", len(last)) + last
    yield bytes(tar.padded(len(last)) - len(last) + 2 * tar.BLOCK)


def omitted(reader: Reader, component: Component) -> dict[str, Base]:
    """Return the layers that the bundle leaves out, by their chain IDs."""
    base = {one.digest: one for one in reader.index.base}
    return {chain: base[layer] for layer, chain in _layers(component) if layer in base}


def _needed(reader: Reader, component: Component, there: frozenset[str]) -> list[Payload]:
    config, *_ = component.payloads
    wanted = [layer for layer, chain in _layers(component) if chain not in there]
    return [reader.payload(one) for one in dict.fromkeys((config, *wanted))]


def absent(components: Sequence[Component], base: frozenset[str], podman: Podman | None = None) -> frozenset[str]:
    """Return the blobs of images, out of those that are left out, which this machine's Docker has not."""
    pairs = [pair for part in components for pair in _layers(part) if pair[0] in base]
    there = images.known(Daemon(podman).stacks()) if pairs else frozenset()
    return frozenset(layer for layer, chain in pairs if chain not in there)


def layers(components: Sequence[Component]) -> frozenset[str]:
    """Return the blobs that images are made of."""
    return frozenset(one for part in components for one in part.payloads)


def _layers(part: Component) -> Iterator[tuple[str, str]]:
    yield from zip(part.payloads[1:], images.chains(part.payloads[1:]), strict=True)


def _members(archive: Archive, stream: IO[bytes]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return what is small, by its name in Docker's stream, and the digests of layers, which are in the bundle then."""
    kept: dict[str, bytes] = {}
    placed: dict[str, str] = {}
    links: dict[str, str] = {}
    with tarfile.open(fileobj=stream, mode="r|", bufsize=READ) as members:
        for number, member in enumerate(members):
            if number > MOST:
                raise ArtifactError(f"Docker gave more than {MOST} files for some images")
            if member.issym():  # a layer that an image before it has, too
                links[member.name] = posixpath.normpath(posixpath.join(member.name, "..", member.linkname))
            content = members.extractfile(member) if member.isreg() else None
            if content and member.size <= SMALL:
                kept[member.name] = content.read()
            elif content:
                fill: Any = content
                placed[member.name] = archive.stream("image", member.size, fill.readinto, name=f"image: {member.name}")
    for name, target in links.items():
        if target in placed:
            placed[name] = placed[target]
        elif target in kept:
            kept[name] = kept[target]
    return kept, placed


def _paths(one: Box, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return what an image's configuration and layers are called in Docker's stream."""
    ours = {images.full(name) for name in (one.artifact.ref, *one.image.tags)}
    for row in rows:
        named = ours & {images.full(name) for name in row["RepoTags"] or ()}
        if named or one.image.id.removeprefix("sha256:") in row["Config"]:
            return row["Config"], *row["Layers"]
    raise ArtifactError(f"Docker gave no image {one.artifact.ref}")


def _component(one: Box, digests: list[str]) -> Component:
    return Component(
        kind="gateway" if one.artifact.name == "gateway" else "engine",
        name=one.artifact.name,
        key=one.artifact.digest,
        version=one.version,
        source=one.artifact.ref,
        payloads=tuple(digests),
        files=images.names(len(digests) - 1),
        unpacked=one.image.size,
    )
