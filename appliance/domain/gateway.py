"""The nginx in front of everything, and how each model is reached through it."""

from dataclasses import dataclass, field, replace

from appliance.domain.service import Remote


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
