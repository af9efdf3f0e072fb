"""What llama.cpp reserves, whoever serves it; formulas read in its sources and measured against its log."""

from typing import Final

from appliance.domain.deployment import Load, Setting
from appliance.domain.host import Gpu
from appliance.domain.weights import Weights
from appliance.memory import MIB, growing, recurrent, rounded, windowed, windows

WIDTHS: Final = {"auto": 2.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""Bytes of one cache element; the block types carry a 16-bit scale for 32 elements."""
CELLS: Final = 256
"""The cache is made of so many cells at a time."""
UBATCH: Final = 512
"""Tokens that are computed at once."""
DRIVER: Final = 512 * MIB
"""Bytes that a GPU's driver, its libraries and its kernels take of each GPU that is used."""


def cells(context: int) -> int:
    """Return the cells that one slot of `context` tokens has."""
    return rounded(context, CELLS)


def cache(weights: Weights, setting: Setting) -> int:
    """Return the bytes of the whole cache: every slot has its own part, reserved when the server starts."""
    width = WIDTHS[setting.kv_type]
    slot = cells(setting.context)
    kept = {window: min(slot, rounded(window + UBATCH, CELLS)) for window in windows(weights)}
    each = growing(weights, slot, width) + windowed(weights, kept, width)
    return each * setting.parallel + recurrent(weights, setting.parallel, 4, 4)


def buffers(weights: Weights, setting: Setting) -> int:
    """Return the bytes that one step of `UBATCH` tokens computes in: logits, activations, the attention mask."""
    width = max(weights.vocabulary, 2 * (weights.hidden + weights.feed_forward)) + 2 * weights.hidden
    mask = 2 * cells(setting.context)
    return UBATCH * (4 * width + mask)


def estimate(weights: Weights, setting: Setting, gpus: tuple[Gpu, ...], process: int) -> tuple[Load, ...]:
    """Return the loads of one replica; `process` is what the program itself takes, in bytes.

    The embedding stays in RAM, for it is only looked up; the output goes to the GPUs first, then the layers from the
    last one on, split evenly.
    """
    upon = min(setting.gpu_layers, weights.layers + 1) if gpus else 0
    if not upon:
        whole = (
            ("weights", weights.tensors), ("KV cache", cache(weights, setting)),
            ("buffers", buffers(weights, setting) + process),
        )  # fmt: skip
        return (Load(device="ram", items=whole),)
    body = weights.tensors - weights.embedding - weights.output
    kept = cache(weights, setting)
    left = weights.layers + 1 - upon
    # Where only some of the layers lie, they may be the large ones.
    each = weights.layer if weights.layer and left else -(-body // weights.layers)
    ram = (
        ("weights", weights.embedding + min(body, left * each)),
        ("KV cache", -(-kept * left // weights.layers)),
        ("buffers", UBATCH * 8 * weights.hidden + process),
    )
    loads = [Load(device="ram", items=tuple((name, amount) for name, amount in ram if amount))]
    for number, gpu in enumerate(gpus):
        slots = [slot for slot in range(upon) if slot * len(gpus) // upon == number]
        head = (weights.output or weights.embedding) if upon - 1 in slots else 0
        layers = len(slots) - (upon - 1 in slots)
        items = (
            ("weights", min(body, layers * each) + head),
            ("KV cache", -(-kept * layers // weights.layers)),
            ("buffers", buffers(weights, setting)),
            ("driver", DRIVER),
        )
        loads.append(Load(device=gpu.device, items=tuple((name, amount) for name, amount in items if amount)))
    return tuple(loads)
