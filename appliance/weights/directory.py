"""Safetensors weights from a directory as the hubs lay it out."""

import re
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

from appliance.domain.weights import WeightFile, Weights
from appliance.errors import ArtifactError
from appliance.weights.config import Config, brings_code, has_chat_template, read_config
from appliance.weights.files import AGAIN, entries, listed, open_regular, read_head, weight_file
from appliance.weights.jsonfile import read_object
from appliance.weights.safetensors import SafetensorsHeader, parse
from appliance.weights.sniff import HEAD, foreign, is_lfs_pointer, is_safetensors, recognised
from appliance.weights.tensors import Sizes, together

_INDEX = "model.safetensors.index.json"
_MAX_INDEX = 64 << 20
"""Bytes; the index of a 670-billion-parameter model has 9 MB."""
_SHARD = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.safetensors", re.DOTALL)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_SIDE_ENDINGS = (".json", ".jinja")
_SIDE_NAMES = frozenset({"tokenizer.model", "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"})
_TORCH = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def safetensors_weights(directory: Path) -> Weights:
    """Check the weights in `directory` and list shards in order, then configuration, tokeniser and template files.

    Raises ArtifactError.
    """
    names = entries(directory)
    tensors = tuple(name for name in names if name.endswith(".safetensors") and not name.startswith("."))
    if not tensors and _INDEX not in names:
        raise _no_weights(directory, names)
    if "config.json" not in names:
        raise _no_config(directory, names)
    config = read_config(directory)
    placed = _read_index(directory) if _INDEX in names else {}
    shards = tuple(sorted(set(placed.values()))) if placed else _shards(directory, tensors)
    _refuse_missing(directory, shards, names)
    read = [_read_shard(directory / name) for name in shards]
    _check_index(directory, placed, {file.name: header for file, header in read})
    elements: Counter[str] = Counter()
    for _, header in read:
        elements.update(header.elements)
    most = elements.most_common(1)[0][0] if elements else ""
    weights = Weights(
        format="safetensors",
        architecture=config.architectures[0],
        files=(*(file for file, _ in read), *_side_files(directory, names)),
        context_length=config.context_length,
        layers=config.layers,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        parameters=sum(elements.values()),
        quantisation=config.dtype or _TORCH.get(most, most.lower()),
        chat_template=has_chat_template(directory, names),
        code=brings_code(directory, names),
    )
    return _sized(weights, config, together(header.sizes for _, header in read))


def _sized(weights: Weights, config: Config, sizes: Sizes) -> Weights:
    """Add what sizing needs."""
    return replace(
        weights,
        heads=config.heads,
        hidden=config.hidden,
        feed_forward=config.feed_forward,
        vocabulary=config.vocabulary,
        experts=config.experts,
        cache=config.cache,
        embedding=sizes.embedding,
        output=0 if config.tied else sizes.output,
        layer=sizes.largest(config.layers),
        draft=sizes.drafts(config.layers),
    )


def _no_weights(directory: Path, names: tuple[str, ...]) -> ArtifactError:
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        return ArtifactError(
            f"{directory} has weights as PyTorch pickles only ({listed(pickles)}): to load one runs the code inside it",
            hint="Give a safetensors or GGUF release of this model.",
        )
    gguf = [name for name in names if name.endswith(".gguf") and name.isprintable()]
    if gguf:
        return ArtifactError(
            f"{directory} is a directory with {len(gguf)} GGUF file{'s' if gguf[1:] else ''}: one must be chosen",
            hint=f"Give the file itself: {shlex.quote(str(directory / gguf[0]))}",
        )
    return ArtifactError(
        f"{directory} is a directory without weights: no .gguf and no .safetensors among {len(names)} names",
        hint="Give a .gguf file, or a directory with config.json and .safetensors files.",
    )


def _no_config(directory: Path, names: tuple[str, ...]) -> ArtifactError:
    if "adapter_config.json" in names:
        return ArtifactError(
            f"{directory} is a LoRA adapter, not a whole model", hint="Give the base model's directory."
        )
    return ArtifactError(
        f"{directory} has .safetensors files but no config.json, so no engine knows what they are",
        hint="Download the whole repository of the model, then run the same command.",
    )


def _read_index(directory: Path) -> dict[str, str]:
    """Tensor -> shard."""
    path = directory / _INDEX
    found = read_object(path, _MAX_INDEX).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise ArtifactError(f"{path} has no weight_map", hint=AGAIN)
    placed: dict[str, str] = {}
    for tensor, shard in found.items():
        # The index is outside data: a name with a slash could point at any file of this machine.
        if not isinstance(shard, str) or "/" in shard or not shard.endswith(".safetensors") or not shard.isprintable():
            raise ArtifactError(
                f"{path} places {tensor[:80]!r} in {str(shard)[:80]!r}, which is no shard name", hint=AGAIN
            )
        placed[tensor] = shard
    return placed


def _shards(directory: Path, tensors: tuple[str, ...]) -> tuple[str, ...]:
    """Which files belong together where no index says it."""
    if "model.safetensors" in tensors:
        return ("model.safetensors",)
    matches = [match for match in map(_SHARD.fullmatch, tensors) if match]
    series = {(match[1], match[3]) for match in matches}
    if len(series) == 1 and len(matches) == len(tensors):
        stem, count = series.pop()
        return tuple(f"{stem}-{number:05}-of-{count}.safetensors" for number in range(1, int(count) + 1))
    if len(tensors) > 1:
        raise ArtifactError(
            f"{directory} has {len(tensors)} .safetensors files and no {_INDEX} that says which belong together",
            hint="Download the whole repository of the model, then run the same command.",
        )
    return tensors


def _refuse_missing(directory: Path, shards: tuple[str, ...], names: tuple[str, ...]) -> None:
    missing = sorted(set(shards) - set(names))
    if missing:
        raise ArtifactError(
            f"{directory}: {len(missing)} of {len(shards)} shards missing: {listed(missing)}",
            hint="Download the missing shards into the same directory, then run the same command.",
        )


def _read_shard(path: Path) -> tuple[WeightFile, SafetensorsHeader]:
    with open_regular(path) as (stream, size):
        head = stream.read(HEAD)
        other = None if is_safetensors(head) else recognised(path, head, size)
        if other:
            raise other
        return weight_file(path, size), parse(stream, size, str(path))


def _check_index(directory: Path, placed: dict[str, str], headers: dict[str, SafetensorsHeader]) -> None:
    for tensor, shard in placed.items():
        if tensor not in headers[shard].tensors:
            raise ArtifactError(
                f"{directory / shard} does not hold tensor {tensor[:80]!r}, which {_INDEX} places there", hint=AGAIN
            )


def is_side(name: str) -> bool:
    """Whether a file of that name belongs to a model beside its tensors: configuration, tokeniser, template."""
    return not name.startswith((".", "pytorch_model")) and (name.endswith(_SIDE_ENDINGS) or name in _SIDE_NAMES)


def _side_files(directory: Path, names: tuple[str, ...]) -> tuple[WeightFile, ...]:
    """List configuration, tokeniser and template files."""
    return tuple(_side_file(directory / name) for name in names if is_side(name) and not (directory / name).is_dir())


def _side_file(path: Path) -> WeightFile:
    head, size = read_head(path, HEAD)
    if not head or is_lfs_pointer(head):
        raise foreign(path, head, size)
    return weight_file(path, size)
