"""What will run here: services, gateway, artifacts, and the reason for each decision."""

from dataclasses import dataclass

from appliance.domain.spec import ApplianceSpec
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Something that must be present, by digest, before anything starts."""

    name: str
    kind: str
    """`build` (compiled here from a source package), `wheels` (Python environment), `debs` (unpacked packages)."""
    ref: str
    """What to ask the registry for: `llama-cpp-python==0.3.36`, or package names."""
    digest: str
    """SHA-256 (hex) of the source, or of the lock text, plus the recipe: names the directory it is built in."""
    source_sha256: str = ""
    """SHA-256 (hex) of the file that is downloaded; empty where apt's or pip's own hashes hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One engine release as the catalog lists it."""

    engine: str
    version: str
    accelerator: str
    """`cpu`, later `cuda12.9`, `rocm7`, …"""
    arch: tuple[str, ...]
    """Machine names as `uname -m` prints them."""
    artifacts: tuple[Artifact, ...] = ()
    source: str = ""
    """Where the row's facts come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model whose files are known and digested."""

    name: str
    source: str
    weights: Weights
    digest: str
    """SHA-256 (hex) over the file names and digests: the model's directory in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One running replica of one model."""

    name: str
    """Unit, socket and log name: the model's name, or NAME_1, NAME_2 … when there are several."""
    model: str
    engine: str
    version: str
    program: str
    """Absolute path of the executable."""
    weights: str
    """Absolute path of the first weight file in the store; "" for an engine without weights."""
    socket: str
    """Absolute path of the unix socket that it listens on."""
    context: int
    """Tokens for each request."""
    parallel: int
    threads: int
    memory: int
    """Estimated bytes: weights, KV cache, compute buffers."""
    start_timeout: int
    """Seconds until it must be healthy."""
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a service is started."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One model name that the gateway serves."""

    name: str
    upstream_model: str
    """What `model` must say towards the replica."""
    health: str
    """URL path on the replica that answers 200 once it serves."""
    sockets: tuple[str, ...]


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
