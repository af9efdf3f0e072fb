"""What a safetensors model keeps for each token and each sequence: config.json to groups of layers."""

import re
from itertools import islice

from appliance.domain.weights import Layers
from appliance.weights.classes import SPARSE
from appliance.weights.jsonfile import Object
from appliance.weights.layers import (
    BOTH,
    FULL,
    MAX_LAYERS,
    RECURRENT,
    WINDOW,
    attention,
    compressed,
    grouped,
    latent,
    recurrent,
)
from appliance.weights.layers import index as chooses
from appliance.weights.part import Part
from appliance.weights.recurrence import recurrence
from appliance.weights.schedule import schedule

_ENCODER = re.compile(r"(?i)bert|roberta|mpnet|electra|^new(model|for)|^clip|^siglip|encodermodel$")
_DECODER = re.compile(r"(?i)decoder|causallm")
_OFF_BY_DEFAULT = ("qwen2", "qwen3", "smollm3")
"""Types whose `sliding_window` counts only where `use_sliding_window` is true."""
_LATENT_UNUSED = frozenset({"minicpm3", "plm"})
"""Types with a compressed projection whose full heads engines keep all the same."""
_WINDOWS = (
    "sliding_window",
    "attention_chunk_size",
    "sliding_window_size",
    "attention_window_size",
)
_KV_HEADS = (
    "n_head_kv",
    "num_kv_heads",
    "num_key_value_heads",
    "multi_query_group_num",
    "num_attention_groups",
)
_KV_HEADS_BY_LAYER = ("num_kv_heads", "num_key_value_heads", "num_key_value_heads_per_layer")
HEADS = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "decoder_attention_heads",
)
HIDDEN = ("hidden_size", "n_embd", "d_model", "model_dim")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers", "decoder_layers")


def cache(inner: Object, architecture: str, layers: int) -> tuple[Layers, ...]:
    """Group the `layers` layers of `inner`, the language model's configuration.

    () for an encoder, and where the configuration does not say.
    """
    model_type = inner.get("model_type")
    kind = model_type if isinstance(model_type, str) else ""
    part = Part(inner, SPARSE.get(kind))
    if _keeps_nothing(part, architecture) or not 0 < layers <= MAX_LAYERS:
        return ()
    if part.flag("is_encoder_decoder"):
        return _encoder_decoder(part, layers)
    if ratios := _ratios(part):
        return _compressed(part, ratios[:layers])
    if part.has("block_configs"):
        return _blocks(part, layers)
    return _Decoder(part, kind).cache(layers)


def query_heads(part: Part) -> int:
    """Query heads; the most in one layer where layers differ."""
    return part.number(*HEADS) or max(part.numbers("num_query_heads"), default=0)


class _Decoder:
    """The dimensions of one decoder's layers by role."""

    def __init__(self, part: Part, kind: str) -> None:
        heads = query_heads(part)
        self._part = part
        self._kind = kind
        self._key = part.number("attention_head_dim", "head_dim", "kv_channels", "hidden_size_per_head")
        self._key = self._key or (part.number(*HIDDEN) // heads if heads else 0)
        self._kv_heads = _kv_heads(part, heads)
        self._by_layer = next((found for key in _KV_HEADS_BY_LAYER if (found := part.numbers(key))), ())
        self._window = _window(part, kind)
        rank = 0 if kind in _LATENT_UNUSED else part.number("kv_lora_rank")
        self._latent = rank + part.number("qk_rope_head_dim") if rank else 0
        self._recurrent = recurrent(*recurrence(part, self._key), _state_bits(part, kind))

    def cache(self, layers: int) -> tuple[Layers, ...]:
        roles = schedule(self._part, self._kind, layers)
        # LongCat-Flash has two attentions in each layer.
        twice = 2 if self._kind == "longcat_flash" and not self._part.has("num_hidden_layers") else 1
        return grouped(one for index, role in enumerate(roles) for one in self._layer(role, index) * twice)

    def _layer(self, role: str, index: int) -> tuple[Layers, ...]:
        if role == RECURRENT:
            return (self._recurrent,)
        if role == BOTH:
            return self._attention(FULL, index), self._recurrent
        if role not in (FULL, WINDOW):
            return ()
        chooser = self._part.number("index_head_dim") if self._latent else 0
        return (self._attention(role, index), *((chooses(chooser),) if chooser else ()))

    def _attention(self, role: str, index: int) -> Layers:
        if self._latent:
            return latent(self._latent)
        part, window = self._part, self._window if role == WINDOW else 0
        own = part.part("per_layer_config").part(str(index))
        listed = _at(self._by_layer, index) if self._by_layer else self._kv_heads
        kv_heads = own.number("num_key_value_heads") or listed
        if window:
            key = own.number("head_dim") or part.number("swa_head_dim") or self._key
            value = part.number("swa_v_head_dim", "v_head_dim")
            return attention(part.number("swa_num_key_value_heads") or kv_heads, key, value or key, window)
        return self._full(kv_heads, own.number("head_dim"))

    def _full(self, kv_heads: int, key: int) -> Layers:
        part = self._part
        if part.number("kv_lora_rank"):
            key = part.number("qk_nope_head_dim") + part.number("qk_rope_head_dim")
            return attention(kv_heads, key, key)
        key = key or part.number("global_head_dim") or self._key
        if part.flag("attention_k_eq_v"):
            kv_heads = part.number("num_global_key_value_heads") or kv_heads
        return attention(kv_heads, key, part.number("v_head_dim") or key)


def _state_bits(part: Part, kind: str) -> int:
    """Return 32 where the configuration, or its class (Nemotron-H), asks engines to keep states so."""
    said = part.word("mamba_ssm_dtype") or part.word("mamba_ssm_cache_dtype")
    return 32 if said == "float32" or (kind == "nemotron_h" and not said) else 0


def _at(numbers: tuple[int, ...], index: int) -> int:
    return numbers[index] if index < len(numbers) else 0


def _keeps_nothing(part: Part, architecture: str) -> bool:
    """Whether all tokens are there at once, so that nothing has to be kept of them."""
    if part.flag("is_causal") is False or part.word("use_bidirectional_attention") == "all":
        return True
    if part.flag("use_bidirectional_attention") and not architecture.endswith("Generation"):
        return True
    return bool(_ENCODER.search(architecture)) and not _DECODER.search(architecture)


def _kv_heads(part: Part, heads: int) -> int:
    if part.flag("multi_query") and not part.flag("new_decoder_architecture"):
        return 1
    if part.flag("multi_query_attention") is False:
        return heads
    return part.number(*_KV_HEADS) or part.part("attn_config").number("kv_n_heads") or heads


def _window(part: Part, kind: str) -> int:
    """Tokens; 0 where there is no window, or one that no context of the model outgrows."""
    wanted = part.flag("use_sliding_window")
    if wanted is False or (wanted is None and kind.startswith(_OFF_BY_DEFAULT)):
        return 0
    window = part.number(*_WINDOWS)
    context = part.number("max_position_embeddings")
    return 0 if context and window >= context else window


def _encoder_decoder(part: Part, layers: int) -> tuple[Layers, ...]:
    """Group the decoder's layers: each keeps its own tokens and, for the whole answer, those of the encoder."""
    count = part.number("decoder_layers", "num_decoder_layers") or layers
    heads = part.number("decoder_attention_heads", "num_heads", *HEADS)
    head = part.number("d_kv") or (part.number(*HIDDEN) // heads if heads else 0)
    seen = part.number("max_source_positions", "max_position_embeddings", "n_positions") or 512
    own = attention(heads, head, head)
    return grouped(one for _ in range(min(count, MAX_LAYERS)) for one in (own, attention(heads, head, head, seen)))


def _ratios(part: Part) -> tuple[int, ...]:
    """Tokens for each kept row, by layer (DeepSeek V4); 0 in a layer that has its window only."""
    rates = part.part("compress_rates")
    types = part.words("layer_types")
    return part.numbers("compress_ratios") or tuple(rates.number(word) for word in types if part.has("compress_rates"))


def _compressed(part: Part, ratios: tuple[int, ...]) -> tuple[Layers, ...]:
    width, window = part.number("head_dim"), part.number("sliding_window")
    return grouped(one for ratio in ratios for one in compressed(width, window, ratio))


def _blocks(part: Part, layers: int) -> tuple[Layers, ...]:
    """Group layers that a search made each its own (Nemotron-NAS): some have other heads, some no attention."""
    heads = query_heads(part)
    head = part.number("head_dim") or (part.number(*HIDDEN) // heads if heads else 0)
    found = (block.part("attention") for block in islice(part.parts("block_configs"), layers))
    return grouped(
        attention(
            one.number("num_key_value_heads") or heads // (one.number("n_heads_in_group") or heads or 1), head, head
        )
        for one in found
        if not one.flag("no_op") and not one.flag("replace_with_linear")
    )
