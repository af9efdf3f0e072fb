"""LMDeploy: TurboMind's kernels, also for GPUs as old as V100; it knows TCP ports only."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting
from appliance.memory import torch
from appliance.options import Flag, Flags, refused, said, words

NAME: Final = "lmdeploy"
HEALTH: Final = "/health"
METRICS: Final = "/metrics"
PARALLEL: Final = 1
ADDRESS: Final = "tcp"
FILLS: Final = True
KEPT: Final = True
"""It waits for many connections at once; a new one for each request costs as much as the gateway does."""
ROUTES: Final = (
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
)
"""What it can be asked beside what every engine can."""
MODELSCOPE: Final = "LMDEPLOY_USE_MODELSCOPE"
PREFILL: Final = 8192
"""Prompt tokens of one step."""
BATCH: Final = 256
"""Requests at a time, on GPUs of more than 40 GiB; the estimate is on the safe side for smaller ones."""
PYTORCH: Final = ("--backend", "pytorch")
"""The one of its two backends that knows more than TurboMind, and is slower."""
FLAGS: Final[Flags] = {
    "context": said("--session-len"),
    "gpus": said("--tp"),
    "memory_share": said("--cache-max-entry-count"),
    "kv_type": Flag(
        name="--quant-policy",
        values={one: ("--quant-policy", policy) for one, policy in (("auto", "0"), ("int8", "8"), ("int4", "4"))},
    ),
    "dtype": said("--dtype", auto=(), half=("--dtype", "float16")),
    "parallel": said("--max-batch-size"),
    "batched_tokens": said("--max-prefill-token-num"),
    "quantisation": said("--model-format"),
    "eager": said("--eager-mode", *PYTORCH),
    "trust_remote_code": said("--trust-remote-code"),
    "chat_template": said("--chat-template"),
    "tool_parser": said("--tool-call-parser"),
    "reasoning_parser": said("--reasoning-parser"),
    "task": refused("it serves chat and completions here; take vllm or sglang, or llama-cpp with a GGUF file"),
    "seed": refused("each request may carry its own, `seed`"),
    "pipeline_parallel": refused("it shares layers only, --gpus says among how many; take vllm or sglang"),
    "adapters": said("--adapters", *PYTORCH),
}
OWNED: Final = {
    "model-name": "the model's name", "server-name": "its port", "server-port": "its port",
    "api-keys": "the gateway stands in front", "dp": "say --replicas", "ssl": "the gateway stands in front",
}  # fmt: skip
"""Flags that the appliance sets, or leaves unset on purpose."""
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
    weights, ranks, prefill = model.weights, setting.tensor_parallel, setting.batched_tokens or PREFILL
    items = (
        ("weights", torch.weights_on_rank(weights, setting)),
        ("KV cache", torch.cache(weights, setting, prefill, block=64)),
        ("activations", (prefill + 2 * BATCH) * weights.vocabulary * 2 // ranks),
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
    return Launch(
        argv=(
            service.program, "serve", "api_server", service.weights,
            "--model-name", service.model,
            "--server-name", "127.0.0.1", "--server-port", str(service.port),
            *words(FLAGS, service),
        ),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command line."""
    return ()
