"""llama.cpp's own server: parallel slots, metrics, a unix socket; built from the pinned source."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Launch, Load, Model, Release, Service, Setting
from appliance.domain.host import Gpu, Host
from appliance.memory import MIB, llama

NAME: Final = "llama-cpp"
HEALTH: Final = "/health"
PARALLEL: Final = 4
ADDRESS: Final = "unix"
FILLS: Final = False
PROCESS: Final = 48 * MIB
"""Bytes of the program itself; a 3 MB model was seen to take 25 MB in all."""


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
    """Half the size first: a quarter is felt in the answers."""
    return ("q8_0", "q4_0")


def layers(model: Model) -> int:
    """Any number of layers may stay in RAM."""
    return model.weights.layers


def estimate(model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
    """Weights are mapped whole; the KV cache is reserved for all slots at start."""
    return llama.estimate(model.weights, setting, gpus, PROCESS)


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """It takes what it needs and is told nothing."""
    return 0


def program(release: Release, state: str, python: str) -> str:
    """Return the built server's path."""
    return f"{state}/engines/llama-cpp-{release.artifacts[0].digest[:16]}/bin/llama-server"


def launch(service: Service) -> Launch:
    """One context of `context` tokens for each slot; the server divides `--ctx-size` among them."""
    setting = service.setting
    return Launch(
        argv=(
            service.program,
            "--model", service.weights,
            "--alias", service.model,
            "--host", service.socket,
            "--ctx-size", str(setting.context * setting.parallel),
            "--parallel", str(setting.parallel),
            "--threads", str(service.threads),
            "--jinja", "--metrics", "--no-webui", "--offline",
            # Its default keeps 8 GiB of old prompts, which no memory plan knows of.
            "--cache-ram", "0",
            *_cache(setting),
            *_gpus(service),
            *(word for name, value in service.options for word in (f"--{name}", value) if word),
        ),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command line."""
    return ()


def _cache(setting: Setting) -> tuple[str, ...]:
    """A quantised V needs flash attention, which is else used only where the GPU is known to be fast with it."""
    if setting.kv_type == "auto":
        return ()
    return ("--cache-type-k", setting.kv_type, "--cache-type-v", setting.kv_type, "--flash-attn", "on")


def _gpus(service: Service) -> tuple[str, ...]:
    """The plan has done the fitting; the server's own would change it behind our back."""
    if service.accelerator == "cpu":
        return ()
    even = ("--tensor-split", ",".join("1" for _ in service.gpus)) if len(service.gpus) > 1 else ()
    return ("--gpu-layers", str(service.setting.gpu_layers), "--split-mode", "layer", *even, "--fit", "off")
