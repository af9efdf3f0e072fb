"""A machine, models and a catalog of round numbers, right by default; a test changes what it is about."""

from dataclasses import replace
from typing import Any

from appliance.catalog import Catalog
from appliance.domain.deployment import Artifact, Deployment, Layout, Model, Release
from appliance.domain.host import Host
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.domain.weights import WeightFile, Weights
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


def layout(prefix: str) -> Layout:
    """Return a layout below a prefix."""
    parts = {name: f"{prefix}/{name}" for name in ("etc", "state", "cache", "run", "log")}
    return Layout(prefix=prefix, **parts)


def weights(*, size: int = GIB, context: int = 4096, **more: Any) -> Weights:
    """Return the facts of a GGUF file: 64 KiB of KV cache for a token."""
    file = WeightFile(name="model.gguf", path="/models/model.gguf", size=size, sha256="a" * 64)
    facts: dict[str, Any] = {
        "format": "gguf", "architecture": "qwen3", "files": (file,), "context_length": context,
        "layers": 16, "kv_heads": 8, "head_dim": 128, "quantisation": "Q4_K_M",
    }  # fmt: skip
    return Weights(**facts | more)


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
    facts: Weights | None = None,
    catalog: Catalog = CATALOG,
    **spec: Any,
) -> Deployment:
    """Return the plan for models of the same weights."""
    items = items or (item(),)
    models = tuple(model(one.name, facts) for one in items)
    return plan(ApplianceSpec(models=items, **spec), models, host, where, catalog, python=PYTHON)
