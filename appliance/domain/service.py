"""One replica of a model: how it is laid out, where it runs, how it is started."""

from dataclasses import dataclass, field

from appliance.domain.spec import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one replica takes of one device."""

    device: str
    """`ram`, or VENDOR:INDEX of a GPU, `nvidia:0`."""
    items: tuple[tuple[str, int], ...]
    """(name, bytes): weights, KV cache, activations …"""

    @property
    def total(self) -> int:
        """Bytes of all items."""
        return sum(amount for _, amount in self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How one replica is laid out: what a memory estimate depends on, and what the engine's flags say."""

    context: int
    """Tokens for each request."""
    parallel: int
    """Requests at the same time."""
    kv_type: str = "auto"
    """Type of the KV cache: `auto` is the weights' 16-bit type; `fp8`, or llama.cpp's `q8_0`, `q4_0`."""
    dtype: str = "auto"
    """Type that weights are computed in; `half` below compute capability 8.0."""
    tensor_parallel: int = 1
    """GPUs that share every layer."""
    gpu_layers: int = 0
    """Layers that lie on GPUs, for engines that leave the rest in RAM; the output counts as one more."""
    memory_share: float = 0.0
    """What vLLM and SGLang take of a GPU's total memory, LMDeploy of what is free after the weights; 0 = not said."""
    batched_tokens: int = 0
    """Prompt tokens computed at once; 0 = the engine's default."""
    pipeline_parallel: int = 1
    """Groups of `tensor_parallel` GPUs that have so many layers each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A provider's endpoint that speaks OpenAI's routes."""

    url: str
    """What `/v1` of ours stands for there, without a slash at its end: `https://api.moonshot.cn/v1`."""
    header: str = "authorization"
    """The header that carries the key: `authorization`, behind `Bearer`, or one that holds it alone, `api-key`."""
    query: str = ""
    """What every path ends in: `api-version=2024-10-21`."""
    model: str = ""
    """What the provider calls the model."""
    key_file: str = ""
    """Absolute path of the file with the key, which only the gateway's user reads; "" = none is needed."""
    proxy: str = ""
    """`HOST:PORT` of the HTTP proxy that leads there; "" = the way is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What a service needs of a runtime that runs images."""

    image: str
    """What is run: name and tag, or name and digest."""
    devices: tuple[str, ...] = ()
    """Names of CDI devices (`nvidia.com/gpu=0`), or paths below /dev."""
    requests: tuple[str, ...] = ()
    """GPUs that NVIDIA's container toolkit hands over, by their uuids."""
    groups: tuple[int, ...] = ()
    """Groups of this machine that the devices are open to."""
    drivers: tuple[str, ...] = ()
    """Parts of the vendor's driver that must be seen at the same path: directories or files."""
    runtime: str = ""
    """The vendor's own container runtime; "" = the daemon's default."""
    env: tuple[tuple[str, str], ...] = ()
    """For that runtime, not for the engine."""
    files: tuple[str, ...] = ()
    """Absolute paths beside the weights that the engine is pointed at."""
    shared_memory: int = 0
    """Bytes of /dev/shm; 0 = the daemon's default."""
    memory: int = 0
    """Bytes of RAM that it may take at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One replica of one model: a running program, or a place with a provider."""

    name: str
    """Unit, socket and log name: the model's name, or NAME_1, NAME_2 … when there are several; NAME_0 stands in."""
    model: str
    engine: str
    version: str
    program: str
    """Absolute path of the executable, or its name in an image; "" = nothing is started here."""
    weights: str
    """Absolute path of the first weight file in the store, or of their directory; "" for an engine without weights."""
    socket: str
    """Absolute path of the unix socket that it listens on."""
    setting: Setting
    threads: int
    start_timeout: int
    """Seconds until it must be healthy."""
    accelerator: str = "cpu"
    gpus: tuple[str, ...] = ()
    """What the vendor's visibility variable is given: uuids where there are some."""
    vendor: str = ""
    """Of those GPUs."""
    loads: tuple[Load, ...] = ()
    """What it will take of each device."""
    artifacts: tuple[str, ...] = ()
    """Digests of what it is made of."""
    port: int = 0
    """TCP port on 127.0.0.1 of an engine that knows no unix sockets; 0 = it listens on `socket`."""
    options: tuple[tuple[str, str], ...] = ()
    tuning: Tuning = field(default_factory=Tuning)
    adapters: tuple[tuple[str, str], ...] = ()
    """(name, absolute path)."""
    remote: Remote | None = None
    """Where it is served instead of here."""
    container: Container | None = field(default=None, repr=False)
    """Where it runs in an image; what comes to its socket is passed on to its port then, where it has one. Not in the
    repr, which digests of files are made of: units know nothing of it."""
    home: str = ""
    """Absolute path of the directory that is its own: HOME, and caches."""
    cpus: int = 0
    """Processors that it may keep busy at most; 0 = no bound."""
    relayed: bool = field(default=False, repr=False)
    """Its port is one of a network of its own, and a program beside it passes on to it what comes to its socket."""

    @property
    def standin(self) -> bool:
        """Whether it answers only while the one replica of its model is replaced."""
        return self.name == standin_name(self.model)

    @property
    def memory(self) -> int:
        """Bytes on all devices."""
        return sum(load.total for load in self.loads)

    @property
    def address(self) -> str:
        """Return where it listens, `unix:/run/…`, `127.0.0.1:18100`, or a provider's URL."""
        if self.remote and not self.remote.proxy:
            return self.remote.url
        return f"127.0.0.1:{self.port}" if self.on_loopback else f"unix:{self.socket}"

    @property
    def on_loopback(self) -> bool:
        """Whether everybody on this machine reaches it."""
        return bool(self.port) and not self.container and not self.relayed


def standin_name(model: str) -> str:
    """Return the name of the service that answers while the one replica of a model is replaced."""
    return f"{model}_0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One of several programs that make up a service, started once the one before it is ready."""

    argv: tuple[str, ...]
    """May hold `{python}`, the appliance's own interpreter, and `{port:NAME}`, a free port on 127.0.0.1, the same for
    every program of the service; a word may be such a part or contain it."""
    ready: str = ""
    """Address and path, `127.0.0.1:{port:worker}/status`, that answer 200 once it is ready; "" = nobody waits."""
    once: bool = False
    """It sets something up and must end with 0; all others end never, or the service does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a service is started: one program, or several that are watched over together."""

    argv: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    programs: tuple[Program, ...] = field(default=(), repr=False)
    """Instead of `argv`; each gets `env`. Not in the repr, which digests of files are made of: units hold none."""
