"""vLLM: one paged cache for all requests, tensor parallel, a unix socket."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting
from appliance.domain.version import version
from appliance.memory import GIB, MIB, rounded, torch, vllm
from appliance.options import Flag, Flags, said, words

NAME: Final = "vllm"
HEALTH: Final = "/health"
METRICS: Final = "/metrics"
PARALLEL: Final = 1
ADDRESS: Final = "unix"
FILLS: Final = True
KEPT: Final = True
"""It waits for many connections at once; a new one for each request costs as much as the gateway does."""
ROUTES: Final = (
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/score",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/tokenize",
    "/detokenize",
)
"""What it can be asked beside what every engine can."""
HALF: Final = ("Gemma2", "Gemma3", "Glm4", "Plamo2")
"""Beginnings of architectures whose numbers leave the range of 16-bit floats, so that it refuses to try."""
RESERVE: Final = 512 * MIB
"""Bytes of a GPU that the driver keeps, and a two-hundredth of it: 0.4 GiB were seen on T4, 0.85 GiB on A100."""
CPU_BLOCK: Final = 128
"""Tokens of one block of the cache on the CPU."""
SINCE: Final = {
    "DeepseekV32ForCausalLM": "0.18.0",
    "DeepseekV41ForCausalLM": "0.31.0",
    "DeepseekV4ForCausalLM": "0.20.0",
    "Gemma4ForConditionalGeneration": "0.19.1",
    "Gemma4UnifiedForConditionalGeneration": "0.23.0",
    "Glm4MoeLiteForCausalLM": "0.17.0",
    "GlmMoeDsaForCausalLM": "0.24.0",
    "KimiK25ForConditionalGeneration": "0.25.0",
    "KimiK3ForConditionalGeneration": "0.29.0",
    "MiniMaxM3SparseForConditionalGeneration": "0.24.0",
    "Qwen3NextForCausalLM": "0.17.0",
    "Qwen3_5ForConditionalGeneration": "0.17.0",
    "Qwen3_5MoeForConditionalGeneration": "0.17.0",
    "Qwen4ExpForConditionalGeneration": "0.30.0",
}
"""Architecture -> the release that its recipe asks for, where that is newer than the oldest one in the catalog."""
FLAGS: Final[Flags] = {
    "context": said("--max-model-len"),
    "dtype": said("--dtype"),
    "kv_type": said("--kv-cache-dtype"),
    "gpus": said("--tensor-parallel-size"),
    "pipeline_parallel": said("--pipeline-parallel-size"),
    "memory_share": said("--gpu-memory-utilization"),
    "parallel": said("--max-num-seqs"),
    "batched_tokens": said("--max-num-batched-tokens"),
    "quantisation": said("--quantization"),
    "eager": said("--enforce-eager"),
    "trust_remote_code": said("--trust-remote-code"),
    "chat_template": said("--chat-template"),
    "tool_parser": said("--tool-call-parser", "--enable-auto-tool-choice"),
    "reasoning_parser": said("--reasoning-parser"),
    "task": Flag(
        values={
            "embed": ("--runner", "pooling", "--convert", "embed"),
            "rerank": ("--runner", "pooling", "--convert", "classify"),
            "transcribe": (),
        }
    ),
    "seed": said("--seed"),
    "adapters": said("--lora-modules", "--enable-lora"),
}
OWNED: Final = {
    "model": "the model's files", "served-model-name": "the model's name", "uds": "its socket", "host": "its socket",
    "port": "its socket", "api-key": "the gateway stands in front", "config": "its flags would override the plan's",
    "kv-cache-memory-bytes": "say --memory-share", "data-parallel-size": "say --replicas",
}  # fmt: skip
"""Flags that the appliance sets, or leaves unset on purpose."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse what is not safetensors, and architectures that a release is too old for."""
    weights = model.weights
    if weights.format != "safetensors":
        return f"reads safetensors only, {model.name} is {weights.format}"
    if release.accelerator == "cpu" and host.arch == "x86_64" and "avx2" not in host.cpu_flags:
        return "computes with AVX2, which this processor does not have"
    wanted = SINCE.get(weights.architecture)
    if wanted and version(release.version) < version(wanted):
        return f"knows {weights.architecture} from {wanted} on"
    return None


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    """Refuse types that old GPUs cannot compute with."""
    return torch.too_old(model.weights, gpus, HALF, {"mxfp4": "8.0", "fp8": "7.5"})


def spreads(model: Model, most: int) -> tuple[int, ...]:
    """Every GPU keeps a part of each layer, so the heads must divide."""
    return tuple(ranks for ranks in range(1, most + 1) if torch.divides(model.weights, ranks))


def caches(model: Model, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """8-bit floats where every GPU computes with them."""
    return ("fp8",) if gpus and all(version(gpu.compute_capability) >= (8, 9) for gpu in gpus) else ()


def layers(model: Model) -> int:
    """All layers lie on GPUs."""
    return 0


def estimate(model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
    """Every GPU takes the same; the cache is what the asked contexts need, and grows into what is left."""
    weights, ranks = model.weights, setting.tensor_parallel
    batched, sequences = _defaults(gpus)
    batched = setting.batched_tokens or batched
    pages = vllm.request(
        weights, setting.context, width=torch.WIDTHS[setting.kv_type], ranks=ranks,
        # The next step is prepared while one is computed.
        in_flight=2 * batched if gpus else batched, block=vllm.BLOCK if gpus else CPU_BLOCK,
    )  # fmt: skip
    cache = (pages.attention + pages.state) * setting.parallel
    if not gpus:
        whole = (
            ("weights", torch.weights_on_rank(weights, setting)),
            ("KV cache", rounded(cache, GIB)),  # its variable takes whole GiB
            ("activations", torch.activations(weights, batched, sequences, 1)),
            ("processes", torch.PROCESS),
        )
        return (Load(device="ram", items=whole),)
    # CUDA counts a little less than the driver tells, and the share is of what CUDA counts.
    reserve = RESERVE + gpus[0].memory // 200 if gpus[0].memory else 0
    items = (
        ("weights", torch.weights_on_rank(weights, setting)),
        ("KV cache", cache),
        ("activations", torch.activations(weights, batched, min(sequences, batched), ranks)),
        ("CUDA graphs", 256 * MIB + weights.layers * 6 * MIB),
        ("libraries", torch.overhead(len(gpus))),
        *((("reserve", reserve),) if reserve else ()),
    )
    ram = Load(device="ram", items=(("processes", torch.PROCESS * len(gpus)),))
    return (ram, *(Load(device=gpu.device, items=items) for gpu in gpus))


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """Its flag is a part of the GPU's total, and holds everything that it takes there."""
    return load.total / memory


def program(release: Release, state: str, python: str) -> str:
    """Return its command in the environment."""
    return f"{state}/engines/vllm-{release.artifacts[0].digest[:16]}/bin/vllm"


def launch(service: Service) -> Launch:
    """Everything that the plan has decided is said, so that no default of a release changes it."""
    return Launch(
        argv=(
            service.program, "serve", service.weights,
            "--served-model-name", service.model,
            "--uds", service.socket,
            *words(FLAGS, service),
        ),
        env=(
            ("VLLM_NO_USAGE_STATS", "1"), ("VLLM_DO_NOT_TRACK", "1"),
            ("VLLM_CACHE_ROOT", f"{service.home}/vllm"),
            # True would import a package that is not in its environment, before it looks whether the files are here.
            ("VLLM_USE_MODELSCOPE", "False"),
            *_ram(service),
        ),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command line."""
    return ()


def _ram(service: Service) -> tuple[tuple[str, str], ...]:
    """On the CPU the cache is told in GiB, and no thread is tied to a core: those of other replicas would be too."""
    if service.accelerator != "cpu":
        return ()
    amount = next((amount for load in service.loads for name, amount in load.items if name == "KV cache"), GIB)
    libraries = ("LD_LIBRARY_PATH", f"{service.program.removesuffix('/bin/vllm')}/lib/system")
    return (
        ("VLLM_CPU_KVCACHE_SPACE", str(-(-amount // GIB))),
        ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
        ("OMP_NUM_THREADS", str(service.threads)),
        # An image has them where its loader looks.
        *(() if service.container else (libraries,)),
    )


def _defaults(gpus: tuple[Gpu, ...]) -> tuple[int, int]:
    """Return the prompt tokens of one step and the requests at a time that it takes by itself on such GPUs."""
    memory = gpus[0].memory or 0 if gpus else 0
    if memory >= 160 * GIB:
        return 16384, 1024
    if memory >= 70 * GIB and "A100" not in gpus[0].name:
        return 8192, 1024
    return (2048, 256) if gpus else (2048, 128)
