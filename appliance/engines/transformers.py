"""transformers' own server: slower than all others, and knows nearly every architecture; it knows TCP ports only."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting
from appliance.memory import MIB, torch
from appliance.options import Flag, Flags, refused, said, words

NAME: Final = "transformers"
HEALTH: Final = "/health"
PARALLEL: Final = 1
ADDRESS: Final = "tcp"
FILLS: Final = False
KEPT: Final = True
"""It waits for many connections at once; a new one for each request costs as much as the gateway does."""
ROUTES: Final = (
    "/v1/responses",
    "/v1/audio/transcriptions",
)
"""What it can be asked beside what every engine can."""
PROCESS: Final = 1024 * MIB
"""Bytes of RAM for Python, torch and the server; with a model of 3 MB they were seen to take 895 MiB."""
PROMPT: Final = 2048
"""Prompt tokens whose intermediate results are counted; a longer prompt is computed at once all the same (inferred)."""
WHOLE: Final = ("bfloat16", "float16", "float32")
"""Types of weights that torch computes with by itself."""
FLAGS: Final[Flags] = {
    "context": refused("the cache grows with what is asked, up to what the model was trained for"),
    "dtype": said("--dtype"),
    "quantisation": refused("bitsandbytes is not among its packages; take a model that is quantised already"),
    "batched_tokens": refused("a prompt is computed at once"),
    "memory_share": refused("it takes what it needs, and is told nothing"),
    "eager": refused("nothing else is done, unless --set compile= asks for it"),
    "trust_remote_code": said("--trust-remote-code"),
    "chat_template": refused("it takes the model's own; lay the file beside the weights as chat_template.jinja"),
    "tool_parser": refused("the chat template says how tools are called"),
    "reasoning_parser": refused("thoughts stay in the answer; --set reasoning=off asks for none"),
    "task": Flag(values={"transcribe": ()}),
    "seed": said("--default-seed"),
    "pipeline_parallel": refused("it uses one GPU here; take vllm or sglang"),
    "adapters": refused("take vllm, sglang or lmdeploy"),
}
OWNED: Final = {
    "host": "its port", "port": "its port", "device": "the plan; say --gpus", "model-timeout": "the model stays loaded",
    "enable-cors": "the gateway stands in front", "continuous-batching": "its memory is not known to the plan",
}  # fmt: skip
"""Flags that the appliance sets, or leaves unset on purpose."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse what is not safetensors, and what needs packages that are not among its own."""
    weights = model.weights
    if weights.format != "safetensors":
        return f"reads safetensors only here, {model.name} is {weights.format}"
    if weights.quantisation not in WHOLE:
        return f"has no kernels for {weights.quantisation} beside it, and would unpack the weights"
    return None


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    """Everything works everywhere."""
    return None


def spreads(model: Model, most: int) -> tuple[int, ...]:
    """One GPU holds it all."""
    return (1,) if most else ()


def caches(model: Model, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """Its cache has the type of the weights."""
    return ()


def layers(model: Model) -> int:
    """All layers lie on the GPU, or all in RAM."""
    return 0


def estimate(model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
    """Return what one request of the whole context takes: it serves one after the other."""
    items = (
        ("weights", torch.weights_on_rank(model.weights, setting)),
        ("KV cache", torch.cache(model.weights, setting, PROMPT, block=1)),
        ("activations", torch.activations(model.weights, PROMPT, 1, 1)),
    )
    if not gpus:
        return (Load(device="ram", items=(*items, ("process", PROCESS))),)
    on_gpu = Load(device=gpus[0].device, items=(*items, ("libraries", torch.overhead(1))))
    return (Load(device="ram", items=(("process", torch.PROCESS),)), on_gpu)


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """It takes what it needs and is told nothing."""
    return 0


def program(release: Release, state: str, python: str) -> str:
    """Return its command in the environment."""
    return f"{state}/engines/transformers-{release.artifacts[0].digest[:16]}/bin/transformers"


def launch(service: Service) -> Launch:
    """One model is loaded at start and stays; everything else is refused by the server itself."""
    return Launch(
        argv=(
            service.program, "serve", service.weights,
            "--host", "127.0.0.1", "--port", str(service.port),
            "--device", "cuda:0" if service.gpus else "cpu",
            *words(FLAGS, service),
        ),
        env=(
            ("HF_HUB_DISABLE_TELEMETRY", "1"), ("OMP_NUM_THREADS", str(service.threads)),
        ),
    )  # fmt: skip


def upstream(service: Service) -> str:
    """It refuses any name but the path that it was started with."""
    return service.weights


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command line."""
    return ()
