"""GGUF headers: what is read, and each way of being wrong in the words that a person gets."""

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import ArtifactError
from appliance.weights.gguf import GgufHeader, parse
from tests.unit.weights.build import (
    ARRAY,
    BOOL,
    DATA,
    F32,
    I32,
    MODEL,
    STRING,
    TENSORS,
    U32,
    U64,
    changed,
    gguf,
    pair,
)


def read(data: bytes) -> GgufHeader:
    return parse(io.BytesIO(data), len(data), "m.gguf")


def test_a_valid_header() -> None:
    header = read(gguf())
    assert (header.version, header.tensors, header.parameters) == (3, 3, 512 + 64 + 512)
    assert header.elements == {"F16": 512, "F32": 64, "Q4_K": 512}
    assert header.data_end == len(gguf())
    assert header.chat_template
    assert header.text("general.architecture") == "qwen3"
    assert header.number("qwen3.context_length") == 4096
    assert header.number("qwen3.absent") == 0
    assert "tokenizer.ggml.tokens" not in header.metadata


def test_version_2_reads_alike() -> None:
    assert read(gguf(version=2)).metadata == read(gguf()).metadata


def test_heads_per_layer() -> None:
    pairs = changed(head_count_kv=("qwen3.attention.head_count_kv", ARRAY, (I32, [2, 0, 4])))
    header = read(gguf(pairs))
    assert header.numbers("qwen3.attention.head_count_kv") == (2, 0, 4)
    assert header.number("qwen3.attention.head_count_kv") == 4


def test_an_unknown_tensor_type_is_let_through() -> None:
    header = read(gguf(tensors=(("x", (64, 2), 99, 0),), data=10))
    assert header.elements == {"type 99": 128}


def test_an_unknown_tensor_type_still_has_to_begin_inside() -> None:
    with pytest.raises(ArtifactError, match="truncated"):
        read(gguf(tensors=(("x", (64, 2), 99, 320),), data=10))


def test_another_alignment() -> None:
    pairs = (*MODEL, ("general.alignment", U32, 256))
    assert read(gguf(pairs, (("x", (64,), 0, 256),), data=512, alignment=256)).tensors == 1


def test_trailing_bytes_are_no_error() -> None:
    assert read(gguf(data=DATA + 31)).data_end == len(gguf())


def test_a_vocabulary_of_150_000_strings_is_skipped_unread() -> None:
    words = [f"token{number}" for number in range(150_000)]
    pairs = (*MODEL[:-3], ("tokenizer.ggml.tokens", ARRAY, (STRING, words)), *MODEL[-2:])
    header = read(gguf(pairs))
    assert header.tensors == 3
    assert header.chat_template


def test_a_long_string_spanning_many_chunks_is_skipped() -> None:
    pairs = (("tokenizer.chat_template", STRING, "x" * (3 << 20)), *MODEL[:-1])
    assert read(gguf(pairs)).number("qwen3.block_count") == 2


HEAD = b"GGUF" + struct.pack("<I", 3)
BAD = {
    "empty": (b"", "truncated: has 0 bytes"),
    "magic": (b"GGML" + bytes(40), "not a GGUF file: begins with b'GGML'"),
    "version 1": (gguf(version=1), "GGUF version 1"),
    "version 4": (gguf(version=4), "GGUF version 4 is unknown"),
    "version 0": (gguf(version=0), "GGUF version 0 is unknown"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 3, 3), "big-endian"),
    "tensors": (gguf(counts=(1 << 60, 1)), "claims 1,152,921,504,606,846,976 tensors; 131,072 are allowed"),
    "pairs": (gguf(counts=(1, 1 << 60)), "metadata pairs; 65,536 are allowed"),
    "pairs past the end": (gguf((), (), counts=(0, 60_000), data=0), "truncated: has 32 bytes"),
    "key length": (HEAD + struct.pack("<QQQ", 0, 1, 1 << 62) + bytes(64), "claims 4,611,686,018,427,387,904 bytes"),
    "string length": (
        gguf((("general.name", STRING, struct.pack("<Q", 1 << 63)),)),
        "header alone promises 9,223,372,036,854,775",
    ),
    "array length": (
        gguf((("x", ARRAY, struct.pack("<IQ", U32, 1 << 62)),)),
        "header alone promises 18,446,744,073,709,551",
    ),
    "string array length": (gguf((("x", ARRAY, struct.pack("<IQ", STRING, 1 << 40)),)), "promises 8,796,093,022"),
    "string in an array": (
        gguf((("x", ARRAY, struct.pack("<IQQ", STRING, 2, 1 << 50)),)),
        "truncated: has",
    ),
    "nested array": (gguf((("x", ARRAY, struct.pack("<IQ", ARRAY, 1)),)), "'x' is an array of arrays"),
    "array type": (gguf((("x", ARRAY, struct.pack("<IQ", 77, 1)),)), "array of the unknown value type 77"),
    "value type": (gguf((("x", 13, b"\0"),)), "'x' has the unknown value type 13"),
    "twice": (gguf((*MODEL, MODEL[0])), "'general.architecture' is there twice"),
    "key not UTF-8": (gguf((), counts=(0, 1))[:24] + struct.pack("<Q", 2) + b"\xff\xff", "not valid UTF-8"),
    "architecture type": (gguf(changed(architecture=("general.architecture", U32, 1))), "has the wrong type: u32"),
    "architecture name": (gguf(changed(architecture=("general.architecture", STRING, "a\nb"))), r"is 'a\nb', which"),
    "count type": (gguf(changed(block_count=("qwen3.block_count", F32, 2.0))), "has the wrong type: f32"),
    "bool as number": (gguf(changed(block_count=("qwen3.block_count", BOOL, True))), "has the wrong type: bool"),
    "negative": (gguf(changed(block_count=("qwen3.block_count", I32, -1))), "is -1, which is out of range"),
    "huge": (gguf(changed(block_count=("qwen3.block_count", U64, 1 << 40))), "out of range"),
    "heads array type": (
        gguf(changed(head_count_kv=("qwen3.attention.head_count_kv", ARRAY, (STRING, ["a"])))),
        "has the wrong type: array of string",
    ),
    "heads array length": (
        gguf(changed(head_count_kv=("qwen3.attention.head_count_kv", ARRAY, struct.pack("<IQ", U32, 5000)))),
        "claims 5,000 numbers; 4,096 are allowed",
    ),
    "many kept": (
        gguf(tuple((f"a{number}.block_count", U32, 1) for number in range(129))),
        "claims 129 pairs that describe the model; 128 are allowed",
    ),
    "alignment": (gguf((*MODEL, ("general.alignment", U32, 48))), "general.alignment is 48; a power of two"),
    "alignment 0": (gguf((*MODEL, ("general.alignment", U32, 0))), "general.alignment is 0"),
    "dimensions": (gguf(tensors=(("x", (1,) * 5, 0, 0),)), "claims 5 dimensions; 4 are allowed"),
    "elements": (gguf(tensors=(("x", (1 << 40, 1 << 40), 0, 0),)), "more than 64 bits count"),
    "elements times zero": (gguf(tensors=(("x", (1 << 63, 0), 0, 0),)), "more than 64 bits count"),
    "rows": (gguf(tensors=(("x", (100, 2), 12, 0),)), "rows of 100, but Q4_K packs 256 at a time"),
    "tensor twice": (gguf(tensors=(TENSORS[0], TENSORS[0])), "tensor 'token_embd.weight' is there twice"),
    "misaligned": (gguf(tensors=(("x", (64,), 0, 8),)), "begins at byte 8, no multiple of 32"),
    "overlap": (gguf(tensors=(("x", (64,), 0, 0), ("y", (64,), 0, 128))), "'x' and 'y' lie on the same bytes"),
    "offset past the end": (gguf(tensors=(("x", (64,), 0, 1 << 62),)), "header promises 4,611,686,018,427,388"),
    "size past the end": (gguf(tensors=(("x", (1 << 40,), 0, 0),)), r"end of tensor 'x'"),
    "tensor name": (gguf(tensors=(("x" * 300, (64,), 0, 0),)), "a tensor name at byte"),
}


@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=BAD.keys())
def test_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        read(data)
    assert words in caught.value.message
    assert "m.gguf" in caught.value.message
    assert caught.value.hint


def test_one_byte_short_says_both_numbers() -> None:
    data = gguf()[:-1]
    with pytest.raises(ArtifactError) as caught:
        read(data)
    assert f"has {len(data):,} bytes, header promises {len(data) + 1:,}" in caught.value.message


def test_a_file_that_shrinks_while_it_is_read() -> None:
    data = gguf()
    with pytest.raises(ArtifactError, match="became shorter"):
        parse(io.BytesIO(data[:100]), len(data))


def test_too_many_strings() -> None:
    # Read through a stream that repeats zeros, so that the test needs no memory for what the header claims.
    class Zeros(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            self.at = offset
            return offset

        def read(self, count: int | None = -1) -> bytes:
            start = gguf((("x", ARRAY, struct.pack("<IQ", STRING, 9_000_000)),), (), counts=(0, 1), data=0)
            return start.ljust(1 << 20, b"\0")[: count or 0] if self.at == 0 else bytes(count or 0)

    with pytest.raises(ArtifactError, match="more than 8,000,000 strings"):
        parse(Zeros(), 1 << 40)


def test_a_header_beyond_its_cap() -> None:
    data = gguf((("x", STRING, struct.pack("<Q", 300 << 20)),))
    with pytest.raises(ArtifactError, match=r"goes on past byte 314,.* 268,435,456 bytes are allowed"):
        parse(io.BytesIO(data), 1 << 40)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_changed_bytes_never_raise_anything_else(data: st.DataObject) -> None:
    raw = bytearray(gguf())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - DATA - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(raw))
    except ArtifactError as error:
        assert error.message.isprintable()


@given(st.integers(0, len(gguf()) - 1))
@settings(max_examples=300, deadline=None)
def test_a_truncated_file_is_always_refused(length: int) -> None:
    with pytest.raises(ArtifactError, match="truncated"):
        read(gguf()[:length])


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_noise_after_the_magic(noise: bytes) -> None:
    try:
        read(HEAD + struct.pack("<QQ", 2, 3) + noise)
    except ArtifactError as error:
        assert error.message.isprintable()


def test_the_writer_of_these_tests_agrees_with_the_format() -> None:
    # By hand, from the format's description: a length of 8 bytes, the key, the type, the value.
    assert pair("a", U32, 7) == b"\1\0\0\0\0\0\0\0a\4\0\0\0\7\0\0\0"
