"""From the name that was typed to the files of a bundle, in order: one file, parts, or a directory."""

import hashlib
import os
from pathlib import Path

from appliance.bundle import parts, tar
from appliance.bundle.index import LARGEST, Index
from appliance.errors import ArtifactError, UsageError
from appliance.system.volume import Piece, Volume


def volume(path: Path, places: tuple[Path, ...]) -> tuple[Volume, parts.Part | None]:
    """Open what is there, parts joined in place; tell what the first says. Raises UsageError, ArtifactError."""
    if path.is_dir():
        return Volume(_head_of_directory(path)), None
    if not path.exists():
        path = _first_part(path, places)
    try:
        with path.open("rb") as stream:
            first = stream.read(parts.HEADER)
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from None
    if not first.startswith(parts.MAGIC):
        if size < 2 * tar.BLOCK:
            raise ArtifactError(f"{path}: {size} bytes are no bundle")
        return Volume((Piece(path=path, start=0, size=size),)), None
    return Volume(_joined(path, places)), parts.read(first, source=str(path))


def identity(content: bytes) -> str:
    """Return what parts call the bundle that they are of: the SHA-256 of its bundle.json."""
    return hashlib.sha256(content).hexdigest()


def blobs(path: Path, index: Index, slot: int) -> Volume:
    """Open a directory's blobs, each where it would lie in the archive. Raises ArtifactError."""
    home = path / "blobs" / "sha256"
    there = {one.name for one in home.iterdir()} if home.is_dir() else set()
    listed = {one.digest for one in index.payloads}
    for name in sorted(there - listed):
        raise ArtifactError(f"{home / name}: a blob that the index does not list", hint="extract the bundle again")
    for one in index.payloads:
        if one.digest not in there:
            raise ArtifactError(f"{home}: blob {one.digest} is missing", hint="extract the bundle again")
    pieces = _head_of_directory(path, slot)
    pieces += [Piece(path=home / one.digest, start=one.offset, size=one.size) for one in index.payloads if one.size]
    return Volume(pieces)


def _head_of_directory(path: Path, slot: int = 0) -> list[Piece]:
    first = path / tar.INDEX
    try:
        size = first.stat().st_size
    except OSError as error:
        raise UsageError(f"{path}: no bundle: {first.name}: {error.strerror}") from None
    if not 0 < size <= LARGEST:
        raise ArtifactError(f"{first}: an index of {size:,} bytes; at most {LARGEST:,} are read")
    pieces = []
    for name, place, length in tar.head(slot or size):
        member = path / name
        length_ = length if name != tar.SIGNATURE else tar.SIGNATURE_SIZE
        pieces.append(Piece(path=member, start=place + tar.BLOCK, size=length_))
    return pieces


def _first_part(path: Path, places: tuple[Path, ...]) -> Path:
    found = _siblings(path.with_name(f"{path.name}.001"), places)
    if not found:
        raise UsageError(f"{path}: no such file", hint="a bundle's file, one of its parts, or its directory")
    return found[0]


def _siblings(path: Path, places: tuple[Path, ...]) -> list[Path]:
    """Return the files that are called as parts of the same bundle are."""
    stem, _, number = path.name.rpartition(".")
    if not number.isdigit():
        return []
    found = []
    for place in (path.parent, *places):
        try:
            names = sorted(one.name for one in place.iterdir())
        except OSError as error:
            raise UsageError(f"{place}: {error.strerror}") from None
        found += [
            place / name for name in names if name.rpartition(".")[0] == stem and name.rpartition(".")[2].isdigit()
        ]
    return list(dict.fromkeys(found))


def _part(path: Path) -> parts.Part | None:
    """Return what a file says of itself, None when it is no part. Raises ArtifactError when that is damaged."""
    try:
        with path.open("rb") as stream:
            content = stream.read(parts.HEADER)
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from None
    return parts.read(content, source=str(path)) if content.startswith(parts.MAGIC) else None


def _joined(path: Path, places: tuple[Path, ...]) -> list[Piece]:
    found: dict[str, parts.Part] = {}
    for candidate in (path, *_siblings(path, places)):
        part = _part(candidate)
        if part is None:
            if candidate != path:
                raise ArtifactError(f"{candidate}: no part of a bundle, or its beginning is damaged")
            raise ArtifactError(f"{candidate}: the part's header is damaged")
        found[str(candidate)] = part
    pieces = []
    for name in parts.order(found, str(path)):
        part = found[name]
        label = f"part {part.number} of {part.of} ({name})"
        pieces.append(
            Piece(path=Path(name), start=part.offset, size=part.size, skip=parts.HEADER, label=label)
        )  # fmt: skip
    return pieces
