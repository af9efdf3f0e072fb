"""Keep of a model file what a planner reads: its header, packed; and make a file of the full length from it again.

A restored file has holes in place of the tensors (it takes no disk space), so that a reader that checks lengths is content.
"""

import gzip
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from tests.bench.memory.truth import MODELS

WIDTHS: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of each scalar type of GGUF; 8 is a string, 9 an array."""
DROPPED: Final = (
    "tokenizer.ggml.merges",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.scores",
    "tokenizer.chat_template",
)
EMPTIED: Final = "tokenizer.ggml.tokens"
"""Only the number of its strings matters."""
ALIGNMENT: Final = 32


def _number(stream: BinaryIO, form: str) -> int:
    return int(struct.unpack(f"<{form}", stream.read(struct.calcsize(f"<{form}")))[0])


def _string(stream: BinaryIO) -> bytes:
    return stream.read(_number(stream, "Q"))


def _value(stream: BinaryIO, kind: int) -> bytes:
    """Return a value's bytes as they stand in the file."""
    begin = stream.tell()
    if kind == 8:
        _string(stream)
    elif kind == 9:
        inner, count = _number(stream, "I"), _number(stream, "Q")
        if inner in WIDTHS:
            stream.seek(WIDTHS[inner] * count, 1)
        else:
            for _ in range(count):
                _value(stream, inner)
    else:
        stream.seek(WIDTHS[kind], 1)
    end = stream.tell()
    stream.seek(begin)
    return stream.read(end - begin)


def _pairs(stream: BinaryIO, count: int) -> Iterator[tuple[bytes, int, bytes]]:
    """Walk the metadata, without what only a tokenizer needs."""
    for _ in range(count):
        key, kind = _string(stream), _number(stream, "I")
        value = _value(stream, kind)
        if key.decode() == EMPTIED:
            inner, entries = struct.unpack("<IQ", value[:12])
            yield key, kind, struct.pack("<IQ", inner, entries) + bytes(8 * entries)
        elif key.decode() not in DROPPED:
            yield key, kind, value


def gguf_header(path: Path) -> tuple[bytes, int]:
    """Return a GGUF file's header with a thinned tokenizer, padded to the data's beginning, and the data's length in bytes."""
    with path.open("rb") as stream:
        fixed = stream.read(8)
        tensors, pairs = _number(stream, "Q"), _number(stream, "Q")
        kept = list(_pairs(stream, pairs))
        begin = stream.tell()
        for _ in range(tensors):
            _string(stream)
            stream.seek(8 * _number(stream, "I") + 12, 1)
        end = stream.tell()
        stream.seek(begin)
        infos = stream.read(end - begin)
    meta = b"".join(struct.pack("<Q", len(k)) + k + struct.pack("<I", kind) + value for k, kind, value in kept)
    header = fixed + struct.pack("<QQ", tensors, len(kept)) + meta + infos
    data = path.stat().st_size - -(-end // ALIGNMENT) * ALIGNMENT
    return header + bytes(-len(header) % ALIGNMENT), data


def safetensors_header(path: Path) -> tuple[bytes, int]:
    """Return a safetensors file's header and the data's length in bytes."""
    with path.open("rb") as stream:
        length = stream.read(8)
        header = length + stream.read(int.from_bytes(length, "little"))
    return header, path.stat().st_size - len(header)


def keep(name: str, source: Path, gguf: Path | None) -> None:
    """Write models/NAME/: config.json as it is, each header packed, sizes.json with the data's length in bytes."""
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(source / "config.json", folder / "config.json")
    found = {"model.safetensors": safetensors_header(source / "model.safetensors")}
    if gguf:
        found["model.gguf"] = gguf_header(gguf)
    for file, (header, _) in found.items():
        (folder / f"{file}.header.gz").write_bytes(gzip.compress(header, mtime=0))
    (folder / "sizes.json").write_text(json.dumps({file: data for file, (_, data) in found.items()}) + "\n")


def restore(name: str, into: Path) -> Path:
    """Make INTO/NAME with config.json, model.safetensors and model.gguf in full length, without data; returns that folder."""
    folder = into / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(MODELS / name / "config.json", folder / "config.json")
    sizes: dict[str, Any] = json.loads((MODELS / name / "sizes.json").read_text())
    for file, data in sizes.items():
        header = gzip.decompress((MODELS / name / f"{file}.header.gz").read_bytes())
        with (folder / file).open("wb") as stream:
            stream.write(header)
            stream.truncate(len(header) + data)
    return folder
