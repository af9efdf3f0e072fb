"""What weights and cache take: the arithmetic that engines share; each adds what is its own."""

from appliance.domain.weights import Layers, Weights

MIB = 1 << 20
GIB = 1 << 30


def heads_on_rank(group: Layers, ranks: int) -> int:
    """Return the KV heads that each of `ranks` GPUs keeps: divided as far as there are heads, then repeated.

    A latent row has no heads to divide, so every GPU keeps it whole.
    """
    return 1 if group.kind in ("latent", "index") else -(-group.kv_heads // ranks)


def growing(weights: Weights, tokens: int, width: float, ranks: int = 1) -> int:
    """Return the bytes that `tokens` take in the layers that keep all of them; `width` in bytes an element."""
    groups = [group for group in weights.cache if group.kind in ("full", "latent", "index")]
    return int(tokens * width * sum(_row(group, ranks) * group.count for group in groups))


def windowed(weights: Weights, tokens: dict[int, int], width: float, ranks: int = 1) -> int:
    """Return the bytes of the sliding window layers; `tokens` tells for each window how many are kept."""
    groups = [group for group in weights.cache if group.kind == "window"]
    return int(width * sum(tokens[group.window] * _row(group, ranks) * group.count for group in groups))


def windows(weights: Weights) -> frozenset[int]:
    """Return the windows' sizes in tokens."""
    return frozenset(group.window for group in weights.cache if group.kind == "window")


def recurrent(weights: Weights, sequences: int, convolution: float, state: float, ranks: int = 1) -> int:
    """Return the bytes of the recurrent layers' states; both widths in bytes an element."""
    groups = [group for group in weights.cache if group.kind == "recurrent"]
    each = sum(group.count * (group.convolution * convolution + group.state * state) for group in groups)
    return int(sequences * each / ranks)


def rounded(number: int, step: int) -> int:
    """Round up to a multiple of `step`."""
    return -(-number // step) * step


def _row(group: Layers, ranks: int) -> int:
    return heads_on_rank(group, ranks) * (group.key + group.value)
