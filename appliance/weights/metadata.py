"""Key-value pairs of a GGUF header: the few that checking and sizing need are kept, the rest is passed over."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from appliance.weights.cursor import Cursor
from appliance.weights.ggml import ARRAY, BOOL, INTEGERS, SCALARS, STRING, VALUE_NAMES

MAX_PAIRS = 65_536
MAX_NAME = 256
"""Bytes of a key or tensor name; ggml itself stops at 64 for tensors."""
_MAX_LAYERS = 4096
_MAX_KEPT = 128
"""Kept values in one header; one architecture has about 30."""
_TEMPLATE = "tokenizer.chat_template"
_TOKENS = "tokenizer.ggml.tokens"
_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}")

_STRINGS = frozenset({"general.architecture", "general.type"})
_NUMBERS = frozenset({"general.alignment", "general.file_type", "split.no", "split.count", "split.tensors.count"})
# By ending, because the architecture's name is in front and may come later in the file.
_ENDINGS = (
    ".context_length",
    ".block_count",
    ".embedding_length",
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.key_length",
)
_WISHED = (
    ".attention.value_length",
    ".attention.indexer.key_length",
    ".attention.key_length_mla",
    ".attention.value_length_mla",
    ".attention.key_length_swa",
    ".attention.value_length_swa",
    ".attention.sliding_window",
    ".attention.sliding_window_pattern",
    ".attention.recurrent_layers",
    ".attention.shared_kv_layers",
    ".attention.compress_ratios",
    ".full_attention_interval",
    ".nextn_predict_layers",
    ".ssm.conv_kernel",
    ".ssm.inner_size",
    ".ssm.state_size",
    ".ssm.group_count",
    ".wkv.head_size",
    ".token_shift_count",
    ".shortconv.l_cache",
    ".kda.head_dim",
    ".feed_forward_length",
    ".expert_feed_forward_length",
    ".expert_shared_feed_forward_length",
    ".expert_count",
    ".expert_used_count",
    ".expert_shared_count",
    ".vocab_size",
)
"""For sizing only: a value of another type, or out of range, counts as absent."""

Value = int | str | tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What is kept of the pairs."""

    values: Mapping[str, Value]
    """An array is one number per layer; true and false count as 1 and 0."""
    chat_template: bool
    tokens: int
    """Entries of the vocabulary."""


def read_metadata(cursor: Cursor, count: int) -> Metadata:
    """Read `count` pairs; the caller bounds `count`. Raises ArtifactError."""
    kept: dict[str, Value] = {}
    seen: set[str] = set()
    chat_template, tokens = False, 0
    for _ in range(count):
        key = cursor.text(MAX_NAME, "a metadata key")
        if key in seen:
            raise cursor.error(f"metadata key {key!r} is there twice")
        seen.add(key)
        kind = cursor.u32()
        if key == _TEMPLATE and kind == STRING:
            chat_template = cursor.skip_string() > 0
        elif key == _TOKENS and kind == ARRAY:
            tokens = _skip_array(cursor, key)
        elif (value := _value(cursor, key, kind)) is not None:
            kept[key] = value
            bound(cursor, len(kept), _MAX_KEPT, "pairs that describe the model")
    return Metadata(values=kept, chat_template=chat_template, tokens=tokens)


def _value(cursor: Cursor, key: str, kind: int) -> Value | None:
    """Read the value, or pass over it: then None."""
    if key in _STRINGS or key in _NUMBERS or key.endswith(_ENDINGS):
        return _keep(cursor, key, kind)
    if key.endswith(_WISHED):
        return _keep_if_fit(cursor, key, kind)
    _skip(cursor, key, kind)
    return None


def bound(cursor: Cursor, count: int, most: int, what: str) -> None:
    """Refuse a header that claims more than `most`. Raises ArtifactError."""
    if count > most:
        raise cursor.error(f"claims {count:,} {what}; {most:,} are allowed")


def _keep(cursor: Cursor, key: str, kind: int) -> Value:
    if key in _STRINGS and kind == STRING:
        word = cursor.text(MAX_NAME, key)
        if not _WORD.fullmatch(word):
            raise cursor.error(f"{key} is {word!r}, which is no name")
        return word
    if key not in _STRINGS and kind in INTEGERS:
        return _small(cursor, key, cursor.number(SCALARS[kind]))
    if key.endswith(_ENDINGS) and kind == ARRAY:
        return _keep_array(cursor, key)
    raise cursor.error(f"{key!r} has the wrong type: {_kind_name(kind)}")


def _keep_array(cursor: Cursor, key: str) -> tuple[int, ...]:
    kind, count = cursor.u32(), cursor.u64()
    if kind not in INTEGERS:
        raise cursor.error(f"{key!r} has the wrong type: array of {_kind_name(kind)}")
    if count > _MAX_LAYERS:
        raise cursor.error(f"{key!r} claims {count:,} numbers; {_MAX_LAYERS:,} are allowed")
    return tuple(_small(cursor, key, value) for value in cursor.numbers(SCALARS[kind], count))


def _keep_if_fit(cursor: Cursor, key: str, kind: int) -> Value | None:
    if kind in INTEGERS or kind == BOOL:
        return _natural(cursor.number(SCALARS[kind]))
    if kind != ARRAY:
        _skip(cursor, key, kind)
        return None
    inner, count = cursor.u32(), cursor.u64()
    if count > _MAX_LAYERS or (inner not in INTEGERS and inner != BOOL):
        _skip_elements(cursor, key, inner, count)
        return None
    numbers = [_natural(value) for value in cursor.numbers(SCALARS[inner], count)]
    return None if None in numbers else tuple(number or 0 for number in numbers)


def _natural(value: int) -> int | None:
    return int(value) if 0 <= value < 2**32 else None


def _small(cursor: Cursor, key: str, value: int) -> int:
    # What is kept goes into memory estimates; nothing real is above 32 bits.
    if not 0 <= value < 2**32:
        raise cursor.error(f"{key!r} is {value:,}, which is out of range")
    return value


def _skip(cursor: Cursor, key: str, kind: int) -> None:
    if kind in SCALARS:
        cursor.skip(SCALARS[kind].size)
    elif kind == STRING:
        cursor.skip_string()
    elif kind == ARRAY:
        _skip_array(cursor, key)
    else:
        raise cursor.error(f"metadata key {key!r} has the unknown value type {kind}")


def _skip_array(cursor: Cursor, key: str) -> int:
    kind, count = cursor.u32(), cursor.u64()
    _skip_elements(cursor, key, kind, count)
    return count


def _skip_elements(cursor: Cursor, key: str, kind: int, count: int) -> None:
    if kind in SCALARS:
        cursor.skip(SCALARS[kind].size * count)
    elif kind == STRING:
        cursor.skip_strings(count)
    elif kind == ARRAY:
        # The format allows them, ggml refuses them, and nobody writes them.
        raise cursor.error(f"metadata key {key!r} is an array of arrays")
    else:
        raise cursor.error(f"metadata key {key!r} is an array of the unknown value type {kind}")


def _kind_name(kind: int) -> str:
    return VALUE_NAMES[kind] if kind < len(VALUE_NAMES) else f"unknown value type {kind}"
