"""llama.cpp's own server: parallel slots, metrics, a unix socket; built from the pinned source."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting
from appliance.memory import MIB, llama
from appliance.options import Flag, Flags, own, refused, said, uniform

NAME: Final = "llama-cpp"
HEALTH: Final = "/health"
METRICS: Final = "/metrics"
PARALLEL: Final = 4
ADDRESS: Final = "unix"
FILLS: Final = False
ROUTES: Final = (
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/audio/transcriptions",
    "/tokenize",
    "/detokenize",
)
"""What it can be asked beside what every engine can."""
PROCESS: Final = 48 * MIB
"""Bytes of the program itself; a 3 MB model was seen to take 25 MB in all."""

CACHES: Final = ("q8_0", "q4_0")
"""Half the size first: a quarter is felt in the answers."""


def _cache(kind: str) -> tuple[str, ...]:
    return ("--cache-type-k", kind, "--cache-type-v", kind, "--flash-attn", "on")


FLAGS: Final[Flags] = {
    "context": said("--ctx-size"),
    "parallel": said("--parallel"),
    # A quantised V needs flash attention, which is else used only where the GPU is known to be fast with it.
    "kv_type": Flag(name="--cache-type-k", values={"auto": ()} | {one: _cache(one) for one in CACHES}),
    "batched_tokens": said("--batch-size"),
    "dtype": refused("the file says how it is computed; take another GGUF file"),
    "quantisation": refused("the file is quantised already; take another GGUF file"),
    "memory_share": refused("it takes what the plan counts; --context, --parallel and --kv-type make that less"),
    "eager": refused("there is nothing to be left out; --set no-warmup= makes it start sooner"),
    "trust_remote_code": refused("a GGUF file holds no code"),
    "chat_template": said("--chat-template-file"),
    "tool_parser": refused("the chat template says how tools are called"),
    "reasoning_parser": refused("it knows thoughts by the chat template; --set reasoning-format=none leaves them in"),
    "task": Flag(values={"embed": ("--embeddings",), "rerank": ("--rerank",)}),
    "seed": said("--seed"),
    "pipeline_parallel": refused("whole layers go to each GPU anyway, --gpus says to how many"),
    "adapters": refused("clients cannot ask for one by name; --set lora=FILE applies one to every request"),
}
OWNED: Final = {
    "model": "the model's files", "alias": "the model's name", "host": "its socket", "port": "its socket",
    "threads": "the machine's processors", "api-key": "the gateway stands in front", "gpu-layers": "say --gpus",
    "api-key-file": "the gateway stands in front", "split-mode": "the plan; say --gpus", "fit": "the plan has done it",
    "tensor-split": "the plan; say --gpus", "cache-type-v": "say --kv-type",
    "hf-repo": "the model's files", "hf-file": "the model's files", "model-url": "the model's files",
    "cache-ram": "no memory plan knows of it", "device": "the plan; say --gpus", "models-dir": "add-model adds more",
    "ssl-key-file": "the gateway stands in front", "ssl-cert-file": "the gateway stands in front",
}  # fmt: skip
"""Flags that the appliance sets, or leaves unset on purpose."""


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
    """Those that the memory estimate knows."""
    return CACHES


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
            *uniform(FLAGS, service, context=setting.context * setting.parallel, parallel=str(setting.parallel)),
            "--threads", str(service.threads),
            "--jinja", "--metrics", "--no-webui", "--offline",
            # Its default keeps 8 GiB of old prompts, which no memory plan knows of.
            "--cache-ram", "0",
            *_gpus(service),
            *own(service),
        ),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command line."""
    return ()


def _gpus(service: Service) -> tuple[str, ...]:
    """The plan has done the fitting; the server's own would change it behind our back."""
    if service.accelerator == "cpu":
        return ()
    even = ("--tensor-split", ",".join("1" for _ in service.gpus)) if len(service.gpus) > 1 else ()
    return ("--gpu-layers", str(service.setting.gpu_layers), "--split-mode", "layer", *even, "--fit", "off")
