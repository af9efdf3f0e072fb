"""Xinference: its server and its transformers engine in one environment; the model is registered once it runs."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Program, Service, Setting
from appliance.memory import GIB, eager, torch

NAME: Final = "xinference"
HEALTH: Final = "/v1/models/{model}"
"""400 until the model is loaded; `/status` says 200 long before."""
METRICS: Final = "/metrics"
PARALLEL: Final = 1
ADDRESS: Final = "tcp"
FILLS: Final = False
ROUTES: Final = (
    "/v1/messages",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/speech",
    "/v1/images/generations",
)
"""What it can be asked beside what every engine can."""
PROCESSES: Final = 2 * GIB
"""Bytes of its server, its pool and the model's process: 1.5 GiB seen with a model of 3 MB, a third on top."""
PLAIN: Final = ("bfloat16", "float16", "float32")
"""Types of weights that need no other library."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse what its transformers engine does not read, and what has no way to write a conversation."""
    weights = model.weights
    if weights.format != "safetensors":
        return f"reads safetensors only, {model.name} is {weights.format}"
    if weights.quantisation not in PLAIN:
        return f"is set up for plain weights only here, {model.name} is {weights.quantisation}"
    if not weights.architecture.endswith("ForCausalLM"):
        return f"is set up for text models only here, {model.name} is {weights.architecture}"
    return None


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    """Refuse types that old GPUs cannot compute with."""
    return torch.too_old(model.weights, gpus, ("Gemma2", "Gemma3"), {})


def spreads(model: Model, most: int) -> tuple[int, ...]:
    """Whole layers go to each GPU."""
    return tuple(range(1, min(most, max(1, model.weights.layers)) + 1))


def caches(model: Model, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """It keeps the type that it computes in."""
    return ()


def layers(model: Model) -> int:
    """All layers lie on GPUs."""
    return 0


def estimate(model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
    """On the CPU it computes in 32 bits."""
    return eager.estimate(model.weights, setting, gpus, PROCESSES, widened=1 if gpus else 2)


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """It takes what it needs and is told nothing."""
    return 0


def program(release: Release, state: str, python: str) -> str:
    """Return its command in the environment."""
    return f"{state}/engines/xinference-{release.artifacts[0].digest[:16]}/bin/xinference-local"


def launch(service: Service) -> Launch:
    """Nothing is downloaded, and no accounts are kept: the gateway has the keys."""
    address = f"127.0.0.1:{service.port}"
    return Launch(
        programs=(
            Program(
                argv=(service.program, "-H", "127.0.0.1", "-p", str(service.port), "--log-level", "warning"),
                ready=f"{address}/status",
            ),
            Program(
                argv=(
                    "{python}", "-m", "appliance.system.prepare.xinference", address, service.model, service.weights,
                    str(service.setting.context), str(service.setting.parallel), str(len(service.gpus)),
                    *(word for pair in service.options for word in pair),
                ),
                once=True,
            ),
        ),
        env=(
            ("XINFERENCE_HOME", f"{service.home}/xinference"), ("XINFERENCE_AUTH_ADVANCED", "0"),
            ("XINFERENCE_ENABLE_VIRTUAL_ENV", "0"), ("XINFERENCE_VIRTUAL_ENV_OFFLINE_INSTALL", "1"),
            ("XINFERENCE_MODEL_SRC", "huggingface"), ("XINFERENCE_TRUST_REMOTE_CODE", "0"),
        ),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """What it must know of the model is told to its API."""
    return ()
