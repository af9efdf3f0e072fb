"""What the operator wants: `appliance.yaml` for the whole, `models.d/NAME.yaml` for each model."""

from dataclasses import dataclass

SMOKE = "builtin:smoke"
"""The source of the model that comes with the appliance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model as the operator asked for it."""

    name: str
    """Served model name and URL path segment: `[a-z0-9][a-z0-9.-]{0,62}`."""
    source: str
    """`builtin:smoke`, the absolute path of a GGUF file (any shard) or a safetensors directory, or where a hub has it:
    `hf:OWNER/REPO@COMMIT`, `hf:OWNER/REPO@COMMIT/FILE.gguf`, the same with `ms:`, `https://HOST/FILE.gguf#sha256=HEX`."""
    engine: str = "auto"
    context: int | None = None
    """Tokens for each request; None = what the model was trained for, as far as memory allows."""
    parallel: int | None = None
    """Requests served at the same time by one replica; None = the engine's default."""
    replicas: int = 1
    gpus: tuple[int, ...] | int | None = None
    """GPUs of one replica: how many, or which (indexes); None = as few as hold it; 0 = none, the CPU serves it."""
    kv_type: str = "auto"
    """Type of the KV cache, as the engine calls it; `auto` = 16 bits, smaller only where nothing else fits."""
    strict: bool = False
    """Refuse rather than step down: what is asked for (or the default) is served as it is, or not at all."""
    options: tuple[tuple[str, str], ...] = ()
    """Extra engine flags as (name without dashes, value)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """Which model hubs are asked, and how; "" = what the environment says, then the hub's own default."""

    endpoint: str = ""
    """Hugging Face, or a mirror of it: `https://hf-mirror.com` (HF_ENDPOINT)."""
    modelscope: str = ""
    """ModelScope's domain, `www.modelscope.ai`, or a URL (MODELSCOPE_DOMAIN)."""
    source: str = "auto"
    """Which hub a plain OWNER/REPO is for: `hf`, `ms`, or `auto`, the first that answers."""
    token_file: str = ""
    """Absolute path of a file with the access token for Hugging Face; the token itself is kept nowhere else."""
    offline: bool = False
    """Hubs are never asked: only what is here is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplianceSpec:
    """The whole appliance as the operator wants it."""

    runtime: str = "auto"
    """`auto`, or the name of a module in `appliance.runtimes`."""
    host: str = "127.0.0.1"
    port: int = 8080
    insecure: bool = False
    """Allow an address other than loopback although no key protects it."""
    hub: Hub = Hub()
    models: tuple[ModelSpec, ...] = ()

    @property
    def listen(self) -> str:
        """`host:port` as nginx and URLs write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
