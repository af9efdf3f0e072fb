"""llama-cpp-python's server: one request at a time, for those who need its own routes."""

import json
from dataclasses import replace
from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Launch, Load, Model, Release, Service, Setting
from appliance.domain.host import Gpu, Host
from appliance.memory import MIB, llama

NAME: Final = "llama-cpp-python"
HEALTH: Final = "/v1/models"
PARALLEL: Final = 1
ADDRESS: Final = "unix"
FILLS: Final = False
PROCESS: Final = 160 * MIB
"""Bytes of the Python process."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse what is not GGUF."""
    if model.weights.format != "gguf":
        return f"reads GGUF files only, {model.name} is {model.weights.format} ({model.weights.architecture})"
    return None


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    """Everything works everywhere."""
    return None


def spreads(model: Model, most: int) -> tuple[int, ...]:
    """Whole layers go to each GPU, so any number will do."""
    return tuple(range(1, min(most, max(1, model.weights.layers)) + 1))


def caches(model: Model, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """Its settings take numbers of ggml's types, which change: it keeps 16 bits."""
    return ()


def layers(model: Model) -> int:
    """Any number of layers may stay in RAM."""
    return model.weights.layers


def estimate(model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
    """It serves one request at a time, whatever is asked."""
    return llama.estimate(model.weights, replace(setting, parallel=1), gpus, PROCESS)


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """It takes what it needs and is told nothing."""
    return 0


def program(release: Release, state: str, python: str) -> str:
    """Return the environment's Python."""
    return f"{state}/engines/llama-cpp-python-{release.artifacts[0].digest[:16]}/bin/python"


def launch(service: Service) -> Launch:
    """Its command line knows TCP only, so uvicorn is pointed at the socket and the settings come by environment."""
    return Launch(
        argv=(
            service.program, "-m", "uvicorn", "--factory", "llama_cpp.server.app:create_app",
            "--uds", service.socket, "--log-level", "warning",
        ),
        env=(
            ("MODEL", service.weights),
            ("MODEL_ALIAS", service.model),
            ("N_CTX", str(service.setting.context)),
            ("N_THREADS", str(service.threads)),
            ("INTERRUPT_REQUESTS", "false"),
            *_gpus(service),
            *((name.replace("-", "_").upper(), value) for name, value in service.options),
        ),
    )  # fmt: skip


def _gpus(service: Service) -> tuple[tuple[str, str], ...]:
    """The wheels for CUDA bring neither its runtime nor cuBLAS; the environment has them beside its packages."""
    if service.accelerator == "cpu":
        return ()
    even = json.dumps([1] * len(service.gpus), separators=(",", ":"))
    split = (("TENSOR_SPLIT", even),) if len(service.gpus) > 1 else ()
    root = service.program.removesuffix("/bin/python")
    libraries = (("LD_LIBRARY_PATH", f"{root}/lib/nvidia"),) if service.accelerator.startswith("cuda") else ()
    return (("N_GPU_LAYERS", str(service.setting.gpu_layers)), *split, *libraries)


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is in the environment."""
    return ()
