"""One bundle in several files: what each says of itself, and whether those that are there make up the whole."""

import hashlib
from dataclasses import dataclass
from typing import Final

from appliance import codec
from appliance.errors import ArtifactError, SpecError

MAGIC: Final = b"llm-appliance bundle part\n"
HEADER: Final = 4096
"""Bytes at the beginning of each part; the archive's bytes follow."""
SMALLEST: Final = 1 << 20
"""Bytes of a part that it is worth to make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a part says of itself."""

    bundle: str
    """SHA-256 (hex) of the bundle's bundle.json: whose part it is."""
    number: int
    """From 1."""
    of: int
    offset: int
    """Of its first byte in the archive."""
    size: int
    """Bytes of the archive that it holds."""


def header(part: Part) -> bytes:
    """Return the first bytes of a part; they end in their own digest, so that a damaged part is not a foreign one."""
    said = MAGIC + codec.dump_canonical(part) + b"\n"
    return (said + hashlib.sha256(said).hexdigest().encode() + b"\n").ljust(HEADER, b"\0")


def read(content: bytes, *, source: str) -> Part:
    """Read the first bytes of a part. Raises ArtifactError."""
    try:
        part = codec.load_json(Part, content[len(MAGIC) :].partition(b"\n")[0], source=source)
    except SpecError:
        raise ArtifactError(f"{source}: the part's header is damaged", hint="copy it again") from None
    if header(part) != content or not (1 <= part.number <= part.of and part.offset >= 0 and part.size > 0):
        raise ArtifactError(f"{source}: the part's header is damaged", hint="copy it again")
    return part


def names(target: str, count: int) -> tuple[str, ...]:
    """Return what the parts of a bundle are called."""
    digits = max(3, len(str(count)))
    return tuple(f"{target}.{number:0{digits}}" for number in range(1, count + 1))


def order(found: dict[str, Part], wanted: str) -> tuple[str, ...]:
    """Return the files in the order of their parts; `wanted` is the one that was asked for.

    Raises ArtifactError that names the part which is missing, there twice, or of another bundle.
    """
    ours = found[wanted]
    foreign = [name for name, part in found.items() if (part.bundle, part.of) != (ours.bundle, ours.of)]
    by_number: dict[int, str] = {}
    for name, part in sorted(found.items()):
        if name in foreign:
            continue
        if part.number in by_number:
            raise ArtifactError(f"part {part.number} of {part.of} is there twice: {by_number[part.number]} and {name}")
        by_number[part.number] = name
    place = 0
    for number in range(1, ours.of + 1):
        if number not in by_number:
            other = f"; {foreign[0]} is part {found[foreign[0]].number} of another bundle" if foreign else ""
            raise ArtifactError(
                f"part {number} of {ours.of} is missing{other}",
                hint="put all parts into one directory, or name the others: --parts-dir DIR",
            )
        if found[by_number[number]].offset != place:
            raise ArtifactError(f"{by_number[number]}: part {number} does not follow the one before it")
        place += found[by_number[number]].size
    return tuple(by_number[number] for number in range(1, ours.of + 1))
