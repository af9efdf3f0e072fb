"""What servers that are made of PyTorch reserve on a GPU; their own reports, and where none is, a stated guess."""

from typing import Final

from appliance.domain.host import Gpu
from appliance.domain.service import Setting
from appliance.domain.version import version
from appliance.domain.weights import Weights
from appliance.memory import GIB, MIB, growing, recurrent, rounded, windowed, windows

BLOCK: Final = 16
"""Tokens of one block of the cache."""
CONTEXT: Final = 600 * MIB
"""Bytes that CUDA, cuBLAS and the loaded kernels take of a GPU for each process (inferred)."""
COLLECTIVES: Final = 512 * MIB
"""Bytes of NCCL's buffers where several GPUs work together (inferred)."""
PROCESS: Final = 3 * GIB
"""Bytes of RAM for each GPU's process: libraries, pinned buffers (inferred)."""
WIDTHS: Final = {"auto": 2.0, "fp8": 1.0, "int8": 1.0 + 1 / 16, "int4": 0.5 + 1 / 16}
"""Bytes of one cache element."""


def weights_on_rank(weights: Weights, setting: Setting) -> int:
    """Return the bytes of weights on each GPU; 32-bit ones are loaded as 16-bit, unless that is asked for.

    Of pipeline stages the first and the last have the embedding or the output as well as their layers.
    """
    amount = weights.tensors // 2 if weights.quantisation == "float32" else weights.tensors
    if wide(weights, setting):
        amount *= 2
    if setting.pipeline_parallel > 1:
        amount = int(amount * _stage(weights, setting)) + max(weights.embedding, weights.output)
    return -(-amount // setting.tensor_parallel)


def wide(weights: Weights, setting: Setting) -> bool:
    """Whether weights of 16 or 32 bits are computed in 32."""
    return setting.dtype == "float32" and weights.quantisation in ("float32", "float16", "bfloat16")


def _stage(weights: Weights, setting: Setting) -> float:
    """Return the part of all layers that the largest pipeline stage has."""
    return -(-weights.layers // setting.pipeline_parallel) / max(1, weights.layers)


def cache(weights: Weights, setting: Setting, batched: int, *, block: int = BLOCK) -> int:
    """Return the bytes of cache on each GPU that `parallel` requests of `context` tokens need.

    `batched` are the prompt tokens in flight, which a sliding window keeps too until they are done.
    """
    width, ranks = WIDTHS[setting.kv_type] * (2 if setting.dtype == "float32" else 1), setting.tensor_parallel
    slot = rounded(setting.context, block)
    kept = {window: rounded(min(window - 1 + batched, setting.context), block) + block for window in windows(weights)}
    each = growing(weights, slot, width, ranks) + windowed(weights, kept, width, ranks)
    whole = each * setting.parallel + recurrent(weights, setting.parallel, 2, 2, ranks)
    return int(whole * _stage(weights, setting)) if setting.pipeline_parallel > 1 else whole


def activations(weights: Weights, batched: int, sequences: int, ranks: int) -> int:
    """Return the bytes that one step of `batched` tokens computes in, with the logits of `sequences` requests."""
    inner = batched * 2 * (5 * weights.hidden + 3 * weights.feed_forward // ranks)
    return inner + sequences * weights.vocabulary * 6


def overhead(ranks: int) -> int:
    """Return what the libraries take of each GPU."""
    return CONTEXT + (COLLECTIVES if ranks > 1 else 0)


def too_old(weights: Weights, gpus: tuple[Gpu, ...], half: tuple[str, ...], types: dict[str, str]) -> str | None:
    """Return why NVIDIA GPUs cannot compute with a model's numbers, None when they can.

    `half`: beginnings of architectures that need bfloat16; `types`: quantisation -> lowest compute capability.
    """
    for gpu in gpus:
        have = version(gpu.compute_capability)
        if gpu.vendor != "nvidia" or not have:
            continue
        if have < (8, 0) and weights.architecture.startswith(half):
            return f"{weights.architecture} needs bfloat16, which {gpu.name} ({gpu.compute_capability}) has not"
        lowest = types.get(weights.quantisation, "")
        if have < version(lowest):
            return f"{weights.quantisation} needs compute capability {lowest}, {gpu.name} has {gpu.compute_capability}"
    return None


def divides(weights: Weights, ranks: int) -> bool:
    """Whether the query heads can be shared out, and the KV heads shared out or repeated, evenly."""
    kv = {group.kv_heads for group in weights.cache if group.kind in ("full", "window") and group.kv_heads}
    return weights.heads % ranks == 0 and all(heads % ranks == 0 or ranks % heads == 0 for heads in kv)
