"""The safetensors header: which tensors a file holds, and whether the file is whole."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from appliance.errors import ArtifactError
from appliance.weights.files import AGAIN
from appliance.weights.jsonfile import Object, parse_object
from appliance.weights.tensors import Sizes, sizes

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit."""
_PREFIX = 8
"""Bytes in front of the header: its length, little-endian."""
_MAX_DIMENSIONS = 16

_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsHeader:
    """What one safetensors file's header says."""

    tensors: frozenset[str]
    elements: Mapping[str, int]
    """Stored elements by dtype (`BF16`); packed quantised weights count as the integers they are packed into."""
    data_end: int
    """Bytes that the file has."""
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dtype: str
    elements: int
    begin: int
    end: int


def parse(stream: BinaryIO, size: int, name: str = "safetensors file") -> SafetensorsHeader:
    """Read the header of a safetensors file of `size` bytes; `name` is for messages.

    Raises ArtifactError: too long, no JSON, unknown dtype, offsets that leave gaps or overlap, truncated.
    """
    stream.seek(0)
    prefix = stream.read(_PREFIX)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < _PREFIX:
        raise _truncated(name, size, _PREFIX, " or more")
    if length > MAX_HEADER:
        raise ArtifactError(
            f"{name} is not a safetensors file: claims a header of {length:,} bytes; {MAX_HEADER:,} are allowed",
            hint=AGAIN,
        )
    if _PREFIX + length > size:
        raise _truncated(name, size, _PREFIX + length, " or more")
    described = parse_object(stream.read(length), f"{name}: its header", once=True)
    described.pop("__metadata__", None)
    tensors = [_tensor(key, value, name) for key, value in described.items()]
    tensors.sort(key=lambda one: (one.begin, one.end))
    _check_extents(tensors, _PREFIX + length, size, name)
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype] += tensor.elements
    return SafetensorsHeader(
        tensors=frozenset(described),
        elements=dict(elements),
        data_end=size,
        sizes=sizes((tensor.name, tensor.end - tensor.begin) for tensor in tensors),
    )


def _truncated(name: str, size: int, promised: int, more: str = "") -> ArtifactError:
    return ArtifactError(f"{name} is truncated: has {size:,} bytes, header promises {promised:,}{more}", hint=AGAIN)


def _tensor(key: str, value: object, name: str) -> _Tensor:
    where = f"{name}: tensor {key[:80]!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ArtifactError(f"{where} needs exactly dtype, shape and data_offsets", hint=AGAIN)
    dtype = value["dtype"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ArtifactError(f"{where} has the unknown dtype {str(dtype)[:40]!r}", hint=AGAIN)
    shape = _naturals(value, "shape", where)
    offsets = _naturals(value, "data_offsets", where)
    elements = math.prod(shape)
    if len(offsets) != 2 or 8 * (offsets[1] - offsets[0]) != elements * _BITS[dtype]:
        raise ArtifactError(
            f"{where}: {elements:,} elements of {dtype} do not fill its data_offsets {list(offsets)}", hint=AGAIN
        )
    return _Tensor(key, dtype, elements, offsets[0], offsets[1])


def _naturals(value: Object, key: str, where: str) -> tuple[int, ...]:
    found = value[key]
    # Both bounds stand before any multiplication: thousands of long numbers would take hours to multiply.
    if not isinstance(found, list) or len(found) > _MAX_DIMENSIONS:
        raise ArtifactError(f"{where}: {key} is not a list of up to {_MAX_DIMENSIONS} numbers", hint=AGAIN)
    numbers = tuple(one for one in found if type(one) is int and 0 <= one < 2**63)
    if len(numbers) != len(found):
        raise ArtifactError(f"{where}: {key} holds something else than numbers from 0 to 2^63 - 1", hint=AGAIN)
    return numbers


def _check_extents(tensors: list[_Tensor], data_begin: int, size: int, name: str) -> None:
    at = 0
    for tensor in tensors:
        if tensor.begin != at:
            what = "overlaps the one before" if tensor.begin < at else "leaves a gap before it"
            raise ArtifactError(
                f"{name}: tensor {tensor.name[:80]!r} {what}: begins at {tensor.begin:,}, expected {at:,}", hint=AGAIN
            )
        at = tensor.end
    if data_begin + at > size:
        raise _truncated(name, size, data_begin + at)
    if data_begin + at < size:
        raise ArtifactError(f"{name} is too long: has {size:,} bytes, header promises {data_begin + at:,}", hint=AGAIN)
