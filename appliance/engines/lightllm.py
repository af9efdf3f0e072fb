"""LightLLM: a scheduler by tokens for GPUs of one machine, from its own image only."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting
from appliance.memory import torch

NAME: Final = "lightllm"
HEALTH: Final = "/liveness"
"""Not `/health`, for which it generates a token each time."""
METRICS: Final = "/metrics"
PARALLEL: Final = 1
ADDRESS: Final = "tcp"
FILLS: Final = True
ROUTES: Final = (
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
)
"""What it can be asked beside what every engine can."""
BATCH: Final = 8192
"""Prompt tokens of one step; said, so that no default changes it."""
TYPES: Final = {"int8": "int8kv", "int4": "int4kv"}
"""Cache type -> what its flag calls it."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse what is not a text model in safetensors, and what keeps no cache by tokens: it computes no embeddings."""
    weights = model.weights
    if weights.format != "safetensors":
        return f"reads safetensors only, {model.name} is {weights.format}"
    if not weights.architecture.endswith(("ForCausalLM", "ForConditionalGeneration")):
        return f"generates text only, {model.name} is {weights.architecture}"
    return None


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    """Refuse types that old GPUs cannot compute with (inferred: as in SGLang, whose kernels it uses)."""
    return torch.too_old(model.weights, gpus, ("Gemma2", "Gemma3"), {"mxfp4": "8.0", "fp8": "8.9"})


def spreads(model: Model, most: int) -> tuple[int, ...]:
    """Every GPU keeps a part of each layer, so the heads must divide."""
    return tuple(ranks for ranks in range(1, most + 1) if torch.divides(model.weights, ranks))


def caches(model: Model, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """Its own integer types; its 8-bit floats need scales that come with few models."""
    return ("int8", "int4")


def layers(model: Model) -> int:
    """All layers lie on GPUs."""
    return 0


def estimate(model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
    """Every GPU takes the same; its cache is counted by single tokens."""
    weights, ranks = model.weights, setting.tensor_parallel
    items = (
        ("weights", torch.weights_on_rank(weights, setting)),
        ("KV cache", torch.cache(weights, setting, BATCH, block=1)),
        ("activations", torch.activations(weights, BATCH, 256, ranks)),
        ("libraries", torch.overhead(ranks)),
    )
    ram = Load(device="ram", items=(("processes", torch.PROCESS * ranks),))
    return (ram, *(Load(device=gpu.device, items=items) for gpu in gpus))


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """Its flag is the part of the GPU's total that weights and cache take."""
    amounts = dict(load.items)
    return (amounts["weights"] + amounts["KV cache"]) / memory


def program(release: Release, state: str, python: str) -> str:
    """Return the image's Python: it has no entry point."""
    return "python"


def launch(service: Service) -> Launch:
    """Everything that the plan has decided is said."""
    setting = service.setting
    return Launch(
        argv=(
            service.program, "-m", "lightllm.server.api_server",
            "--model_dir", service.weights,
            "--model_name", service.model,
            "--host", "127.0.0.1", "--port", str(service.port),
            "--tp", str(setting.tensor_parallel),
            "--max_req_total_len", str(setting.context),
            "--mem_fraction", f"{setting.memory_share:.3f}",
            "--batch_max_tokens", str(BATCH),
            "--data_type", "float16" if setting.dtype == "half" else "bfloat16",
            *(("--llm_kv_type", TYPES[setting.kv_type]) if setting.kv_type != "auto" else ()),
            *(("--running_max_req_size", str(setting.parallel)) if setting.parallel > 1 else ()),
            *(word for name, value in service.options for word in (f"--{name}", value) if word),
        ),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command line."""
    return ()
