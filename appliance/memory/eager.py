"""What servers reserve that let transformers generate: no paged cache, every request keeps tensors of its own."""

from dataclasses import replace
from typing import Final

from appliance.domain.host import Gpu
from appliance.domain.service import Load, Setting
from appliance.domain.weights import Weights
from appliance.memory import torch

PROMPT: Final = 2048
"""Prompt tokens that are counted on in one step (inferred: the whole prompt is computed at once)."""


def estimate(
    weights: Weights, setting: Setting, gpus: tuple[Gpu, ...], processes: int, *, widened: int = 1
) -> tuple[Load, ...]:
    """Return the loads of one replica: whole layers lie on each GPU; `processes` are bytes of RAM beside the model.

    `widened` is 2 where 16-bit weights are computed in 32 bits: they and the cache take twice as much.
    """
    amounts = {
        "weights": torch.weights_on_rank(weights, Setting(context=1, parallel=1)) * widened,
        "KV cache": torch.cache(weights, replace(setting, tensor_parallel=1), PROMPT) * widened,
        "activations": torch.activations(weights, min(setting.context, PROMPT), setting.parallel, 1) * widened,
    }
    if not gpus:
        return (Load(device="ram", items=(*amounts.items(), ("processes", processes))),)
    each = tuple((name, -(-amount // len(gpus))) for name, amount in amounts.items())
    ram = Load(device="ram", items=(("processes", processes),))
    return (ram, *(Load(device=gpu.device, items=(*each, ("libraries", torch.CONTEXT))) for gpu in gpus))
