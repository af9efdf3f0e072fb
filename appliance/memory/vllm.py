"""vLLM's cache: pages of one size for all layers, whatever these keep (read in 0.32 and measured against it)."""

from dataclasses import dataclass
from typing import Final

from appliance.domain.weights import Layers, Weights
from appliance.memory import heads_on_rank, rounded

BLOCK: Final = 16
"""Tokens of one block on a GPU."""
STEP: Final = 16
"""Blocks of models with recurrent layers are multiples of so many tokens."""
LASTING: Final = ("Qwen3Next", "Qwen3_5", "Lfm2", "KimiLinear")
"""Beginnings of architectures whose recurrent layers keep two pages for each request; the others (Mamba) keep three."""


@dataclass(frozen=True, slots=True)
class Pages:
    """What one request takes, in bytes on each GPU."""

    attention: int
    state: int


def request(
    weights: Weights, context: int, *, width: float = 2, ranks: int = 1, in_flight: int = 0, block: int = BLOCK,
    state_width: float = 0, prefixes: bool = True, least: int = STEP,
) -> Pages:  # fmt: skip
    """Return what a request of `context` tokens takes; `width` in bytes a cache element.

    `in_flight`: prompt tokens computed at once, which a window keeps too. `state_width`: bytes of a recurrent state's
    element, 0 = what the configuration says. `prefixes`: beginnings of requests are kept for others.
    """
    kinds = [group for group in weights.cache if group.kind != "index" and group.count]
    if not kinds:
        return Pages(0, 0)
    states = [group for group in kinds if group.kind == "recurrent"]
    token = max((_token(group, width, ranks) for group in kinds if group.kind != "recurrent"), default=0)
    state = max((_state(group, state_width or group.state_bits / 8 or 2, ranks) for group in states), default=0)
    if state and token:
        step = max(least, block)
        block = max(block, step * -(-state // int(step * token)))
    page = int(token * block) or state
    each = _together([group.count for group in kinds]) * page
    lasting = weights.architecture.startswith(LASTING)
    kept = 1 if not prefixes else 2 if lasting else 3
    size = _together([group.count for group in kinds])
    attention = sum(
        -(-group.count // size) * _pages(group, context, in_flight, block) for group in kinds if group not in states
    )
    recurrent = sum(-(-group.count // size) * kept for group in states)
    chosen = sum(group.count * group.key for group in weights.cache if group.kind == "index")
    # The index keeps 8-bit keys with a 32-bit scale each.
    extra = rounded(context, block) * (chosen + 4 * sum(g.count for g in weights.cache if g.kind == "index"))
    return Pages(attention * each + extra, recurrent * each)


def _pages(group: Layers, context: int, in_flight: int, block: int) -> int:
    if group.kind == "window":
        return -(-min(group.window - 1 + in_flight, context) // block) + 1
    return -(-context // block)


def _together(counts: list[int]) -> int:
    """Return how many layers share one page table: as many as the rarest kind has, or the commonest if it is near."""
    low, high = min(counts), max(counts)
    return high if high < 1.5 * low else low


def _token(group: Layers, width: float, ranks: int) -> float:
    return heads_on_rank(group, ranks) * (group.key + group.value) * width


def _state(group: Layers, width: float, ranks: int) -> int:
    """Return the bytes of one state: its convolution has the weights' 16 bits."""
    return -(-int(group.convolution * 2 + group.state * width) // ranks)
