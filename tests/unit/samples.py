"""A machine, models and a catalog of round numbers, right by default; a test changes what it is about."""

from dataclasses import replace
from typing import Any

from appliance.catalog import Catalog
from appliance.domain.deployment import Deployment, Model
from appliance.domain.host import Driver, Gpu, Host
from appliance.domain.layout import Layout
from appliance.domain.release import Artifact, Release
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.domain.weights import Layers, WeightFile, Weights
from appliance.plan import plan

GIB = 1 << 30
PYTHON = "/opt/llm-appliance/bin/python"
LAYOUT = Layout(
    prefix="/",
    etc="/etc/llm-appliance",
    state="/var/lib/llm-appliance",
    cache="/var/cache/llm-appliance",
    run="/run/llm-appliance",
    log="/var/log/llm-appliance",
)
HOST = Host(
    os="debian",
    os_version="12",
    arch="x86_64",
    glibc="2.36",
    kernel="6.1.0-30-amd64",
    init="systemd",
    systemd=252,
    python="3.11",
    root=True,
    cpus=8,
    cpu_flags=("avx2", "fma"),
    memory=10 * GIB,
    memory_available=9 * GIB,
    disk_free=100 * GIB,
    gpus=(),
)
CONTAINER = replace(HOST, init="sleep", systemd=0, root=False)
CATALOG = Catalog(
    schema=1,
    releases=(
        Release(
            engine="llama-cpp",
            version="1.0",
            accelerator="cpu",
            arch=("x86_64",),
            artifacts=(
                Artifact(name="llama-server", kind="build", ref="llama==1.0", digest="", source_sha256="5" * 64),
            ),
        ),
        Release(
            engine="llama-cpp-python",
            version="2.0",
            accelerator="cpu",
            arch=("x86_64", "aarch64"),
            artifacts=(
                Artifact(name="llama-python", kind="build", ref="python==2.0", digest="", source_sha256="6" * 64),
            ),
        ),
        Release(engine="dummy", version="1", accelerator="cpu", arch=("x86_64", "aarch64")),
    ),
    gateway_packages=("nginx", "libnginx-mod-http-lua"),
    toolchain_packages=("g++",),
)


def _wheels(engine: str, version: str, accelerator: str = "cuda12.9") -> Release:
    """Return a release for GPUs as old as V100."""
    return Release(
        engine=engine,
        version=version,
        accelerator=accelerator,
        arch=("x86_64",),
        driver="525.60.13",
        capabilities=("7.0", "7.5", "8.0", "8.6", "8.9", "9.0"),
        artifacts=(Artifact(name=engine, kind="wheels", ref=f"{engine}=={version}", digest=""),),
    )


VLLM, SGLANG, LMDEPLOY = _wheels("vllm", "3.0"), _wheels("sglang", "5.0"), _wheels("lmdeploy", "4.0")
LLAMA_CUDA = _wheels("llama-cpp", "1.0")
GPU_CATALOG = replace(CATALOG, releases=(VLLM, SGLANG, LMDEPLOY, LLAMA_CUDA, *CATALOG.releases))
"""What computes on NVIDIA's GPUs comes first, as in the real one."""
DRIVER = Driver(vendor="nvidia", version="580.65.06", api="13.0", module="open")


def layout(prefix: str) -> Layout:
    """Return a layout below a prefix."""
    parts = {name: f"{prefix}/{name}" for name in ("etc", "state", "cache", "run", "log")}
    return Layout(prefix=prefix, **parts)


def gpu(index: int = 0, memory: int = 24, **more: Any) -> Gpu:
    """Return one of several equal GPUs with so many GiB."""
    facts: dict[str, Any] = {"uuid": f"GPU-{index}", "name": "NVIDIA L4", "compute_capability": "8.9"}
    return Gpu(vendor="nvidia", index=index, memory=memory * GIB, **facts | more)


def gpu_host(*gpus: Gpu, memory: int = 128, **more: Any) -> Host:
    """Return a machine with these GPUs and so many GiB of RAM, nearly all of it free."""
    facts: dict[str, Any] = {"memory": memory * GIB, "memory_available": memory * GIB, "drivers": (DRIVER,)}
    return replace(HOST, gpus=gpus, **facts | more)


def weights(*, size: int = GIB, context: int = 4096, **more: Any) -> Weights:
    """Return the facts of a GGUF file: 64 KiB of KV cache for a token, 16 equal layers, an eighth beside them."""
    file = WeightFile(name="model.gguf", path="/models/model.gguf", size=size, sha256="a" * 64)
    facts: dict[str, Any] = {
        "format": "gguf", "architecture": "qwen3", "files": (file,), "context_length": context,
        "layers": 16, "kv_heads": 8, "head_dim": 128, "parameters": size * 2, "quantisation": "Q4_K_M",
        "heads": 32, "hidden": 4096, "feed_forward": 12288, "vocabulary": 151936,
        "cache": (Layers(kind="full", count=16, kv_heads=8, key=128, value=128),),
        "embedding": size // 16, "output": size // 16, "layer": (size - size // 16 * 2) // 16,
    }  # fmt: skip
    return Weights(**facts | more)


def safetensors(*, size: int = GIB, context: int = 4096, **more: Any) -> Weights:
    """Return the facts of the same model in bf16."""
    file = WeightFile(name="model.safetensors", path="/models/model.safetensors", size=size, sha256="b" * 64)
    facts: dict[str, Any] = {
        "format": "safetensors", "architecture": "Qwen3ForCausalLM", "files": (file,), "quantisation": "bfloat16",
        "parameters": size // 2,
    }  # fmt: skip
    return weights(size=size, context=context, **facts | more)


def model(name: str = "tiny", facts: Weights | None = None) -> Model:
    """Return a model whose files are known."""
    return Model(name=name, source=f"/models/{name}.gguf", weights=facts or weights(), digest="d" * 64)


def item(name: str = "tiny", **more: Any) -> ModelSpec:
    """Return what the operator says of a model."""
    return ModelSpec(name=name, source=f"/models/{name}.gguf", **more)


def deployment(
    *items: ModelSpec,
    host: Host = HOST,
    where: Layout = LAYOUT,
    facts: Weights | dict[str, Weights] | None = None,
    catalog: Catalog = CATALOG,
    before: Deployment | None = None,
    **spec: Any,
) -> Deployment:
    """Return the plan for models of the same weights, or of those that are given by name."""
    items = items or (item(),)
    named = facts if isinstance(facts, dict) else {}
    common = None if isinstance(facts, dict) else facts
    models = tuple(model(one.name, named.get(one.name, common)) for one in items)
    wanted = ApplianceSpec(models=items, **spec)
    return plan(wanted, models, host, where, catalog, python=PYTHON, before=before)
