"""What the operator wants: `appliance.yaml` for the whole, `models.d/NAME.yaml` for each model."""

from dataclasses import dataclass, field

SMOKE = "builtin:smoke"
"""The source of the model that comes with the appliance."""


TASKS = ("chat", "embed", "rerank", "transcribe")
"""What a model can be served for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Options that mean the same whatever the engine; each engine's FLAGS say what it calls them, or why not."""

    dtype: str = "auto"
    """Type that is computed in: `auto`, `half`, `bfloat16`, `float32`."""
    quantisation: str = ""
    """How the weights are quantised, as the engine calls it; "" = as the model's own files say."""
    batched_tokens: int | None = None
    """Prompt tokens computed at once; None = the engine's default."""
    memory_share: float | None = None
    """Part of each of its GPUs' memory that a replica takes in all; None = what the plan leaves it."""
    eager: bool = False
    """Capture no graphs: slower, starts sooner, and takes less memory."""
    trust_remote_code: bool = False
    """Run the Python files that come with the model."""
    chat_template: str = ""
    """Absolute path of a Jinja file; "" = the model's own."""
    tool_parser: str = ""
    """How tool calls are read out of answers, as the engine calls it."""
    reasoning_parser: str = ""
    """How thoughts are told from the answer, as the engine calls it."""
    task: str = "chat"
    """One of TASKS."""
    seed: int | None = None
    pipeline_parallel: int = 1
    """Groups of GPUs that have so many layers each, one group after the other."""


BALANCES = ("lru", "lottery", "shortest_queue", "round_robin", "prefix")
"""How a model's replicas can share its requests."""
RETRIES = ("unsent", "before_first_byte")
"""What is sent to another replica when one fails: only what was not sent yet, or also, once, what was not answered."""
EXPOSABLE = ("tokenize", "detokenize")
"""Routes of engines that are let in only where the operator says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How the gateway hands requests to a model."""

    balance: str = "lru"
    """One of BALANCES."""
    limit: int | None = None
    """Requests that one replica gets at the same time; None = what suits its engine. The others wait."""
    queue: int | None = None
    """Requests that may wait; None = 64."""
    retry: str = "unsent"
    """One of RETRIES."""
    fallback: str = ""
    """Model that answers while this one does not."""
    aliases: tuple[str, ...] = ()
    """Other names that clients have for it."""
    expose: tuple[str, ...] = ()
    """Which of EXPOSABLE are let in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model as the operator asked for it."""

    name: str
    """Served model name and URL path segment: `[a-z0-9][a-z0-9.-]{0,62}`."""
    source: str
    """`builtin:smoke`, the absolute path of a GGUF file (any shard) or a safetensors directory, or where a hub has it:
    `hf:OWNER/REPO@COMMIT`, `hf:OWNER/REPO@COMMIT/FILE.gguf`, the same with `ms:`, `ollama:NAME:TAG@sha256:HEX`,
    `https://HOST/FILE.gguf#sha256=HEX`,
    or who else serves it: `remote:PROVIDER/MODEL`."""
    engine: str = "auto"
    version: str = ""
    """Of the engine; "" = the first of the catalog that works."""
    context: int | None = None
    """Tokens for each request; None = what the model was trained for, as far as memory allows."""
    parallel: int | None = None
    """Requests served at the same time by one replica; None = the engine's default."""
    replicas: int = 1
    gpus: tuple[int, ...] | int | None = None
    """GPUs of one replica: how many, or which (indexes); None = as few as hold it; 0 = none, the CPU serves it."""
    cpus: int | None = None
    """Processors of one replica; None = its part of all there are."""
    kv_type: str = "auto"
    """Type of the KV cache, as the engine calls it; `auto` = 16 bits, smaller only where nothing else fits."""
    strict: bool = False
    """Refuse rather than step down: what is asked for (or the default) is served as it is, or not at all."""
    options: tuple[tuple[str, str], ...] = ()
    """Extra engine flags as (name without dashes, value)."""
    tuning: Tuning = field(default_factory=Tuning)
    image: str = ""
    """Container image to run the engine in, instead of the catalog's: `registry.example/vllm:fixed`."""
    adapters: tuple[tuple[str, str], ...] = ()
    """LoRA adapters served beside the model: (name that clients ask for, absolute path of the directory)."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of its engine, beside those of all engines and before them."""
    key_file: str = ""
    """Absolute path of the file with the provider's key, for a model that a provider serves."""
    serving: Serving = field(default_factory=Serving)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """Which model hubs are asked, and how; "" = what the environment says, then the hub's own default."""

    endpoint: str = ""
    """Hugging Face, or a mirror of it: `https://hf-mirror.com` (HF_ENDPOINT)."""
    modelscope: str = ""
    """ModelScope's domain, `www.modelscope.ai`, or a URL (MODELSCOPE_DOMAIN)."""
    ollama: str = ""
    """Ollama's registry, or a mirror of it: `https://registry.ollama.ai`."""
    source: str = "auto"
    """Which hub a plain OWNER/REPO is for: `hf`, `ms`, or `auto`, the first that answers."""
    token_file: str = ""
    """Absolute path of a file with the access token for Hugging Face; the token itself is kept nowhere else."""
    offline: bool = False
    """Hubs are never asked: only what is here is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Where container images come from."""

    registry: str = ""
    """Registry, with a path in it or without, that has all under their own names: `registry.example:5000/mirror`."""
    base: str = ""
    """Image that ours are built on; "" = what their Dockerfiles say."""
    portable: bool = False
    """Build ours, and engines without images that are compiled, for every processor of the architecture: they can be
    taken to another machine, and are slower where a processor has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """The way out of this network, for downloads and to providers; "" = what the environment says."""

    https: str = ""
    """`http://HOST:PORT` of an HTTP proxy (https_proxy)."""
    none: str = ""
    """Hosts that are asked directly, with commas between: `.corp.example,10.0.0.7` (no_proxy)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The gateway's certificate; "" = it speaks plain HTTP."""

    certificate: str = ""
    """Absolute path of a PEM file: the certificate, then those that lead to a known one."""
    key: str = ""
    """Absolute path of its private key, which the gateway's user must be able to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySpec:
    """What the gateway shows beside the models."""

    page: bool = True
    """The status page at `/`."""
    hosts: str = ""
    """Other names that lead to this machine, with commas between; `*` = any. On loopback and without keys the gateway
    answers to no others: a web page could have one of its own lead here."""


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
    images: Images = Images()
    proxy: Proxy = Proxy()
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of every engine."""
    tls: Tls = Tls()
    gateway: GatewaySpec = GatewaySpec()
    cors: tuple[str, ...] = ()
    """Web pages that may ask from a browser: `https://chat.example`, or `*` for all."""
    splits: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()
    """Names behind which several models stand: (name, ((model, weight), …))."""
    models: tuple[ModelSpec, ...] = ()

    @property
    def listen(self) -> str:
        """`host:port` as nginx and URLs write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
