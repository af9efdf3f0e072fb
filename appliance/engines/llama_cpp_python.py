"""llama-cpp-python's server: one request at a time, for those who need its own routes."""

import json
from dataclasses import replace
from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting
from appliance.memory import MIB, llama
from appliance.options import Flag, Flags, refused, said, variables

NAME: Final = "llama-cpp-python"
HEALTH: Final = "/v1/models"
PARALLEL: Final = 1
ADDRESS: Final = "unix"
FILLS: Final = False
LIMITED: Final = True
"""It works on one request; others would hold its threads until it cannot even say how it is."""
NAMELESS: Final = True
"""Its middleware answers 400 to an X-Request-Id that is no UUID."""
PROCESS: Final = 160 * MIB
"""Bytes of the Python process."""

FLAGS: Final[Flags] = {
    "context": said("N_CTX"),
    "batched_tokens": said("N_BATCH"),
    "dtype": refused("the file says how it is computed; take another GGUF file"),
    "quantisation": refused("the file is quantised already; take another GGUF file"),
    "memory_share": refused("it takes what the plan counts; --context makes that less"),
    "eager": refused("there is nothing to be left out"),
    "trust_remote_code": refused("a GGUF file holds no code"),
    "chat_template": refused("it knows templates by name only, --set chat-format=NAME; take llama-cpp"),
    "tool_parser": refused("--set chat-format=NAME says how tools are called; take llama-cpp"),
    "reasoning_parser": refused("thoughts stay in the answer; take llama-cpp"),
    "task": Flag(name="EMBEDDING", values={"embed": ("true",)}, only=True),
    "seed": said("SEED"),
    "pipeline_parallel": refused("whole layers go to each GPU anyway, --gpus says to how many"),
    "adapters": refused("clients cannot ask for one by name; --set lora-path=FILE applies one to every request"),
}
OWNED: Final = {
    "model": "the model's files", "model-alias": "the model's name", "host": "its socket", "port": "its socket",
    "n-threads": "the machine's processors", "api-key": "the gateway stands in front",
    "n-gpu-layers": "the plan; say --gpus", "hf-model-repo-id": "the model's files", "interrupt-requests": "the plan",
    "path": "no setting", "home": "no setting", "pythonpath": "no setting", "ld-preload": "no setting",
    "ld-library-path": "no setting", "ssl-keyfile": "the gateway stands in front",
    "ssl-certfile": "the gateway stands in front",
}  # fmt: skip
"""Settings that the appliance makes itself, or leaves as they are on purpose."""


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
            *variables(FLAGS, service),
            ("N_THREADS", str(service.threads)),
            ("INTERRUPT_REQUESTS", "false"),
            *_gpus(service),
        ),
    )  # fmt: skip


def _gpus(service: Service) -> tuple[tuple[str, str], ...]:
    """The wheels for CUDA bring neither its runtime nor cuBLAS; the environment has them beside its packages."""
    if service.accelerator == "cpu":
        return ()
    even = json.dumps([1] * len(service.gpus), separators=(",", ":"))
    split = (("TENSOR_SPLIT", even),) if len(service.gpus) > 1 else ()
    root = service.program.removesuffix("/bin/python")
    # An image has them where its loader looks.
    outside = service.accelerator.startswith("cuda") and not service.container
    libraries = (("LD_LIBRARY_PATH", f"{root}/lib/nvidia"),) if outside else ()
    return (("N_GPU_LAYERS", str(service.setting.gpu_layers)), *split, *libraries)


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is in the environment."""
    return ()
