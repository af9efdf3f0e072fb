"""Text Embeddings Inference: embeddings and reranking, from an image made for one kind of GPU."""

from dataclasses import replace
from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting
from appliance.memory import GIB, MIB, torch

NAME: Final = "tei"
HEALTH: Final = "/health"
METRICS: Final = "/metrics"
PARALLEL: Final = 1
ADDRESS: Final = "tcp"
FILLS: Final = False
KEPT: Final = True
"""It waits for many connections at once; a new one for each request costs as much as the gateway does."""
ROUTES: Final = {"/v1/rerank": "/rerank"}
"""Its own path for it."""
BATCH: Final = 16384
"""Tokens that are computed at once, its own default."""
PROCESS: Final = GIB
"""Bytes of RAM beside the model (inferred)."""
KNOWN: Final = (
    "Bert", "XLMRoberta", "Roberta", "Camembert", "Jina", "Nomic", "New", "Gte", "ModernBert", "MPNet", "DistilBert",
    "DebertaV2", "Gemma3Text", "Mistral", "Qwen2", "Qwen3",
)  # fmt: skip
"""Beginnings of the architectures that it computes."""
GPU_ONLY: Final = ("Mistral", "Qwen2Model", "Qwen2For")
"""Those of them that its build for the CPU refuses."""
POOLING: Final = "1_Pooling/config.json"
"""File of a model that tells how the vectors of its tokens become one."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse models that chat, those that it does not know, and those that do not say how their vectors are made."""
    weights = model.weights
    if weights.format != "safetensors":
        return f"reads safetensors only, {model.name} is {weights.format}"
    pools = any(file.name == POOLING for file in weights.files)
    if not pools and weights.architecture.endswith(("ForCausalLM", "ForConditionalGeneration")):
        return f"computes embeddings and ranks, it does not chat: {model.name} is {weights.architecture}"
    if not weights.architecture.startswith(KNOWN):
        return f"does not know {weights.architecture}"
    if release.accelerator == "cpu" and weights.architecture.startswith(GPU_ONLY):
        return f"computes {weights.architecture} on GPUs only"
    if not pools and not weights.architecture.endswith("ForSequenceClassification"):
        # It would take the first token's vector without a word, which for most models is wrong.
        return f"{model.name} comes without {POOLING}, and it would guess"
    return None


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    """Its images are each for one kind of GPU, which the catalog knows."""
    return None


def spreads(model: Model, most: int) -> tuple[int, ...]:
    """One GPU for each replica."""
    return (1,)


def caches(model: Model, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """It has no cache."""
    return ()


def layers(model: Model) -> int:
    """All layers lie on the GPU."""
    return 0


def estimate(model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
    """It keeps nothing of a request; a whole batch is computed at once. On the CPU that is in 32 bits."""
    wide = 1 if gpus else 2
    items = (
        ("weights", torch.weights_on_rank(model.weights, replace(setting, tensor_parallel=1)) * wide),
        ("activations", torch.activations(model.weights, BATCH, 0, 1) * wide),
    )
    if not gpus:
        return (Load(device="ram", items=(*items, ("process", PROCESS))),)
    ram = Load(device="ram", items=(("process", PROCESS),))
    return (ram, *(Load(device=gpu.device, items=(*items, ("libraries", 600 * MIB))) for gpu in gpus))


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """It takes what it needs and is told nothing."""
    return 0


def program(release: Release, state: str, python: str) -> str:
    """Return its path in the image: the entry point, which takes all words as they are."""
    return "text-embeddings-router"


def launch(service: Service) -> Launch:
    """Everything that the plan has decided is said."""
    dtype = "float32" if service.accelerator == "cpu" else "float16"
    return Launch(
        argv=(
            service.program, "--json-output",
            "--model-id", service.weights,
            "--served-model-name", service.model,
            "--hostname", "127.0.0.1", "--port", str(service.port),
            "--dtype", dtype,
            "--max-batch-tokens", str(BATCH),
            *(word for name, value in service.options for word in (f"--{name}", value) if word),
        ),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command line."""
    return ()
