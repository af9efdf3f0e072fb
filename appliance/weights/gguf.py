"""The GGUF header: what it says of the model, and whether the file holds what it promises."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from appliance.errors import ArtifactError
from appliance.weights.cursor import Cursor
from appliance.weights.files import AGAIN
from appliance.weights.ggml import SCALARS, TENSOR_TYPES
from appliance.weights.metadata import MAX_NAME, MAX_PAIRS, Value, bound, read_metadata
from appliance.weights.tensors import Sizes, sizes

MAGIC = b"GGUF"
MAX_TENSORS = 131_072
_MAX_DIMENSIONS = 4
_MAX_ELEMENTS = 2**63 - 1
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What one GGUF file's header says; a split model has one per shard."""

    version: int
    metadata: Mapping[str, Value]
    """The pairs that sizing and checking need; an array is one number per layer."""
    chat_template: bool
    tensors: int
    elements: Mapping[str, int]
    """Weights by tensor type (`Q4_K`); `type 99` where the type is unknown."""
    data_end: int
    """Bytes that the file must have at least."""
    tokens: int
    """Entries of the vocabulary."""
    sizes: Sizes

    @property
    def parameters(self) -> int:
        """Weights of all tensors together."""
        return sum(self.elements.values())

    def text(self, key: str) -> str:
        """Get the string under `key`, or ""."""
        value = self.metadata.get(key, "")
        return value if isinstance(value, str) else ""

    def numbers(self, key: str) -> tuple[int, ...]:
        """Get the number or numbers under `key`; () where there are none."""
        value = self.metadata.get(key, ())
        if isinstance(value, int):
            return (value,)
        return value if isinstance(value, tuple) else ()

    def number(self, key: str) -> int:
        """Get the largest number under `key`, or 0."""
        return max(self.numbers(key), default=0)


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    kind: str
    elements: int
    begin: int
    """Bytes from the start of the data."""
    size: int | None
    """Bytes, None where the type is unknown."""


def parse(stream: BinaryIO, size: int, name: str = "GGUF file") -> GgufHeader:
    """Read the header of a GGUF file of `size` bytes; `name` is for messages.

    Raises ArtifactError: not GGUF, version not 2 or 3, big-endian, beyond a bound, inconsistent, or truncated.
    """
    cursor = Cursor(stream, size, name)
    version = _version(cursor)
    tensor_count, pair_count = cursor.u64(), cursor.u64()
    bound(cursor, tensor_count, MAX_TENSORS, "tensors")
    bound(cursor, pair_count, MAX_PAIRS, "metadata pairs")
    metadata = read_metadata(cursor, pair_count)
    alignment = _alignment(cursor, metadata.values)
    tensors = _read_tensors(cursor, tensor_count, alignment)
    data_begin = -(-cursor.position // alignment) * alignment
    _check_overlap(cursor, tensors)
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.kind] += tensor.elements
    return GgufHeader(
        version=version,
        metadata=metadata.values,
        chat_template=metadata.chat_template,
        tensors=tensor_count,
        elements=dict(elements),
        data_end=_check_end(tensors, data_begin, size, name, cursor.position),
        tokens=metadata.tokens,
        sizes=sizes((tensor.name, tensor.size or 0) for tensor in tensors),
    )


def _version(cursor: Cursor) -> int:
    magic = cursor.u32().to_bytes(4, "little")
    if magic != MAGIC:
        raise cursor.error(f"not a GGUF file: begins with {magic!r}", hint="Give a .gguf file.")
    version = cursor.u32()
    if version in (2, 3):
        return version
    if version == 1:
        raise cursor.error("GGUF version 1, which no current engine reads", hint="Get a newer GGUF of the model.")
    if version and not version & 0xFFFF:
        raise cursor.error(
            "a big-endian GGUF file, made for s390x or POWER; this machine needs the little-endian one",
            hint="Get the ordinary GGUF of the model.",
        )
    raise cursor.error(f"GGUF version {version} is unknown; 2 and 3 are read", hint="Update llm-appliance.")


def _alignment(cursor: Cursor, metadata: Mapping[str, Value]) -> int:
    value = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or value < 1 or value & (value - 1) or value > 1 << 20:
        raise cursor.error(f"general.alignment is {value}; a power of two up to 1,048,576 is allowed")
    return value


def _read_tensors(cursor: Cursor, count: int, alignment: int) -> list[_Tensor]:
    tensors: list[_Tensor] = []
    seen: set[str] = set()
    for _ in range(count):
        tensor = _read_tensor(cursor)
        if tensor.name in seen:
            raise cursor.error(f"tensor {tensor.name!r} is there twice")
        if tensor.begin % alignment:
            raise cursor.error(f"tensor {tensor.name!r} begins at byte {tensor.begin:,}, no multiple of {alignment}")
        seen.add(tensor.name)
        tensors.append(tensor)
    return tensors


def _read_tensor(cursor: Cursor) -> _Tensor:
    name = cursor.text(MAX_NAME, "a tensor name")
    dimensions = cursor.u32()
    if dimensions > _MAX_DIMENSIONS:
        raise cursor.error(f"tensor {name!r} claims {dimensions:,} dimensions; {_MAX_DIMENSIONS} are allowed")
    shape = cursor.numbers(SCALARS[10], dimensions)
    elements = 1
    for length in shape:
        elements *= length
    if max(shape, default=0) > _MAX_ELEMENTS or elements > _MAX_ELEMENTS:
        raise cursor.error(f"tensor {name!r} claims {' x '.join(map(str, shape))} elements, more than 64 bits count")
    kind, begin = cursor.u32(), cursor.u64()
    if kind not in TENSOR_TYPES:
        return _Tensor(name, f"type {kind}", elements, begin, None)
    label, block, block_bytes = TENSOR_TYPES[kind]
    row = shape[0] if shape else 1
    if row % block:
        raise cursor.error(f"tensor {name!r} has rows of {row:,}, but {label} packs {block} at a time")
    return _Tensor(name, label, elements, begin, elements // block * block_bytes)


def _check_overlap(cursor: Cursor, tensors: list[_Tensor]) -> None:
    before: _Tensor | None = None
    for tensor in sorted(tensors, key=lambda one: (one.begin, one.size or 0)):
        if before and tensor.begin < before.begin + (before.size or 0):
            raise cursor.error(f"tensors {before.name!r} and {tensor.name!r} lie on the same bytes")
        before = tensor


def _check_end(tensors: list[_Tensor], data_begin: int, size: int, name: str, header_end: int) -> int:
    """Find the last tensor's end in bytes from the start of the file, and refuse one beyond `size`."""
    if not tensors:
        return header_end
    last = max(tensors, key=lambda one: one.begin + (one.size or 0))
    end = data_begin + last.begin + (last.size or 0)
    if end > size:
        raise ArtifactError(
            f"{name} is truncated: has {size:,} bytes, header promises {end:,} (end of tensor {last.name!r})",
            hint=AGAIN,
        )
    return end
