"""SGLang: a prefix cache shared by all requests, tensor parallel; it knows TCP ports only."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting
from appliance.domain.version import version
from appliance.memory import GIB, MIB, torch
from appliance.options import Flag, Flags, said, words

NAME: Final = "sglang"
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
    "/v1/score",
    "/v1/audio/transcriptions",
)
"""What it can be asked beside what every engine can."""
MODELSCOPE: Final = "SGLANG_USE_MODELSCOPE"
FLAGS: Final[Flags] = {
    "context": said("--context-length"),
    "dtype": said("--dtype"),
    "kv_type": said("--kv-cache-dtype", fp8=("--kv-cache-dtype", "fp8_e4m3")),
    "gpus": said("--tp-size"),
    "pipeline_parallel": said("--pp-size"),
    "memory_share": said("--mem-fraction-static"),
    "parallel": said("--max-running-requests"),
    "batched_tokens": said("--chunked-prefill-size"),
    "quantisation": said("--quantization"),
    "eager": said("--disable-cuda-graph"),
    "trust_remote_code": said("--trust-remote-code"),
    "chat_template": said("--chat-template"),
    "tool_parser": said("--tool-call-parser"),
    "reasoning_parser": said("--reasoning-parser"),
    "task": Flag(values={"embed": ("--is-embedding",), "rerank": ("--is-embedding",), "transcribe": ()}),
    "seed": said("--random-seed"),
    "adapters": said("--lora-paths", "--enable-lora"),
}
OWNED: Final = {
    "model-path": "the model's files", "served-model-name": "the model's name", "host": "its port", "port": "its port",
    "api-key": "the gateway stands in front", "admin-api-key": "the gateway stands in front",
    "config": "its flags would override the plan's", "enable-metrics": "always on", "dp-size": "say --replicas",
}  # fmt: skip
"""Flags that the appliance sets, or leaves unset on purpose."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse what is not safetensors."""
    if model.weights.format != "safetensors":
        return f"reads safetensors only here, {model.name} is {model.weights.format}"
    return None


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    """Refuse types that old GPUs cannot compute with."""
    return torch.too_old(model.weights, gpus, ("Gemma2", "Gemma3"), {"mxfp4": "8.0", "fp8": "8.9"})


def spreads(model: Model, most: int) -> tuple[int, ...]:
    """Every GPU keeps a part of each layer, so the heads must divide."""
    return tuple(ranks for ranks in range(1, most + 1) if torch.divides(model.weights, ranks))


def caches(model: Model, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """8-bit floats where every GPU computes with them."""
    return ("fp8",) if gpus and all(version(gpu.compute_capability) >= (8, 9) for gpu in gpus) else ()


def layers(model: Model) -> int:
    """All layers lie on GPUs."""
    return 0


def estimate(model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
    """What it keeps free for its graphs and activations is its own formula (0.5.23)."""
    weights, ranks = model.weights, setting.tensor_parallel
    chunk, graphs = _defaults(gpus[0], ranks)
    chunk = setting.batched_tokens or chunk
    reserved = (512 + 3 * max(chunk, 2048) // 2 + 128 * len(gpus) + 2 * graphs) * MIB
    if (gpus[0].memory or 0) > 60 * GIB:
        reserved = max(reserved, 10240 * MIB)
    items = (
        ("weights", torch.weights_on_rank(weights, setting)),
        ("KV cache", torch.cache(weights, setting, chunk, block=1)),
        ("activations", reserved),
        ("libraries", torch.overhead(len(gpus))),
    )
    ram = Load(device="ram", items=(("processes", torch.PROCESS * len(gpus)),))
    return (ram, *(Load(device=gpu.device, items=items) for gpu in gpus))


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """Its flag is the part that weights and cache take of what is free when it starts."""
    amounts = dict(load.items)
    free = memory if gpu.memory_free is None else min(memory, gpu.memory_free)
    return (amounts["weights"] + amounts["KV cache"]) / max(1, free)


def program(release: Release, state: str, python: str) -> str:
    """Return the environment's Python."""
    return f"{state}/engines/sglang-{release.artifacts[0].digest[:16]}/bin/python"


def launch(service: Service) -> Launch:
    """Everything that the plan has decided is said."""
    return Launch(
        argv=(
            service.program, "-m", "sglang.launch_server",
            "--model-path", service.weights,
            "--served-model-name", service.model,
            "--host", "127.0.0.1", "--port", str(service.port),
            "--enable-metrics",
            *words(FLAGS, service),
        ),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command line."""
    return ()


def _defaults(gpu: Gpu, ranks: int) -> tuple[int, int]:
    """Return the prompt tokens of one step and the largest batch with a CUDA graph on such a GPU."""
    memory = gpu.memory or 0
    small = ranks < 4
    for bound, chunk, graphs in ((20, 2048, 8), (35, 4096, 48 if small else 160), (60, 4096, 32 if small else 160)):
        if memory < bound * GIB:
            return chunk, graphs
    return (8192, 256 if small else 512) if memory < 160 * GIB else (16384, 512)
