"""What the doctor was told of the machine beside the Host: asked for at the edge, so that every check is pure."""

from dataclasses import dataclass, field

from appliance.doctor.access import Account, Step, Trail
from appliance.doctor.validity import Validity
from appliance.domain.changes import Record, ServiceState
from appliance.domain.host import Host
from appliance.domain.layout import Layout
from appliance.domain.release import Release
from appliance.domain.spec import ApplianceSpec

ROOT = Account(name="root", uid=0)
PLENTY = 1 << 50
"""Bytes or inodes: no bound is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The file system that a directory is on, or would be."""

    path: str
    """The directory."""
    mount: str = "/"
    kind: str = ""
    """`ext4`, `tmpfs`, `nfs4` …; "" = cannot be told."""
    options: tuple[str, ...] = ()
    """Of the mount: `rw`, `noexec` …"""
    free: int = PLENTY
    """Bytes."""
    inodes: int = 0
    """0 = it makes them as they are needed."""
    inodes_free: int = PLENTY
    device: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the operator says that a model's files are."""

    model: str
    path: str
    trails: tuple[Trail, ...] = ()
    """One for each file, or one that ends before there is any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A model in our store, as the record has it."""

    model: str
    directory: str
    there: bool = True
    wrong: tuple[str, ...] = ()
    """Files that are missing, or not of the recorded size."""
    trails: tuple[Trail, ...] = ()
    """One for each file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionPath:
    """A path in a model's engine options."""

    model: str
    option: str
    trail: Trail


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """NVIDIA's fabric manager, which wires up NVSwitch systems."""

    installed: bool = False
    version: str = ""
    active: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What was looked at of the appliance that the record tells of."""

    states: tuple[ServiceState, ...] = ()
    answers: bool | None = None
    """Whether the gateway answers; None = not asked."""
    edited: tuple[str, ...] = ()
    """Files of the record that differ from what we wrote."""
    missing: tuple[str, ...] = ()
    """Files of the record that are not there."""
    programs_missing: tuple[tuple[str, str], ...] = ()
    """(service, path) of programs that are not there."""
    link: str = ""
    """Where `current` points to; "" = there is no such link."""
    generation_there: bool = True
    """The directory of the record's generation is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was asked; the defaults are those of a machine where all is well."""

    spec: ApplianceSpec
    layout: Layout
    spec_failure: tuple[str, str] = ("", "")
    """Why the operator's files cannot be read, and what to do."""
    record: Record | None = None
    record_failure: tuple[str, str] = ("", "")
    releases: tuple[Release, ...] = ()
    """The catalog's."""
    catalog_failure: tuple[str, str] = ("", "")
    """Why the updated catalog cannot be read, and what to do."""
    installer: Account = ROOT
    """Who puts things in place: root for the whole system, under a prefix whoever runs us."""
    engine: Account = ROOT
    """Who the engines run as."""
    state: Place = field(default_factory=lambda: Place(path="/var/lib/llm-appliance"))
    cache: Place = field(default_factory=lambda: Place(path="/var/cache/llm-appliance"))
    temporary: Place = field(default_factory=lambda: Place(path="/tmp"))  # noqa: S108 - looked at, not written to
    memory: int = 0
    """Bytes of the whole machine, whatever the cgroup allows; 0 = unknown."""
    cpus: int = 0
    """Processors of the whole machine; 0 = unknown."""
    sources: tuple[Source, ...] = ()
    stored: tuple[Stored, ...] = ()
    options: tuple[OptionPath, ...] = ()
    store: Trail = field(default_factory=lambda: Trail(path=""))
    """To the store of weights, as far as it is there."""
    python: Trail = field(default_factory=lambda: Trail(path=""))
    """To the interpreter that services are started with."""
    nodes: tuple[Step, ...] = ()
    """GPU device files."""
    uvm_node: bool = True
    """/dev/nvidia-uvm is there."""
    wsl_node: bool = False
    """/dev/dxg is there: Windows hands its GPU on."""
    ours: frozenset[int] = frozenset()
    """Those of the processes on GPUs that belong to this appliance."""
    fabric: Fabric = Fabric()
    persistence: bool = True
    """NVIDIA's persistence daemon runs."""
    no_cgroups: bool = True
    """The container toolkit leaves cgroups alone, as rootless Docker needs it."""
    virtual: bool = False
    """This machine is a virtual one."""
    now: float = 0
    """Seconds since the epoch."""
    newest: float = 0
    """When the newest of the files that we know was written."""
    certificate: Validity | None = None
    """The gateway's; None = it has none, or it cannot be read."""
    certificate_own: bool = False
    """The appliance's own authority signed it."""
    port_taken: bool = False
    """Somebody else than our own gateway has the port of the spec."""
    port_holder: str = ""
    installed: Installed = Installed()

    @property
    def wants_gpu(self) -> tuple[str, ...]:
        """Names of the models that ask for a GPU: by `gpus`, or by an engine that has no build without one."""
        return tuple(model.name for model in self.spec.models if self._asks(model.gpus, model.engine))

    def _asks(self, gpus: tuple[int, ...] | int | None, engine: str) -> bool:
        accelerators = {release.accelerator for release in self.releases if release.engine == engine}
        return bool(gpus) if gpus is not None else bool(accelerators) and "cpu" not in accelerators


def under_systemd(host: Host, facts: Facts) -> bool:
    """Tell whether services run, or would, as units: with a hardened view of the file system."""
    if facts.record:
        return facts.record.deployment.runtime == "systemd"
    asked = facts.spec.runtime
    return asked == "systemd" or (asked == "auto" and bool(host.systemd) and facts.layout.prefix == "/")
