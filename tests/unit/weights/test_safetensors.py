"""safetensors headers: what is read, and each way of being wrong in the words that a person gets."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import ArtifactError
from appliance.weights.safetensors import SafetensorsHeader, parse
from tests.unit.weights.build import LAYERS, entry, safetensors


def read(data: bytes) -> SafetensorsHeader:
    return parse(io.BytesIO(data), len(data), "m.safetensors")


def test_a_valid_header() -> None:
    header = read(safetensors({"__metadata__": {"format": "pt"}, **LAYERS}))
    assert header.tensors == {"a.weight", "b.weight"}
    assert header.elements == {"BF16": 48}


def test_half_byte_elements_and_empty_tensors() -> None:
    header = read(safetensors({"a": entry((6,), 0, 3, "F4"), "b": entry((0, 4), 3, 3), "c": entry((), 3, 5)}, 5))
    assert header.elements == {"F4": 6, "BF16": 1}


BAD = {
    "empty": (b"", "truncated: has 0 bytes, header promises 8 or more"),
    "too long a header": (safetensors(length=1 << 40), "claims a header of 1,099,511,627,776 bytes; 100,000,000 are"),
    "header past the end": (safetensors(length=5000), "header promises 5,008 or more"),
    "no JSON": (safetensors(b"{nonsense}"), "its header is not valid JSON"),
    "no UTF-8": (safetensors(b'{"\xff": 1}'), "byte 2 is not UTF-8"),
    "no object": (safetensors(b"[]"), "not a JSON object"),
    "too deep": (safetensors(b'{"a":' + b"[" * 100_000), "nested too deeply"),
    "long number": (safetensors(b'{"a":' + b"9" * 10_000 + b"}"), "not valid JSON: a number is out of range"),
    "twice": (safetensors(b'{"a": {}, "a": {}}'), "key 'a' is there twice"),
    "no tensor": (safetensors({"a": 1}), "tensor 'a' needs exactly dtype, shape and data_offsets"),
    "dtype": (safetensors({"a": entry((1,), 0, 2, "X7")}), "has the unknown dtype 'X7'"),
    "dtype no text": (safetensors({"a": {**entry((1,), 0, 2), "dtype": [1]}}), "has the unknown dtype"),
    "shape": (safetensors({"a": entry((-1,), 0, 2)}), "holds something else than numbers"),
    "shape bool": (safetensors(b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}'), "something else than"),
    "shape float": (safetensors(b'{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}'), "something else than"),
    "dimensions": (safetensors({"a": entry((1,) * 17, 0, 2)}), "not a list of up to 16 numbers"),
    "offsets": (safetensors(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}'), "do not fill its data_offsets"),
    "backwards": (safetensors({"a": entry((1,), 4, 2)}), "do not fill its data_offsets [4, 2]"),
    "wrong size": (safetensors({"a": entry((3,), 0, 2)}), "3 elements of BF16 do not fill its data_offsets [0, 2]"),
    "gap": (safetensors({"a": entry((1,), 2, 4)}, 4), "'a' leaves a gap before it: begins at 2, expected 0"),
    "overlap": (safetensors({"a": entry((2,), 0, 4), "b": entry((2,), 2, 6)}, 6), "'b' overlaps the one before"),
    "too long": (safetensors(data=97), "is too long: has"),
}


@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=BAD.keys())
def test_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        read(data)
    assert words in caught.value.message
    assert "m.safetensors" in caught.value.message
    assert caught.value.hint


def test_one_byte_short_says_both_numbers() -> None:
    data = safetensors()[:-1]
    with pytest.raises(ArtifactError) as caught:
        read(data)
    assert caught.value.message == (
        f"m.safetensors is truncated: has {len(data):,} bytes, header promises {len(data) + 1:,}"
    )


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_changed_bytes_never_raise_anything_else(data: st.DataObject) -> None:
    raw = bytearray(safetensors())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 97))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(raw))
    except ArtifactError as error:
        assert error.message.isprintable()


@given(st.integers(0, len(safetensors()) - 1))
@settings(max_examples=200, deadline=None)
def test_a_truncated_file_is_always_refused(length: int) -> None:
    with pytest.raises(ArtifactError, match="truncated"):
        read(safetensors()[:length])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.text(max_size=5),
        JSON | st.fixed_dictionaries({"dtype": JSON | st.just("F16"), "shape": JSON, "data_offsets": JSON}),
        max_size=4,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_json_is_read_or_refused(header: dict[str, object]) -> None:
    try:
        read(safetensors(json.dumps(header).encode()))
    except ArtifactError as error:
        assert error.message.isprintable()
