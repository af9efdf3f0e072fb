"""GGUF weights from one file or from all the shards of a split one."""

import os
import re
from collections import Counter
from pathlib import Path

from appliance.domain.weights import WeightFile, Weights
from appliance.errors import ArtifactError
from appliance.weights.blocks import cache, feed_forward, kept_layers
from appliance.weights.files import AGAIN, listed, open_regular, weight_file
from appliance.weights.ggml import FILE_TYPES, GUESSED
from appliance.weights.gguf import GgufHeader, parse
from appliance.weights.tensors import together

_SHARD = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL)
_NOT_MODELS = {
    "adapter": "a LoRA adapter",
    "mmproj": "a vision or audio projector",
    "imatrix": "an importance matrix",
    "vocab": "a vocabulary",
}


def gguf_weights(path: Path) -> Weights:
    """Check the weights that `path`, a GGUF file or any shard of a split one, belongs to.

    Raises ArtifactError.
    """
    file, header = _read(path)
    match = _SHARD.fullmatch(path.name)
    count = header.number("split.count")
    if match is None or not 1 <= int(match[2]) <= int(match[3]):
        if count > 1:
            raise _unnamed(path, header, count)
        return _weights(path, (file,), (header,))
    if count != int(match[3]) and max(count, int(match[3])) > 1:
        raise ArtifactError(
            f"{path}: its name says {int(match[3])} shards, its header {count}", hint=f"Rename it back, or: {AGAIN}"
        )
    paths = _siblings(path, match[1], int(match[3]))
    shards = [(file, header) if one == path else _read(one) for one in paths]
    headers = tuple(header for _, header in shards)
    _check_split(paths, headers)
    return _weights(paths[0], tuple(file for file, _ in shards), headers)


def _read(path: Path) -> tuple[WeightFile, GgufHeader]:
    with open_regular(path) as (stream, size):
        return weight_file(path, size), parse(stream, size, str(path))


def _unnamed(path: Path, header: GgufHeader, count: int) -> ArtifactError:
    number = header.number("split.no") + 1
    return ArtifactError(
        f"{path} is shard {number} of {count}, but engines find the others by name, and its name does not fit",
        hint=f"Put all {count} shards into one directory, this one as NAME-{number:05}-of-{count:05}.gguf.",
    )


def _siblings(path: Path, stem: str, count: int) -> tuple[Path, ...]:
    names = [f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    missing = [name for name in names if not os.path.lexists(path.parent / name)]
    if missing:
        raise ArtifactError(
            f"{path}: {len(missing)} of {count} shards missing in {path.parent}: {listed(missing)}",
            hint="Download the missing shards into the same directory, then run the same command.",
        )
    return tuple(path.parent / name for name in names)


def _check_split(paths: tuple[Path, ...], headers: tuple[GgufHeader, ...]) -> None:
    for index, (path, header) in enumerate(zip(paths, headers, strict=True)):
        number, count = header.number("split.no"), max(1, header.number("split.count"))
        if (number, count) != (index, len(paths)):
            raise ArtifactError(
                f"{path} should be shard {index + 1} of {len(paths)}; its header says {number + 1} of {count}",
                hint=AGAIN,
            )
    promised = headers[0].number("split.tensors.count")
    found = sum(header.tensors for header in headers)
    if promised and promised != found:
        raise ArtifactError(
            f"{paths[0]}: the {len(paths)} shards hold {found:,} tensors, the first promises {promised:,}", hint=AGAIN
        )


def _weights(path: Path, files: tuple[WeightFile, ...], headers: tuple[GgufHeader, ...]) -> Weights:
    first = headers[0]
    _check_model(path, headers)
    architecture = first.text("general.architecture")
    layers = first.number(f"{architecture}.block_count")
    sizes = together(header.sizes for header in headers)
    return Weights(
        format="gguf",
        architecture=architecture,
        files=files,
        context_length=first.number(f"{architecture}.context_length"),
        layers=layers,
        kv_heads=_kv_heads(first, architecture, layers),
        head_dim=_head_dim(first, architecture),
        parameters=sum(header.parameters for header in headers),
        quantisation=_quantisation(headers),
        chat_template=first.chat_template,
        heads=first.number(f"{architecture}.attention.head_count"),
        hidden=first.number(f"{architecture}.embedding_length"),
        feed_forward=feed_forward(first, architecture),
        vocabulary=first.tokens or first.number(f"{architecture}.vocab_size"),
        experts=first.number(f"{architecture}.expert_count"),
        cache=cache(first, architecture),
        embedding=sizes.embedding,
        output=sizes.output,
        layer=sizes.largest(kept_layers(first, architecture)),
        draft=sizes.drafts(kept_layers(first, architecture)),
    )


def _check_model(path: Path, headers: tuple[GgufHeader, ...]) -> None:
    kind = headers[0].text("general.type")
    architecture = headers[0].text("general.architecture")
    other = _NOT_MODELS.get("mmproj" if architecture == "clip" else kind)
    hint = "Give the model's own GGUF file."
    if other:
        raise ArtifactError(f"{path} is {other}, not a whole model", hint=hint)
    if not architecture:
        raise ArtifactError(f"{path}: its header has no general.architecture, so no engine can load it", hint=hint)
    if not any(header.tensors for header in headers):
        raise ArtifactError(f"{path} holds no tensors: {_NOT_MODELS['vocab']}, not a whole model", hint=hint)


def _kv_heads(header: GgufHeader, architecture: str, layers: int) -> int:
    """Key and value heads of one layer; the mean, rounded up, where layers differ, so that the cache's size holds."""
    heads = header.numbers(f"{architecture}.attention.head_count_kv")
    heads = heads or header.numbers(f"{architecture}.attention.head_count")
    if len(heads) <= 1:
        return sum(heads)
    return -(-sum(heads) // max(layers, 1))


def _head_dim(header: GgufHeader, architecture: str) -> int:
    heads = header.number(f"{architecture}.attention.head_count")
    given = header.number(f"{architecture}.attention.key_length")
    return given or (header.number(f"{architecture}.embedding_length") // heads if heads else 0)


def _quantisation(headers: tuple[GgufHeader, ...]) -> str:
    """Name the file type, or the type of most weights where the header names none that is known."""
    number = headers[0].metadata.get("general.file_type")
    if isinstance(number, int) and number & ~GUESSED in FILE_TYPES:
        return FILE_TYPES[number & ~GUESSED]
    elements: Counter[str] = Counter()
    for header in headers:
        elements.update(header.elements)
    return elements.most_common(1)[0][0]
