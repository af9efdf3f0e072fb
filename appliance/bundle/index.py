"""The index of a bundle: what is in it, by digest, and what machine it was made for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from appliance import codec
from appliance.bundle import tar
from appliance.errors import ArtifactError, SpecError

SCHEMA: Final = 2
CHUNK: Final = 64 << 20
"""Bytes that are verified at once, unless the bundle is so large that their digests would swell the index."""
LARGEST: Final = 16 << 20
"""Bytes of an index that is read at all: 200,000 chunks."""
MOST: Final = 1 << 46
"""Bytes of the largest bundle, 64 TiB: far from where numbers stop being exact elsewhere."""
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
KINDS: Final = (
    "plan", "sbom", "licence", "installer", "appliance", "wheel", "deb", "package", "file", "pack", "tree", "image",
    "weights", "manifest",
)  # fmt: skip
"""What a payload can be. `file`, `pack` and `tree` make up directories; `image` is a blob of an OCI image."""
PARTS: Final = ("engine", "gateway", "model", "files", "appliance", "python", "package", "document")
"""What a component can be; `files` are an adapter, or a chat template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One blob."""

    digest: str
    """SHA-256 (hex): its name."""
    size: int
    """Bytes."""
    offset: int
    """Of its first byte in the archive."""
    kind: str
    """One of KINDS."""
    chunks: tuple[str, ...] = ()
    """SHA-256 of all that lies before the end of each chunk but the last, where it is that of the whole; () where it
    is no longer than one. Made in one pass with the digest, and it tells which chunk is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """Something that a person would name: an engine, a model, a package."""

    kind: str
    """One of PARTS."""
    name: str
    key: str
    """What it is known by where it lands: an artifact's or a model's digest; a payload's for all else."""
    version: str = ""
    licence: str = ""
    """SPDX expression, or what the package says; "" = not known."""
    source: str = ""
    """Where it comes from: a package index's requirement, a hub's pinned source."""
    payloads: tuple[str, ...] = ()
    """Digests; of a directory its tree only, which names the others."""
    files: tuple[str, ...] = ()
    """What the payloads are called, in the same order."""
    unpacked: int = 0
    """Bytes that it takes on the disk of the target."""
    base: bool = False
    """Not in here: the target has it already."""

    @property
    def image(self) -> bool:
        """Tell whether it is a container image: of a directory the names are in its tree."""
        return self.kind in ("engine", "gateway") and bool(self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A blob that is not in here because the target has it already."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The machine that it was made for."""

    os: str
    os_version: str
    arch: str
    glibc: str
    """Lowest C library."""
    python: str
    """Version that the environments in here were made with, `3.11`; "" = there are none."""
    cpu_flags: tuple[str, ...] = ()
    """What the processor must have, for code that was compiled."""
    drivers: tuple[tuple[str, str], ...] = ()
    """(vendor, lowest driver version)."""
    docker: bool = False
    """Its engines are container images: Docker or Podman, with Compose, must be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Everything that a bundle holds."""

    schema: int
    name: str
    serial: int
    """Counts up from bundle to bundle of a name: an older one is not installed unless it is asked for."""
    appliance: str
    """Version of llm-appliance that is in here."""
    target: Target
    size: int
    """Bytes of the archive, all parts together and their headers left out."""
    payloads: tuple[Payload, ...]
    """In the order in which they lie."""
    components: tuple[Component, ...]
    base: tuple[Base, ...] = ()
    chunk: int = CHUNK

    def of(self, *kinds: str) -> tuple[Component, ...]:
        """Return the components of these kinds."""
        return tuple(one for one in self.components if one.kind in kinds)


def load(content: bytes, *, source: str) -> Index:
    """Read the bytes of an index, padding and all. Raises ArtifactError: for what is malformed, too large or a lie."""
    if len(content) > LARGEST:
        raise ArtifactError(f"{source}: an index of {len(content):,} bytes; at most {LARGEST:,} are read")
    text = content.rstrip(b" ")
    newer = SCHEMA_IS.match(text)
    if newer and int(newer[1]) != SCHEMA:
        hint = "bring llm-appliance up to date" if int(newer[1]) > SCHEMA else ""
        raise ArtifactError(f"{source}: schema {int(newer[1])}; this version reads {SCHEMA}", hint=hint)
    try:
        index = codec.load_json(Index, text, source=source, limit=LARGEST)
    except SpecError as error:
        raise ArtifactError(f"index of {error.message}") from None
    # One way to write it: keys given twice, NaN, a mark in front and spaces in between others may read otherwise.
    if dump(index) != text:
        raise ArtifactError(f"{source}: the index is not written as it should be; it was made by something else")
    for problem in problems(index, len(content)):
        raise ArtifactError(f"{source}: {problem}")
    return index


SCHEMA_IS: Final = re.compile(rb'\{"schema":(\d{1,9})[,}]')


def dump(index: Index) -> bytes:
    """Return the bytes of an index, without padding; the same index gives the same bytes."""
    return codec.dump_canonical(index)


def problems(index: Index, slot: int) -> Iterator[str]:
    """Yield what the types cannot hold; `slot` is the length of bundle.json in the archive, in bytes."""
    if not NAME.fullmatch(index.name):
        yield f"name {index.name[:80]!r} is none"
    if index.serial < 0:
        yield f"serial {index.serial} is negative"
    if not CHUNK <= index.chunk <= MOST or index.chunk % CHUNK:
        yield f"chunk size {index.chunk} is no multiple of {CHUNK}"
    digests = [*(one.digest for one in index.payloads), *(one.digest for one in index.base)]
    for number, payload in enumerate(index.payloads):
        yield from (f"payloads.{number}: {problem}" for problem in _payload_problems(payload, index.chunk))
    if len(set(digests)) != len(digests):
        yield "a payload is listed twice"
    if not all(DIGEST.fullmatch(one.digest) and 0 <= one.size <= MOST for one in index.base):
        yield "base: no digest or no size"
    place = tar.first(slot)
    for number, payload in enumerate(index.payloads):
        if payload.offset != tar.data(place):
            yield f"payloads.{number}: offset {payload.offset}, it lies at {tar.data(place)}"
            return
        place = tar.after(payload.offset, payload.size)
    if index.size != tar.end(place) or index.size > MOST:
        yield f"size {index.size}, its payloads make {tar.end(place)}"
    yield from _component_problems(index, frozenset(digests))


def _payload_problems(payload: Payload, chunk: int) -> Iterator[str]:
    if not DIGEST.fullmatch(payload.digest):
        yield f"digest {payload.digest[:80]!r} is no SHA-256 in lower case"
    if payload.kind not in KINDS:
        yield f"kind {payload.kind[:80]!r} is none"
    if not 0 <= payload.size <= MOST:
        yield f"size {payload.size}"
        return
    wanted = max(0, payload.size - 1) // chunk
    if len(payload.chunks) != wanted or not all(DIGEST.fullmatch(one) for one in payload.chunks):
        yield f"{len(payload.chunks)} digests of chunks, {wanted} are needed"


def _component_problems(index: Index, known: frozenset[str]) -> Iterator[str]:
    for number, one in enumerate(index.components):
        where = f"components.{number}"
        if one.kind not in PARTS:
            yield f"{where}: kind {one.kind[:80]!r} is none"
        if not DIGEST.fullmatch(one.key):
            yield f"{where}: key {one.key[:80]!r} is no SHA-256"
        if not all(word.isprintable() for word in (one.name, one.version, one.licence, one.source)):
            yield f"{where}: a name that cannot be printed"
        if one.unpacked < 0 or one.unpacked > MOST:
            yield f"{where}: {one.unpacked} bytes unpacked"
        if set(one.payloads) - known:
            yield f"{where}: a payload that is not listed"
        if len(one.files) not in (0, len(one.payloads)) or len(set(map(str.casefold, one.files))) != len(one.files):
            yield f"{where}: names that do not go with its payloads"
        for name in one.files:
            if not file_name(name):
                yield f"{where}: {name[:80]!r} is no file name"


def file_name(name: str) -> bool:
    """Tell whether a name is that of a file in a directory, in which no shell or terminal reads anything more."""
    return FILE.fullmatch(name) is not None and not name.startswith((".", "-"))


FILE: Final = re.compile(r"[A-Za-z0-9_.+~=@%,:() -]{1,200}")
