"""FastChat: a controller, a worker and an API server, for those who still depend on it; no release since 2024."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Program, Service, Setting
from appliance.memory import MIB, eager

NAME: Final = "fastchat"
HEALTH: Final = "/openapi.json"
"""Not `/v1/models`, for which it asks the worker each time and answers with an empty list when that is busy."""
PARALLEL: Final = 1
ADDRESS: Final = "tcp"
FILLS: Final = False
PROCESSES: Final = 640 * MIB
"""Bytes of three Python processes, one with PyTorch: seen with a model of 3 MB, a quarter on top."""
CHATML: Final = ("Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM")
"""Architectures whose conversations its template `qwen-7b-chat` writes."""
PLAIN: Final = ("bfloat16", "float16", "float32")
"""Types of weights that need no other library."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse what it would misread: it never looks at a model's own template and guesses from a directory's name."""
    weights = model.weights
    if weights.format != "safetensors":
        return f"reads safetensors only, {model.name} is {weights.format}"
    if weights.quantisation not in PLAIN:
        return f"is set up for plain weights only here, {model.name} is {weights.quantisation}"
    if weights.architecture not in CHATML:
        return f"has no template for {weights.architecture}: it knows those of 2024, and would guess another"
    return None


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    """Everything that it is let serve works everywhere, in 16 bits of one kind or the other."""
    return None


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
    """Return the environment's Python."""
    return f"{state}/engines/fastchat-{release.artifacts[0].digest[:16]}/bin/python"


def launch(service: Service) -> Launch:
    """The API server comes last, so that whoever is answered finds the model there."""
    controller, worker = ("http://127.0.0.1:{port:controller}", "http://127.0.0.1:{port:worker}")
    serve = (service.program, "-m")
    return Launch(
        programs=(
            Program(
                argv=(*serve, "fastchat.serve.controller", "--host", "127.0.0.1", "--port", "{port:controller}"),
                ready="127.0.0.1:{port:controller}/test_connection",
            ),
            Program(
                argv=(
                    *serve, "fastchat.serve.model_worker", "--host", "127.0.0.1", "--port", "{port:worker}",
                    "--controller-address", controller, "--worker-address", worker,
                    "--model-path", service.weights, "--model-names", service.model,
                    "--conv-template", "qwen-7b-chat",
                    "--limit-worker-concurrency", str(service.setting.parallel),
                    *_device(service),
                    *(word for name, value in service.options for word in (f"--{name}", value) if word),
                ),
                ready="127.0.0.1:{port:worker}/openapi.json",
            ),
            Program(
                argv=(
                    *serve, "fastchat.serve.openai_api_server", "--host", "127.0.0.1", "--port", str(service.port),
                    "--controller-address", controller,
                ),
            ),
        ),
        # Empty: it writes log files into its working directory otherwise.
        env=(("LOGDIR", ""),),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command lines."""
    return ()


def _device(service: Service) -> tuple[str, ...]:
    if service.accelerator == "cpu":
        return ("--device", "cpu")
    dtype = "float16" if service.setting.dtype == "half" else "bfloat16"
    return ("--device", "cuda", "--num-gpus", str(len(service.gpus)), "--dtype", dtype)
