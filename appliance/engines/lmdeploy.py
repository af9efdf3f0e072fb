"""LMDeploy: TurboMind's kernels, also for GPUs as old as V100; it knows TCP ports only."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Launch, Load, Model, Release, Service, Setting
from appliance.domain.host import Gpu, Host
from appliance.memory import torch

NAME: Final = "lmdeploy"
HEALTH: Final = "/health"
PARALLEL: Final = 1
ADDRESS: Final = "tcp"
FILLS: Final = True
PREFILL: Final = 8192
"""Prompt tokens of one step."""
BATCH: Final = 256
"""Requests at a time, on GPUs of more than 40 GiB; the estimate is on the safe side for smaller ones."""
POLICY: Final = {"auto": "0", "int8": "8", "int4": "4"}
"""Cache type -> what `--quant-policy` calls it."""
UNKNOWN: Final = ("Qwen4Exp", "KimiK3", "MiniMaxM3", "Gemma4", "DeepseekV41", "Mamba", "GraniteMoeHybrid", "FalconH1")
"""Beginnings of architectures that neither of its backends knows."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse what is not safetensors, and architectures that it does not know."""
    weights = model.weights
    if weights.format != "safetensors":
        return f"reads safetensors only, {model.name} is {weights.format}"
    if weights.architecture.startswith(UNKNOWN):
        return f"does not know {weights.architecture}"
    return None


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    """Refuse types that old GPUs cannot compute with; its kernels convert MXFP4 on all that it has code for."""
    return torch.too_old(model.weights, gpus, ("Gemma2", "Gemma3"), {"fp8": "8.9"})


def spreads(model: Model, most: int) -> tuple[int, ...]:
    """TurboMind divides by powers of two."""
    return tuple(ranks for ranks in (1, 2, 4, 8, 16) if ranks <= most and torch.divides(model.weights, ranks))


def caches(model: Model, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """Its own integer types work on every GPU that it runs on."""
    return ("int8", "int4")


def layers(model: Model) -> int:
    """All layers lie on GPUs."""
    return 0


def estimate(model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
    """Every GPU takes the same; what a step computes in is its own formula."""
    weights, ranks = model.weights, setting.tensor_parallel
    items = (
        ("weights", torch.weights_on_rank(weights, ranks)),
        ("KV cache", torch.cache(weights, setting, PREFILL, block=64)),
        ("activations", (PREFILL + 2 * BATCH) * weights.vocabulary * 2 // ranks),
        ("libraries", torch.overhead(ranks)),
    )
    ram = Load(device="ram", items=(("processes", torch.PROCESS * ranks),))
    return (ram, *(Load(device=gpu.device, items=items) for gpu in gpus))


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """Its flag is the cache's part of what is free once the weights are there."""
    amounts = dict(load.items)
    free = (memory if gpu.memory_free is None else min(memory, gpu.memory_free)) - amounts["weights"]
    return amounts["KV cache"] / max(1, free - amounts["libraries"])


def program(release: Release, state: str, python: str) -> str:
    """Return its command in the environment."""
    return f"{state}/engines/lmdeploy-{release.artifacts[0].digest[:16]}/bin/lmdeploy"


def launch(service: Service) -> Launch:
    """Everything that the plan has decided is said."""
    setting = service.setting
    return Launch(
        argv=(
            service.program, "serve", "api_server", service.weights,
            "--model-name", service.model,
            "--server-name", "127.0.0.1", "--server-port", str(service.port),
            "--session-len", str(setting.context),
            "--tp", str(setting.tensor_parallel),
            "--cache-max-entry-count", f"{setting.memory_share:.3f}",
            "--quant-policy", POLICY[setting.kv_type],
            *(("--dtype", "float16") if setting.dtype == "half" else ()),
            *(("--max-batch-size", str(setting.parallel)) if setting.parallel > 1 else ()),
            *(word for name, value in service.options for word in (f"--{name}", value) if word),
        ),
        env=(("HF_HUB_OFFLINE", "1"),),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command line."""
    return ()
