"""What llama.cpp keeps for each token and each sequence: GGUF keys to groups of layers.

The tables follow llama.cpp's per-architecture loaders (src/models/*.cpp) and what its `create_memory` then allocates:
a key that an architecture's loader does not read has no effect, so a window counts for those listed here only.
"""

from dataclasses import replace

from appliance.domain.weights import Layers
from appliance.weights.gguf import GgufHeader
from appliance.weights.layers import (
    FULL,
    MAX_LAYERS,
    WINDOW,
    attention,
    compressed,
    every,
    grouped,
    latent,
    recurrent,
)
from appliance.weights.layers import index as chooses

_KEEP_NOTHING = frozenset(
    {
        "bert",
        "dream",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llada",
        "llada-moe",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "rnd1",
        "wavtokenizer-dec",
    }
)
_ALL_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_WITHOUT_HEADS = frozenset(
    {
        "bailingmoe3",
        "glm5-next",
        "granitehybrid",
        "jamba",
        "kimi-k3",
        "kimi-linear",
        "lfm2",
        "lfm2moe",
        "plamo2",
    }
)
"""Recurrent where a layer has no key and value heads."""
_WITHOUT_HEADS_OR_FEED = frozenset({"nemotron_h", "nemotron_h_moe"})
"""Each block is one of attention, recurrence and feed-forward."""
_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
"""Each so many-th layer is attention, unless the header says otherwise."""

_LISTED = (1, 0, 0)
_WINDOWS = {
    "afmoe": (4, 3, 0),
    "cohere2": (4, 3, 0),
    "cohere2moe": (4, 0, 0),
    "exaone4": (4, 3, 4096),
    "exaone-moe": (4, 3, 128),
    "gemma2": (2, 1, 4096),
    "gemma3": (6, 5, 0),
    "gemma3n": (5, 4, 0),
    "gpt-oss": (2, 1, 0),
    "laguna": (4, 0, 0),
    "lfm2": (0, 0, 0),
    "llama4": (4, 3, 8192),
    "mellum": (4, 3, 0),
    "muse-glimmer": (4, 3, 0),
    "olmo2": (4, 3, 0),
    "plamo3": (8, 7, 0),
    "smallthinker": (4, 0, 0),
    "dots3note": _LISTED,
    "gemma4": _LISTED,
    "granite_swa": _LISTED,
    "maple": _LISTED,
    "mimo2": _LISTED,
    "spark2_5": _LISTED,
    "step35": _LISTED,
}
"""Architecture -> period, place of the full layer in it, window in tokens where the header has none (0: no window)."""
_FIXED = {"llama4": 8192, "smallthinker": 4096}
"""Windows that the loader sets whatever the header says, unless that is 0."""
_GEMMA3N_KEPT = 20
"""Layers of Gemma 3n with keys and values of their own; the rest use theirs."""


def cache(header: GgufHeader, architecture: str) -> tuple[Layers, ...]:
    """Group the layers of the model; () for an encoder, and where the header does not say."""
    blocks = _Blocks(header, architecture)
    if architecture in _KEEP_NOTHING or not 0 < blocks.total <= MAX_LAYERS:
        return ()
    return grouped(one for index in range(blocks.kept()) for one in blocks.layer(index))


def kept_layers(header: GgufHeader, architecture: str) -> int:
    """Count the layers without those that draft ahead (multi-token prediction)."""
    total = header.number(f"{architecture}.block_count")
    ahead = header.number(f"{architecture}.nextn_predict_layers")
    # In Granite's switch model that number means a routing layer, which keeps keys like the others.
    return total - ahead if ahead < total and architecture != "graniteswitch" else total


class _Blocks:
    """The keys of one header, spread over its layers."""

    def __init__(self, header: GgufHeader, architecture: str) -> None:
        self._header = header
        self._name = architecture
        self.total = self._number("block_count")
        self._layers = kept_layers(header, architecture)
        self._heads = self._number("attention.head_count")
        self._kv_heads = self._numbers("attention.head_count_kv") or self._numbers("attention.head_count")
        self._feed = self._numbers("feed_forward_length")
        self._ratios = self._numbers("attention.compress_ratios")
        even = self._number("embedding_length") // self._heads if self._heads else 0
        self._key = self._number("attention.key_length") or even
        self._value = self._number("attention.value_length") or even
        self._recurrent = recurrent(*self._recurrence())
        self._window = self._window_size()
        self._roles = self._window_roles() if self._window and self._layers <= MAX_LAYERS else ()
        self._flags = self._numbers("attention.recurrent_layers")
        self._interval = self._number("full_attention_interval") or _INTERVALS.get(architecture, 0)

    def kept(self) -> int:
        """Count the layers with a cache of their own."""
        if self._name == "gemma3n":
            return min(self._layers, _GEMMA3N_KEPT)
        shared = self._number("attention.shared_kv_layers") if self._name == "gemma4" else 0
        return max(self._layers - shared, 0)

    def layer(self, index: int) -> tuple[Layers, ...]:
        """Describe what layer `index` keeps."""
        if self._ratios and self._name == "deepseek4":
            window = self._number("attention.sliding_window")
            return compressed(self._key, window, _at(self._ratios, index))
        if self._name == "falcon-h1":
            return self._attention(index), self._recurrent
        if self._is_recurrent(index):
            return (self._recurrent,)
        if self._name in _WITHOUT_HEADS_OR_FEED and _at(self._feed, index):
            return ()
        kept = self._attention(index)
        chooser = self._number("attention.indexer.key_length") if kept.kind == "latent" else 0
        return (kept, *((chooses(chooser),) if chooser else ()))

    def _is_recurrent(self, index: int) -> bool:
        if self._name in _INTERVALS:
            return bool(_at(self._flags, index)) if self._flags else bool((index + 1) % self._interval)
        if self._name in _WITHOUT_HEADS_OR_FEED:
            return not _at(self._kv_heads, index) and not _at(self._feed, index)
        if self._name in _WITHOUT_HEADS:
            return not _at(self._kv_heads, index)
        return self._name in _ALL_RECURRENT

    def _attention(self, index: int) -> Layers:
        near = bool(self._roles) and self._roles[index] == WINDOW
        kv_heads = _at(self._kv_heads, index)
        key, value = self._key, self._value
        if near:
            key = self._number("attention.key_length_swa") or key
            value = self._number("attention.value_length_swa") or value
        kept = attention(kv_heads, key, value, self._window if near else 0)
        # Only files with these two keys have the tensors that work on the compressed row; older ones keep all heads.
        if self._number("attention.key_length_mla") and self._number("attention.value_length_mla"):
            return replace(kept, value=0) if near else latent(kv_heads * key)
        return kept

    def _window_size(self) -> int:
        if self._name not in _WINDOWS or (self._name == "exaone4" and self._layers != 64):
            return 0
        given = self._numbers("attention.sliding_window")
        window = max(given) if given else _WINDOWS[self._name][2]
        return _FIXED.get(self._name, window) if window else 0

    def _window_roles(self) -> tuple[str, ...]:
        period, at, _ = _WINDOWS[self._name]
        given = self._numbers("attention.sliding_window_pattern")
        if len(given) > 1:
            return tuple(WINDOW if _at(given, index) else FULL for index in range(self._layers))
        if given:
            period, at = given[0], 0 if at == 0 else given[0] - 1
        return every(period, at, FULL, WINDOW, self._layers)

    def _recurrence(self) -> tuple[int, int]:
        """Elements of the convolution and of the state (`n_embd_r` and `n_embd_s` of llama-hparams.cpp)."""
        hidden, taps = self._number("embedding_length"), max(self._number("ssm.conv_kernel") - 1, 0)
        if head := self._number("wkv.head_size"):
            return (self._number("token_shift_count") or 2) * hidden, hidden * head
        if length := self._number("shortconv.l_cache"):
            return hidden * (length - 1), 0
        if head := self._number("kda.head_dim"):
            return 3 * taps * self._heads * head, head**2 * self._heads
        if self._name == "minimax-01":
            return 0, self._key**2 * self._heads
        inner, state = self._number("ssm.inner_size"), self._number("ssm.state_size")
        return taps * (inner + 2 * self._number("ssm.group_count") * state), state * inner

    def _number(self, key: str) -> int:
        return self._header.number(f"{self._name}.{key}")

    def _numbers(self, key: str) -> tuple[int, ...]:
        return self._header.numbers(f"{self._name}.{key}")


def _at(numbers: tuple[int, ...], index: int) -> int:
    """Get the number for one layer; one number alone is for all of them."""
    if len(numbers) == 1:
        return numbers[0]
    return numbers[index] if index < len(numbers) else 0


def feed_forward(header: GgufHeader, architecture: str) -> int:
    """Inner elements that one token goes through in one block, of all its experts together."""

    def number(key: str) -> int:
        return header.number(f"{architecture}.{key}")

    if not number("expert_count"):
        return number("feed_forward_length")
    one = number("expert_feed_forward_length") or number("feed_forward_length")
    shared = number("expert_shared_feed_forward_length") or number("expert_shared_count") * one
    return one * (number("expert_used_count") or 1) + shared
