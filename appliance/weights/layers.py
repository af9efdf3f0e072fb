"""Layers by what they keep: one description for each layer, merged into groups."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from appliance.domain.weights import Layers

MAX_LAYERS = 4096
"""More in one model is a mistake in its header: the largest have about 130, and llama.cpp stops at 512."""

FULL = "full"
WINDOW = "window"
RECURRENT = "recurrent"
BOTH = "both"
"""Attention to every token and a recurrent state side by side in one layer."""
NONE = "none"
"""Feed-forward only, or keys and values of another layer."""


def attention(kv_heads: int, key: int, value: int, window: int = 0) -> Layers:
    """One layer of attention: to the last `window` tokens, or to every token where that is 0."""
    kind = WINDOW if window else FULL
    return Layers(kind=kind, count=1, kv_heads=kv_heads, key=key, value=value, window=window)


def latent(width: int) -> Layers:
    """One layer that keeps one row of `width` elements for each token, which all heads share."""
    return Layers(kind="latent", count=1, kv_heads=1, key=width)


def index(width: int) -> Layers:
    """One layer's keys that only choose which tokens are attended to (sparse attention)."""
    return Layers(kind="index", count=1, kv_heads=1, key=width)


def recurrent(convolution: int, state: int, bits: int = 0) -> Layers:
    """One layer that keeps so many elements for each sequence; `bits` of each of the state's, 0 = as the weights."""
    return Layers(kind=RECURRENT, count=1, convolution=convolution, state=state, state_bits=bits)


def compressed(width: int, window: int, ratio: int) -> tuple[Layers, ...]:
    """One layer that keeps rows of the last `window` tokens, and one more for each `ratio` tokens (DeepSeek V4).

    The second is given as the part of a row that falls on one token.
    """
    near = (Layers(kind=WINDOW, count=1, kv_heads=1, key=width, window=window),) if window else ()
    return (*near, latent(-(-width // ratio))) if ratio > 0 else near


def every(period: int, at: int, special: str, other: str, layers: int) -> tuple[str, ...]:
    """Roles where layer `at` of each `period` is special."""
    return tuple(special if period and index % period == at else other for index in range(layers))


def grouped(kept: Iterable[Layers]) -> tuple[Layers, ...]:
    """Merge equal layers, in the order in which they appear first; layers that keep nothing fall out."""
    counts = Counter(kept)
    return tuple(replace(one, count=count) for one, count in counts.items() if one.row or one.convolution or one.state)
