"""What runs and how it does, as `status` tells it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """One replica, or the gateway."""

    name: str
    model: str
    """"" for the gateway."""
    engine: str
    """`nginx` for the gateway, a provider's URL for a model that somebody else serves."""
    version: str
    accelerator: str
    state: str
    """`running`, `starting`, `stopped`, `failed`, or `remote`."""
    endpoint: str
    pid: int = 0
    seconds: int = 0
    """Since it came into this state."""
    restarts: int = 0
    """As the runtime counts them, by itself and since somebody last started it."""
    detail: str = ""
    """Why it is in that state, or how far it is: `loading 62 %`."""
    hint: str = ""
    """What to type next."""
    line: str = ""
    """The line of its log that says so."""
    memory: int = 0
    """Bytes of RAM that its processes hold, files that they map included; 0 = nothing runs, or it cannot be seen."""
    planned: tuple[tuple[str, int], ...] = ()
    """(device, bytes) that the plan gives it."""
    gpus: tuple[str, ...] = ()
    """Devices of its own, `nvidia:0`."""
    dropins: tuple[str, ...] = ()
    """Files of the operator's that change its unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """One GPU, or the RAM."""

    name: str
    """`nvidia:0`, or `ram`."""
    label: str
    """Its name for people, `NVIDIA L4`."""
    total: int | None
    """Bytes; None where the tool does not say."""
    used: int | None
    """Bytes that anybody holds."""
    planned: int
    """Bytes that the plan gives to models."""
    held: tuple[tuple[str, int], ...] = ()
    """(service, bytes) of what ours hold, as far as the tool tells."""
    failure: str = ""
    """Why it cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandEdit:
    """A file that we wrote and that is another one now."""

    path: str
    yours: bool
    """It is the operator's own: an edit of it is put in force, one of any other is only kept beside."""
    diff: str
    """From what we wrote to what is there."""
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything."""

    runtime: str
    generation: int
    endpoint: str
    services: tuple[ServiceStatus, ...]
    devices: tuple[DeviceStatus, ...]
    edits: tuple[HandEdit, ...] = ()
    problem: str = ""
    """Why the gateway tells nothing, "" = it does."""
    certificate: str = ""
    """What is wrong with the gateway's, or soon will be, and what to type; "" = nothing."""
