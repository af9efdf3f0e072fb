"""config.json and tokenizer_config.json: what a safetensors model says of itself, and whether it wants to run code."""

import re
from dataclasses import dataclass
from pathlib import Path

from appliance.domain.weights import Layers
from appliance.errors import ArtifactError
from appliance.weights.classes import INNER
from appliance.weights.feed import experts, feed_forward
from appliance.weights.files import AGAIN
from appliance.weights.geometry import HIDDEN, LAYERS, cache, query_heads
from appliance.weights.jsonfile import Object, read_object
from appliance.weights.part import Part

MAX_CONFIG = 16 << 20
"""Bytes of one of the small JSON files; those of real models have a few KiB, classifiers with labels some MiB."""
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_INNER = ("text_config", "llm_config", "language_config")
_SIZED = frozenset({*LAYERS, "layers_block_type", "hybrid_override_pattern"})
_CODE = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What config.json says; 0 or "" where it says nothing."""

    architectures: tuple[str, ...]
    context_length: int
    """Tokens."""
    layers: int
    kv_heads: int
    head_dim: int
    dtype: str
    """torch's name (`bfloat16`), or the method that the weights are quantised with."""
    heads: int
    hidden: int
    feed_forward: int
    vocabulary: int
    experts: int
    cache: tuple[Layers, ...]
    tied: bool
    """The embedding is used for the output too, even if the files hold a copy of it."""


def read_config(directory: Path) -> Config:
    """config.json of `directory`. Raises ArtifactError."""
    path = directory / "config.json"
    outer = read_object(path, MAX_CONFIG)
    inner = _inner(outer)
    heads = _number(inner, ("num_attention_heads", "n_head"), path)
    hidden = _number(inner, ("hidden_size", "n_embd"), path)
    latent = _number(inner, ("kv_lora_rank",), path)
    rotary = _number(inner, ("qk_rope_head_dim",), path)
    layers = _number(inner, ("num_hidden_layers", "n_layer"), path)
    kv_heads = _number(inner, ("num_key_value_heads",), path)
    head_dim = _number(inner, ("head_dim",), path)
    architectures = _architectures(outer, path)
    part = Part(inner)
    layers = layers or part.number(*LAYERS) or _listed_layers(part)
    hidden = hidden or part.number(*HIDDEN)
    return Config(
        architectures=architectures,
        context_length=_number(inner, ("max_position_embeddings", "n_positions", "max_seq_len"), path),
        layers=layers,
        # A latent cache (MLA) is one head as wide as the latent and its rotary part; GGUF headers say it that way too.
        kv_heads=1 if latent else kv_heads or heads,
        head_dim=latent + rotary if latent else head_dim or (hidden // heads if heads else 0),
        dtype=_method(outer, inner) or _dtype(outer, path) or _dtype(inner, path),
        heads=heads or query_heads(part),
        hidden=hidden,
        feed_forward=feed_forward(part, hidden),
        vocabulary=part.number("vocab_size", "padded_vocab_size") or Part(outer).number("vocab_size"),
        experts=experts(part),
        cache=cache(inner, architectures[0], layers),
        tied=bool(Part(outer).flag("tie_word_embeddings")),
    )


def brings_code(directory: Path, names: tuple[str, ...]) -> bool:
    """Tell whether a model brings Python along, or asks for some; `names` are those in `directory`.

    Many do for old versions of transformers, and engines have had the same code of their own for long.
    Raises ArtifactError.
    """
    return any(name.endswith(".py") for name in names) or any(
        name in names and _wants_code(read_object(directory / name, MAX_CONFIG)) for name in _CODE
    )


def has_chat_template(directory: Path, names: tuple[str, ...]) -> bool:
    """Whether the model says how a conversation becomes a prompt. Raises ArtifactError."""
    if "chat_template.jinja" in names:
        return True
    return any(
        name in names and bool(read_object(directory / name, MAX_CONFIG).get("chat_template"))
        for name in ("tokenizer_config.json", "chat_template.json")
    )


def _wants_code(outer: Object) -> bool:
    parts: list[object] = [outer, *outer.values()]
    return any(isinstance(part, dict) and bool(part.get("auto_map")) for part in parts)


def _inner(outer: Object) -> Object:
    """Find the language model's part, where the model has others too (vision, audio)."""
    thinker = outer.get("thinker_config")
    for scope in (outer, thinker if isinstance(thinker, dict) else {}):
        for key in _INNER:
            part = scope.get(key)
            if isinstance(part, dict) and not _SIZED.isdisjoint(whole := {**_defaults(part), **part}):
                return whole
    return outer


def _defaults(part: Object) -> dict[str, int]:
    kind = part.get("model_type")
    return INNER.get(kind, {}) if isinstance(kind, str) else {}


def _listed_layers(part: Part) -> int:
    """Count layers of a configuration that lists their types and has no number of them (Nemotron-H)."""
    return len(part.words("layers_block_type") or part.words("layer_types") or part.word("hybrid_override_pattern"))


def _architectures(outer: Object, path: Path) -> tuple[str, ...]:
    found = outer.get("architectures")
    if not isinstance(found, list) or not found:
        raise ArtifactError(f"{path} names no architectures, so no engine can load the model", hint=AGAIN)
    names = tuple(name for name in found if isinstance(name, str) and _WORD.fullmatch(name))
    if len(names) != len(found):
        raise ArtifactError(f"{path}: architectures holds something else than names", hint=AGAIN)
    return names


def _number(part: Object, keys: tuple[str, ...], path: Path) -> int:
    for key in keys:
        value = part.get(key)
        if value is None:
            continue
        if type(value) is not int or not 0 <= value < 2**32:
            raise ArtifactError(f"{path}: {key} is {str(value)[:40]!r}, not a number from 0 to 2^32 - 1", hint=AGAIN)
        return value
    return 0


def _method(*parts: Object) -> str:
    """Return how the weights are quantised (`fp8`, `mxfp4`, `awq`), "" where they are not."""
    said = (Part(part).part("quantization_config").word("quant_method") for part in parts)
    return next((word for word in said if _WORD.fullmatch(word)), "")


def _dtype(part: Object, path: Path) -> str:
    value = part.get("dtype") or part.get("torch_dtype") or ""
    if not isinstance(value, str) or (value and not _WORD.fullmatch(value)):
        raise ArtifactError(f"{path}: dtype is {str(value)[:40]!r}, not a name", hint=AGAIN)
    return value.removeprefix("torch.")
