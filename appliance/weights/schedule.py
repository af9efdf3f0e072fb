"""Which layer of a model attends to what: read from the keys that configurations have for it.

The rules are those of transformers' configuration classes and of vLLM's model code.
"""

from collections.abc import Callable

from appliance.weights.layers import BOTH, FULL, NONE, RECURRENT, WINDOW, every
from appliance.weights.part import Part

_WORDS = {
    "sliding_attention": WINDOW,
    "sliding_window": WINDOW,
    "chunked_attention": WINDOW,
    "local_attention": WINDOW,
    "hybrid_sliding": WINDOW,
    "linear_attention": RECURRENT,
    "mamba": RECURRENT,
    "mamba2": RECURRENT,
    "recurrent": RECURRENT,
    "conv": RECURRENT,
    "hybrid": BOTH,
    "moe": NONE,
    "mlp": NONE,
}
"""Names in `layer_types` and its like; all others attend to every token (`full_attention`, `indexed_attention`)."""
_LETTERS = {"M": RECURRENT, "*": FULL, "-": NONE, "E": NONE, "L": WINDOW, "G": FULL}
"""Nemotron-H's `hybrid_override_pattern`, EXAONE 4's `sliding_window_pattern`."""

_Read = Callable[[Part, str, int], tuple[str, ...]]


def schedule(part: Part, model_type: str, layers: int) -> tuple[str, ...]:
    """One role for each of `layers` layers; the caller bounds their number.

    Where the configuration lists fewer, the list repeats; where it lists more (draft layers), the rest is left out.
    """
    found = next((roles for key, read in _RULES if part.has(key) and (roles := read(part, key, layers))), ())
    roles = found or _by_type(part, model_type, layers)
    shared = min(part.number("num_kv_shared_layers"), layers)
    whole = (roles * -(-layers // len(roles)))[: layers - shared] if roles else ()
    return (*whole, *(NONE,) * shared)


def _listed(part: Part, key: str, _: int) -> tuple[str, ...]:
    return tuple(_WORDS.get(word, FULL) for word in part.words(key))


def _spelled(part: Part, key: str, _: int) -> tuple[str, ...]:
    return tuple(_LETTERS[letter] for letter in part.word(key) if letter in _LETTERS)


def _flags(one: str, zero: str) -> _Read:
    def read(part: Part, key: str, _: int) -> tuple[str, ...]:
        return tuple(one if number else zero for number in part.numbers(key))

    return read


def _placed(role: str, other: str) -> _Read:
    def read(part: Part, key: str, layers: int) -> tuple[str, ...]:
        places = frozenset(part.numbers(key))
        return tuple(role if index in places else other for index in range(layers))

    return read


def _kimi(part: Part, key: str, layers: int) -> tuple[str, ...]:
    # Counted from 1 in these configurations.
    places = frozenset(part.part(key).numbers("full_attn_layers"))
    return tuple(FULL if index + 1 in places else RECURRENT for index in range(layers)) if places else ()


def _period_and_offset(part: Part, key: str, layers: int) -> tuple[str, ...]:
    return every(part.number(key), part.number("attn_layer_offset"), FULL, RECURRENT, layers)


def _last_of(other: str) -> _Read:
    def read(part: Part, key: str, layers: int) -> tuple[str, ...]:
        period = part.number(key)
        return every(period, period - 1, FULL, other, layers) if period else ()

    return read


_RULES: tuple[tuple[str, _Read], ...] = (
    ("layer_types", _listed),
    ("layers_block_type", _listed),
    ("hybrid_override_pattern", _spelled),
    ("attn_type_list", _flags(FULL, RECURRENT)),
    ("hybrid_layer_pattern", _flags(WINDOW, FULL)),
    ("no_rope_layers", _flags(WINDOW, FULL)),
    ("attn_layer_indices", _placed(FULL, RECURRENT)),
    ("full_attn_idxs", _placed(FULL, RECURRENT)),
    ("hybrid_layer_ids", _placed(BOTH, RECURRENT)),
    ("local_layer_ids", _placed(WINDOW, FULL)),
    ("linear_attn_config", _kimi),
    ("attn_layer_period", _period_and_offset),
    ("full_attention_interval", _last_of(RECURRENT)),
    ("layer_group_size", _last_of(RECURRENT)),
    ("sliding_window_pattern", _last_of(WINDOW)),
    ("sliding_window_pattern", _spelled),
    ("_sliding_window_pattern", _last_of(WINDOW)),
    ("global_attn_every_n_layers", _last_of(WINDOW)),
)
"""Key -> how it is read; the first that says something holds."""

_PERIODS = {
    "gemma2": (2, 1, WINDOW),
    "gemma3": (6, 5, WINDOW),
    "gemma3_text": (6, 5, WINDOW),
    "gemma3n_text": (5, 4, WINDOW),
    "gemma4_text": (6, 5, WINDOW),
    "vaultgemma": (2, 1, WINDOW),
    "cohere2": (4, 3, WINDOW),
    "gpt_oss": (2, 1, WINDOW),
    "llama4_text": (4, 3, WINDOW),
    "olmo3": (4, 3, WINDOW),
    "exaone4": (4, 3, WINDOW),
    "exaone_moe": (4, 3, WINDOW),
    "cwm": (4, 0, WINDOW),
    "granite_swa": (4, 0, WINDOW),
    "granitemoe_swa": (4, 0, WINDOW),
    "qwen3_next": (4, 3, RECURRENT),
    "qwen3_5_text": (4, 3, RECURRENT),
    "qwen3_5_moe_text": (4, 3, RECURRENT),
    "olmo_hybrid": (4, 3, RECURRENT),
    "minimax": (2, 0, RECURRENT),
}
"""model_type -> period, place of the full layer in it, role of the others; where no key says it."""
_ALIKE = {"falcon_h1": BOTH, "mamba": RECURRENT, "mamba2": RECURRENT, "falcon_mamba": RECURRENT}
_FULL_ALL = frozenset({"mellum", "laguna", "step3p5", "smollm3"})
"""Types whose window is for layers that `layer_types` names only."""


def _by_type(part: Part, model_type: str, layers: int) -> tuple[str, ...]:
    if model_type in _PERIODS:
        period, at, other = _PERIODS[model_type]
        return every(period, at, FULL, other, layers)
    if model_type in _ALIKE:
        return (_ALIKE[model_type],) * layers
    if model_type in _FULL_ALL:
        return (FULL,) * layers
    # Without a list, every layer has the window, but for Qwen2, which counts the layers before the first that has it.
    first = min(part.number("max_window_layers"), layers)
    return (*(FULL,) * first, *(WINDOW,) * (layers - first))
