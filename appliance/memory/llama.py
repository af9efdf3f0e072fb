"""What llama.cpp reserves, whoever serves it; formulas read in its sources and measured against its log."""

from typing import Final

from appliance.domain.host import Gpu
from appliance.domain.service import Load, Setting
from appliance.domain.weights import Weights
from appliance.memory import MIB, growing, recurrent, rounded, windowed, windows

WIDTHS: Final = {"auto": 2.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""Bytes of one cache element; the block types carry a 16-bit scale for 32 elements."""
CELLS: Final = 256
"""The cache is made of so many cells at a time."""
UBATCH: Final = 512
"""Tokens that are computed at once."""
EXPERTS: Final = 8
"""Experts that one token uses, as most mixtures have it."""
DRIVER: Final = 512 * MIB
"""Bytes that a GPU's driver, its libraries and its kernels take of each GPU that is used."""


def cells(setting: Setting) -> int:
    """Return the cells that one slot has: the server rounds the whole up first, then each slot's part."""
    whole = rounded(setting.context * setting.parallel, CELLS)
    return rounded(whole // setting.parallel, CELLS)


def cache(weights: Weights, setting: Setting) -> int:
    """Return the bytes of the whole cache: every slot has its own part, reserved when the server starts."""
    width = WIDTHS[setting.kv_type]
    slot = cells(setting)
    each = growing(weights, slot, width) + windowed(weights, _kept(weights, slot), width)
    return each * setting.parallel + state(weights, setting)


def state(weights: Weights, setting: Setting) -> int:
    """Return the bytes of recurrent states, which have 32 bits here whatever the weights have."""
    return recurrent(weights, setting.parallel, 4, 4)


def buffers(weights: Weights, setting: Setting) -> int:
    """Return the bytes that one step of `UBATCH` tokens computes in: activations of the widest layer, the masks.

    Exact for dense, sliding and latent attention; mixtures of experts and recurrent layers come out at three quarters
    to thrice of what is reported.
    """
    slot = cells(setting)
    step = min(UBATCH, slot * setting.parallel)
    hidden, inner = weights.hidden, weights.feed_forward
    mixed = 2 * EXPERTS * hidden if weights.experts else 0
    attended = max(2 * _queries(weights), mixed, 3 * inner)
    widest = max((3 * hidden + attended, *_latents(weights), *_scans(weights)))
    seen = slot * any(group.kind in ("full", "latent") for group in weights.cache)
    seen += sum(_kept(weights, slot).values())
    largest = max((4 * (group.state + 2 * group.convolution) for group in weights.cache), default=0)
    logits = 4 * weights.vocabulary * setting.parallel
    return step * (4 * widest + 24) + 2 * step * seen + largest * setting.parallel + logits


def _kept(weights: Weights, slot: int) -> dict[int, int]:
    """Return the cells of each sliding window: it and one step of tokens."""
    return {window: min(slot, rounded(window + UBATCH, CELLS)) for window in windows(weights)}


def _queries(weights: Weights) -> int:
    return weights.heads * max((group.key for group in weights.cache if group.kind in ("full", "window")), default=0)


def _scans(weights: Weights) -> tuple[int, ...]:
    """Return what recurrent layers compute in: about five times their convolution's width, which sees four tokens."""
    return tuple(5 * group.convolution // 3 for group in weights.cache if group.kind == "recurrent")


def _latents(weights: Weights) -> tuple[int, ...]:
    """Return what latent attention computes in: every head's query meets the compressed row."""
    return tuple(weights.heads * 2 * group.key for group in weights.cache if group.kind == "latent")


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
