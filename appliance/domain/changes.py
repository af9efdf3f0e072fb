"""What must change on the machine, and what was changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from appliance.domain.deployment import Deployment
from appliance.domain.service import Launch, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A service and how it is started: what a runtime turns into its own files."""

    service: Service
    launch: Launch
    health: str
    """URL path on the service's socket that answers 200 once it serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A file that is still to be rendered."""

    path: str
    """Absolute; or relative to the generation's directory."""
    template: str = ""
    """Name below templates/; a name that does not end in `.j2` is taken as it is."""
    names: Mapping[str, object] = field(default_factory=dict)
    """What the template may use."""
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """What a runtime says of one of its services."""

    name: str
    state: str
    """`running`, `starting`, `stopped` or `failed`."""
    pid: int = 0
    since: float = 0
    """When it came into this state, in seconds of the machine's monotonic clock; negative = so many seconds ago,
    0 = unknown."""
    detail: str = ""
    restarts: int = 0
    """How often the runtime has started it again by itself."""
    started_in: float = 0
    """Seconds from the start of its process until it answered, the last time; 0 = nobody knows."""
    dropins: tuple[str, ...] = ()
    """Files of the operator's that change its unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file to write."""

    path: str
    """Absolute; or relative to the generation's directory."""
    content: bytes
    mode: int = 0o644
    user: str = ""
    """Owner by name; "" = the writer."""
    group: str = ""
    """Group owner by name; "" = the writer's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One program to run: argv words, never a shell line."""

    argv: tuple[str, ...]
    timeout: float = 60
    """Seconds."""
    env: tuple[tuple[str, str], ...] = ()
    """Added to a fixed, minimal environment."""
    cwd: str | None = None
    ok_codes: tuple[int, ...] = (0,)
    input: bytes = b""
    stdout: str = ""
    """Absolute path of a file that takes its standard output; "" = it is returned as text."""
    user: str = ""
    """Run as this account (root only); "" = as ourselves."""
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP POST to a unix socket; where a program of its own would take longer than its answer."""

    socket: str
    path: str
    body: bytes
    timeout: float = 5
    """Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a command did."""

    argv: tuple[str, ...]
    code: int
    """Exit status; 127 when the program is absent, 124 when it ran past its timeout."""
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Changeset:
    """Bytes and argv that make the machine match a deployment."""

    deployment: Deployment
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One file that we wrote."""

    path: str
    sha256: str
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is installed: uninstall and rollback read it."""

    schema: int
    generation: int
    deployment: Deployment
    files: tuple[Written, ...]
    users: tuple[str, ...] = ()
    """Users that we created."""
    groups: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    """Directories outside the layout that came with our files."""
    inside: tuple[Written, ...] = ()
    """Files within the generation's own directory, by their paths there; () = an earlier version wrote none down."""
    confirmed: bool = False
    """It was healthy once it ran; until then a failure goes back to `fallback`."""
    fallback: int = 0
    """The last confirmed generation before this one, 0 = none."""
