"""The steps down from what is wanted to what fits, in a fixed order, each with its name."""

from collections.abc import Iterator
from dataclasses import replace

from appliance.domain.deployment import Model
from appliance.domain.host import Gpu
from appliance.domain.service import Setting
from appliance.domain.spec import ModelSpec
from appliance.engines import Engine

USEFUL = 8192
"""Tokens: context goes down to this before anything else is given up."""
SMALLEST = 512
"""Tokens; a smaller context serves nobody."""
UNTOLD = 4096
"""Tokens for a model whose header does not say what it was trained for."""

Step = tuple[Setting, str]
"""A setting, and what was given up for it; "" = nothing."""


def wanted(item: ModelSpec, model: Model, module: Engine, most: int = 0) -> Setting:
    """Return what is asked for, or what the model was trained for and `most` tokens, if that is said."""
    trained = model.weights.context_length or UNTOLD
    return Setting(
        context=item.context or (min(trained, most) if most else trained),
        parallel=item.parallel or module.PARALLEL,
        kv_type=item.kv_type,
        dtype=item.tuning.dtype,
        batched_tokens=item.tuning.batched_tokens or 0,
    )


def ladder(item: ModelSpec, model: Model, module: Engine, gpus: tuple[Gpu, ...], most: int = 0) -> Iterator[Step]:
    """Yield settings from the wanted one down: context, concurrency, cache type, offload, and context once more.

    What the operator asked for stays; with `strict` there is the wanted one only. Layers left in RAM come as one step
    for each number of them, the most on the GPUs first, and once more with each of the smallest contexts.
    """
    layers = module.layers(model)
    setting = replace(wanted(item, model, module, most), gpu_layers=layers + 1 if gpus and layers else 0)
    yield setting, ""
    if item.strict:
        return
    yield from _down(setting, item, model, module, gpus)


def _down(
    setting: Setting, item: ModelSpec, model: Model, module: Engine, gpus: tuple[Gpu, ...]
) -> Iterator[Step]:  # fmt: skip
    while not item.context and setting.context // 2 >= USEFUL:
        setting = replace(setting, context=setting.context // 2)
        yield setting, f"context {setting.context}"
    while not item.parallel and setting.parallel > 1:
        setting = replace(setting, parallel=setting.parallel // 2)
        yield setting, f"{setting.parallel} at the same time"
    for kv_type in module.caches(model, gpus) if item.kv_type == "auto" else ():
        setting = replace(setting, kv_type=kv_type)
        yield setting, f"KV cache {kv_type}"
    yield from _offloaded(setting, item, model)
    while not item.context and setting.context // 2 >= SMALLEST:
        setting = replace(setting, context=setting.context // 2)
        yield setting, f"context {setting.context}"
        yield from _offloaded(setting, item, model)


def _offloaded(setting: Setting, item: ModelSpec, model: Model) -> Iterator[Step]:
    """Leave one layer more in RAM at a time; the output is the last that stays on a GPU.

    With the cache that was wanted: a smaller one was worth it only where it would have kept all layers there.
    """
    setting = replace(setting, kv_type=item.kv_type)
    for layers in range(setting.gpu_layers - 1, 0, -1):
        yield replace(setting, gpu_layers=layers), f"{layers - 1} of {model.weights.layers} layers on the GPU"
