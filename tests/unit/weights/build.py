"""Writes small GGUF and safetensors bytes, right by default and wrong where a test asks for it."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

U16, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 2, 4, 5, 6, 7, 8, 9, 10
FORMATS = {0: "B", 1: "b", U16: "H", 3: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q"}

Pair = tuple[str, int, object]
Tensor = tuple[str, Sequence[int], int, int]
"""Name, dimensions, type, offset."""

MODEL: tuple[Pair, ...] = (
    ("general.architecture", STRING, "qwen3"),
    ("general.file_type", U32, 1),
    ("qwen3.context_length", U32, 4096),
    ("qwen3.block_count", U32, 2),
    ("qwen3.embedding_length", U32, 64),
    ("qwen3.attention.head_count", U32, 4),
    ("qwen3.attention.head_count_kv", U32, 2),
    ("qwen3.attention.key_length", U32, 16),
    ("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "b", "ab"])),
    ("tokenizer.ggml.scores", ARRAY, (F32, [0.0, 1.0, 2.0])),
    ("tokenizer.chat_template", STRING, "{{ messages }}"),
)
TENSORS: tuple[Tensor, ...] = (
    ("token_embd.weight", (64, 8), 1, 0),
    ("blk.0.attn_norm.weight", (64,), 0, 1024),
    ("output.weight", (256, 2), 12, 1280),
)
DATA = 1280 + 288
"""Bytes that TENSORS need: 512 F16, 64 F32, two blocks of Q4_K."""


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, content: object) -> bytes:
    if isinstance(content, bytes):
        return content
    if kind == STRING:
        assert isinstance(content, str)
        return text(content)
    if kind == ARRAY:
        assert isinstance(content, tuple)
        inner, items = content
        return struct.pack("<IQ", inner, len(items)) + b"".join(value(inner, item) for item in items)
    return struct.pack("<" + FORMATS[kind], content)


def pair(key: str, kind: int, content: object) -> bytes:
    """A metadata pair; `content` given as bytes stands as it is."""
    return text(key) + struct.pack("<I", kind) + value(kind, content)


def tensor(name: str, dimensions: Sequence[int], kind: int, offset: int) -> bytes:
    shape = struct.pack(f"<{len(dimensions)}Q", *dimensions)
    return text(name) + struct.pack("<I", len(dimensions)) + shape + struct.pack("<IQ", kind, offset)


def gguf(
    pairs: Sequence[Pair] = MODEL,
    tensors: Sequence[Tensor] = TENSORS,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data: int = DATA,
    alignment: int = 32,
) -> bytes:
    """A GGUF file; `counts` overrides what the header claims of tensors and pairs."""
    claimed = counts or (len(tensors), len(pairs))
    header = b"GGUF" + struct.pack("<IQQ", version, *claimed)
    header += b"".join(pair(*one) for one in pairs) + b"".join(tensor(*one) for one in tensors)
    return header + bytes(-len(header) % alignment) + bytes(data)


def changed(**values: Pair) -> tuple[Pair, ...]:
    """MODEL with pairs replaced; the argument's name is the old key's last word."""
    return tuple(values.get(one[0].rpartition(".")[2], one) for one in MODEL)


def shards(directory: Path, count: int = 3, stem: str = "tiny") -> list[Path]:
    """A split model: the first shard has the metadata, each has one tensor."""
    paths = []
    for number in range(count):
        split: tuple[Pair, ...] = (
            ("split.no", U16, number),
            ("split.count", U16, count),
            ("split.tensors.count", I32, count),
        )
        path = directory / f"{stem}-{number + 1:05}-of-{count:05}.gguf"
        one: Tensor = (f"blk.{number}.weight", (64,), 0, 0)
        path.write_bytes(gguf((*MODEL, *split) if number == 0 else split, (one,), data=256))
        paths.append(path)
    return paths


def entry(shape: Sequence[int], begin: int, end: int, dtype: str = "BF16") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


LAYERS = {"a.weight": entry((4, 8), 0, 64), "b.weight": entry((16,), 64, 96)}


def safetensors(header: Mapping[str, object] | bytes = LAYERS, data: int = 96, *, length: int | None = None) -> bytes:
    """A safetensors file; `length` overrides what it claims of its header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(data)


CONFIG: dict[str, object] = {
    "architectures": ["Qwen3ForCausalLM"],
    "max_position_embeddings": 2048,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 64,
    "head_dim": 32,
    "torch_dtype": "bfloat16",
}


def directory(path: Path, *, count: int = 1, config: Mapping[str, object] = CONFIG) -> Path:
    """A safetensors directory as a hub lays it out, of `count` shards."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (path / "README.md").write_text("# tiny")
    (path / ".gitattributes").write_text("*.safetensors filter=lfs")
    if count == 1:
        (path / "model.safetensors").write_bytes(safetensors())
        return path
    places = {}
    for number in range(1, count + 1):
        name = f"model-{number:05}-of-{count:05}.safetensors"
        (path / name).write_bytes(safetensors({f"layer.{number}": entry((8,), 0, 16)}, 16))
        places[f"layer.{number}"] = name
    index = {"metadata": {"total_size": 16 * count}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path
