"""Ollama: a server that makes models of files and runs llama.cpp; the model is told to it once it runs."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Program, Service, Setting
from appliance.memory import MIB, llama

NAME: Final = "ollama"
HEALTH: Final = "/v1/models/{model}"
"""404 until the model is made; `/api/version` says 200 long before."""
PARALLEL: Final = 4
ADDRESS: Final = "tcp"
FILLS: Final = False
KEPT: Final = True
"""It waits for many connections at once; a new one for each request costs as much as the gateway does."""
ROUTES: Final = (
    "/v1/responses",
    "/v1/messages",
    "/v1/audio/transcriptions",
    "/api/chat",
    "/api/generate",
    "/api/embed",
)
"""What it can be asked beside what every engine can."""
PROCESS: Final = 160 * MIB
"""Bytes of its server and its runner (inferred)."""
ALONE: Final = (
    '"$0" serve & server=$!; '
    "trap 'kill $server' TERM INT; "
    'until "$0" list >/dev/null 2>&1; do kill -0 $server || exit 1; sleep 0.2; done; '
    "printf 'FROM %s\\nPARAMETER num_ctx %s\\nPARAMETER num_gpu %s\\nPARAMETER num_thread %s\\n' "
    '"$2" "$3" "$4" "$5" >"$HOME/Modelfile"; '
    '"$0" create "$1" --file "$HOME/Modelfile" && "$0" run "$1" "" && wait $server; '
    "kill $server; exit 1"
)
"""What makes and loads the model in its own image, where nothing but its own program is: PROGRAM NAME FILE CONTEXT
GPU_LAYERS THREADS."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse what is not one GGUF file, and a machine that it is not installed on."""
    weights = model.weights
    if weights.format != "gguf":
        return f"reads GGUF files only here, {model.name} is {weights.format}"
    parts = sum(file.name.endswith(".gguf") for file in weights.files)
    if parts > 1:
        return f"takes a model in one file, {model.name} is in {parts}"
    if any(one.kind == "program" and one.ref not in dict(host.tools) for one in release.artifacts):
        return "is not installed on this machine, and is in no registry of packages"
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
    """Its runner is llama.cpp's server."""
    return llama.estimate(model.weights, setting, gpus, PROCESS)


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """It takes what it needs and is told nothing."""
    return 0


def program(release: Release, state: str, python: str) -> str:
    """Return the link to the installed program."""
    return f"{state}/engines/ollama-{release.artifacts[0].digest[:16]}/bin/ollama"


def launch(service: Service) -> Launch:
    """Options are its environment variables: `load-timeout` is OLLAMA_LOAD_TIMEOUT."""
    setting = service.setting
    address = f"127.0.0.1:{service.port}"
    quantised = setting.kv_type != "auto"
    settings = {
        "OLLAMA_HOST": address,
        "OLLAMA_MODELS": f"{service.home}/models",
        "OLLAMA_CONTEXT_LENGTH": str(setting.context),
        "OLLAMA_NUM_PARALLEL": str(setting.parallel),
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_KEEP_ALIVE": "-1",
        # The runtime has a limit of its own, made for the size of the weights.
        "OLLAMA_LOAD_TIMEOUT": f"{service.start_timeout}s",
        "OLLAMA_NO_CLOUD": "1",
        **({"OLLAMA_KV_CACHE_TYPE": setting.kv_type, "OLLAMA_FLASH_ATTENTION": "1"} if quantised else {}),
        **({"OLLAMA_SCHED_SPREAD": "1"} if len(service.gpus) > 1 else {}),
        **{f"OLLAMA_{name.replace('-', '_').upper()}": value for name, value in service.options},
    }
    numbers = (str(setting.context), str(setting.gpu_layers), str(service.threads))
    if service.container:
        words = (service.program, service.model, service.weights, *numbers)
        return Launch(argv=("/bin/sh", "-c", ALONE, *words), env=tuple(settings.items()))
    return Launch(
        programs=(
            Program(argv=(service.program, "serve"), ready=f"{address}/api/version"),
            Program(
                argv=(
                    "{python}", "-m", "appliance.system.prepare.ollama", address, service.model, service.weights,
                    *numbers,
                ),
                once=True,
            ),
        ),
        env=tuple(settings.items()),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """What it must know of the model is told to its API."""
    return ()
