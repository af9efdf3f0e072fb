"""What will run here: services, gateway, artifacts, and the reason for each decision."""

from dataclasses import dataclass, field, replace

from appliance.domain.host import Podman
from appliance.domain.spec import ApplianceSpec, Tuning
from appliance.domain.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things live; all absolute. `prefix` is "/" for a system-wide appliance."""

    prefix: str
    etc: str
    """The operator's files: appliance.yaml, models.d/."""
    state: str
    """Generations, record, store of weights, engine and gateway environments."""
    cache: str
    """Can be deleted at any time: downloads, build trees."""
    run: str
    """Sockets and pid files; gone after a reboot."""
    log: str

    @property
    def current(self) -> str:
        """The link to the generation in force."""
        return f"{self.state}/current"

    @property
    def sockets(self) -> str:
        """What containers see as `run`: there after a reboot too, before anybody could make it."""
        return f"{self.state}/sockets"

    @property
    def keys(self) -> str:
        """The digests of the clients' keys."""
        return f"{self.etc}/keys.json"

    @property
    def inside(self) -> str:
        """The gateway's socket where no key is asked for: only root and its own user come into that directory."""
        return f"{self.run}/gateway/inside.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Something that must be present, by digest, before anything starts."""

    name: str
    kind: str
    """`build` (compiled here from a source package), `wheels` (Python environment), `debs` (unpacked packages),
    `image` (for a runtime that runs containers), `program` (somebody else's, which is there already)."""
    ref: str
    """What to ask the registry for: `llama-cpp-python==0.3.36`, an image's name and tag, or package names; a
    program's name."""
    digest: str
    """SHA-256 (hex) of the source, or of the lock text, plus the recipe: names the directory it is built in."""
    source_sha256: str = ""
    """SHA-256 (hex) of the file that is downloaded; empty where apt's or pip's own hashes hold."""
    indexes: tuple[str, ...] = ()
    """Package indexes beside the configured one, first match wins: a CUDA build's torch is not in the general one."""
    pins: tuple[str, ...] = ()
    """Requirements that hold beside `ref`: the torch of the right CUDA, `torch==2.13.0+cu129`. For a build: CMake
    definitions, `GGML_CUDA=ON`."""
    extras: tuple[str, ...] = ()
    """Requirements that it starts sooner with: kernels compiled beforehand; without them it works, too."""
    extras_indexes: tuple[str, ...] = ()
    """Package indexes of those."""
    overrides: tuple[str, ...] = ()
    """Requirements that hold whatever the packages themselves ask for; one that never applies leaves a package out."""
    provides: tuple[str, ...] = ()
    """Names that a program looks itself up by where its package is called otherwise: `vllm==0.32.0+cpu`."""
    libraries: tuple[str, ...] = ()
    """Distribution packages with libraries that wheels leave to the system: `libnuma1`."""
    program: str = ""
    """What starts the engine in an image: an absolute path, or a name on the image's PATH."""
    recipe: str = ""
    """Directory below images/ that an image is built from where no registry has it; `pins` are its build arguments."""
    portable: bool = False
    """Compiled for every processor of the architecture, not only for this machine's."""
    twin: str = ""
    """Digest of the same program as it is built on this machine without an image: where it is there, it is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One engine release for one accelerator, as the catalog lists it."""

    engine: str
    version: str
    accelerator: str
    """`cpu`, `cuda12.9`, `cuda13.0`, `rocm7.2`, `cann9.0`, `maca3.7`, `musa4.3`, `dtk26.04`, `xpu`: API and version."""
    arch: tuple[str, ...]
    """Machine names as `uname -m` prints them."""
    artifacts: tuple[Artifact, ...] = ()
    """What it is made of; more than one kind = so many ways, and the runtime decides which."""
    driver: str = ""
    """Lowest driver version that runs its compiled code; "" = no driver is needed."""
    capabilities: tuple[str, ...] = ()
    """Compute capabilities (`8.9`), or compiler names of other vendors' GPUs (`gfx942`), that it has code for."""
    portable: tuple[str, ...] = ()
    """Compute capabilities of its PTX: a newer GPU runs it when the driver's CUDA is as new as the release's."""
    glibc: str = ""
    """Lowest C library that its binaries load with."""
    python: tuple[str, str] = ("", "")
    """Lowest Python, and the first that is too new; "" = no bound."""
    torch: str = ""
    """The torch that it was built against, `2.13.0+cu129`."""
    source: str = ""
    """Where the row's facts come from."""
    asked: bool = False
    """Taken only where the operator names the engine."""

    @property
    def api(self) -> str:
        """Return `cuda` of `cuda12.9`."""
        return self.accelerator.rstrip("0123456789.")

    @property
    def api_version(self) -> str:
        """Return `12.9` of `cuda12.9`, "" of `cpu`."""
        return self.accelerator[len(self.api) :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model whose files are known and digested."""

    name: str
    source: str
    weights: Weights
    digest: str
    """SHA-256 (hex) over the file names and digests: the model's directory in the store."""


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
    """Unit, socket and log name: the model's name, or NAME_1, NAME_2 … when there are several."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One model name that the gateway serves."""

    name: str
    upstream_model: str
    """What `model` must say towards the replica."""
    health: str
    """URL path on the replica that answers 200 once it serves."""
    replicas: tuple[tuple[str, str], ...]
    """(service's name, address)."""
    remote: Remote | None = None
    """Who serves it; all replicas are places with the same provider then."""
    paths: tuple[tuple[str, str], ...] = ()
    """What it can be asked: (path of ours, path of the engine's)."""
    balance: str = "lru"
    limit: int = 0
    """Requests that one replica gets at the same time; 0 = all that come."""
    queue: int | None = None
    """Requests that may wait for a replica with room; None = the gateway's default."""
    resend: bool = False
    """A request that was sent, and not answered, is sent once more."""
    fallback: str = ""
    """Model that answers while this one does not."""
    nameless: bool = False
    """Its engine is told no X-Request-Id."""
    keepalive: bool = False
    """Connections to its replicas are kept."""
    metrics: str = ""
    """URL path of each replica's own counters; "" = it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the gateway shows to clients."""

    certificate: str
    """Absolute path."""
    key: str
    """Absolute path."""
    http2_listens: bool
    """This nginx wants HTTP/2 said where it listens; newer ones have a directive for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What replicas take memory of, for people to read."""

    device: str
    """As `Load.device` has it."""
    name: str
    memory: int
    """Bytes; 0 = not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The nginx in front of everything."""

    host: str
    port: int
    program: str
    """Absolute path of the nginx executable."""
    root: str
    """Directory its packages were unpacked in."""
    ld_library_path: str
    """LD_LIBRARY_PATH for it."""
    triplet: str
    """Directory name of its architecture's libraries, `x86_64-linux-gnu`."""
    workers: int
    routes: tuple[Route, ...]
    image: str = field(default="", repr=False)
    """The image that it runs in; "" = a program of this machine."""
    inside: int = field(default=0, repr=False)
    """Port that it listens on in its container; the runtime publishes it as `host` and `port`."""
    aliases: tuple[tuple[str, str], ...] = ()
    """(other name, model)."""
    splits: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()
    """(name, ((model, weight), …))."""
    open: bool = True
    """Where there are no keys, everybody who reaches it may come in."""
    cors: tuple[str, ...] = ()
    tls: Certificate | None = None
    ca_file: str = ""
    """Certificates that providers' are checked against."""
    devices: tuple[Device, ...] = field(default=(), repr=False)
    """What the status page shows of the machine; not in the repr, which digests of units are made of."""

    @property
    def program_only(self) -> "Gateway":
        """The same without all that nginx reads by itself: none of that must restart it."""
        return replace(self, routes=(), aliases=(), splits=(), open=True, cors=(), tls=None, ca_file="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A choice that was passed over, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a decision fell as it did."""

    subject: str
    chosen: str
    why: str
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One complete, serialisable plan: `apply` needs nothing else."""

    schema: int
    spec: ApplianceSpec
    layout: Layout
    runtime: str
    user: str
    """User that the engines run as; "" = whoever starts the appliance."""
    gateway_user: str
    group: str
    python: str
    """The interpreter of the appliance's own environment."""
    models: tuple[Model, ...]
    services: tuple[Service, ...]
    gateway: Gateway
    artifacts: tuple[Artifact, ...]
    reasons: tuple[Reason, ...]
    runtime_version: int = 0
    """systemd's, where that is the runtime, or starts it at boot."""
    podman: Podman | None = None
    """What runs the containers where Docker does not."""

    @property
    def started(self) -> tuple[Service, ...]:
        """The services that a runtime starts here."""
        return tuple(service for service in self.services if service.program)

    @property
    def inside(self) -> str:
        """Where `Layout.inside` is on this machine, also when the gateway is in a container."""
        layout = self.layout
        return f"{layout.sockets}{layout.inside.removeprefix(layout.run)}" if self.gateway.image else layout.inside
