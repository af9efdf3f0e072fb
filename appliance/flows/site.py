"""Where a verb works, and what every verb asks first."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from appliance.apply import Generations
from appliance.detect import docker
from appliance.domain.changes import Record
from appliance.domain.layout import Layout
from appliance.errors import HostError, SpecError
from appliance.report import Progress
from appliance.system.docker import Daemon
from appliance.system.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a verb works: the layout, the machine, and who is told."""

    layout: Layout
    machine: Machine
    progress: Progress
    command: str
    """The command line as typed, for the lock's holder."""

    @property
    def generations(self) -> Generations:
        """The generations of this layout."""
        return Generations(self.layout, self.machine)


def installed(site: Site) -> Record:
    """Return the record. Raises HostError when nothing is installed."""
    record = site.generations.record()
    if record is None:
        raise HostError("nothing is installed here", hint=f"{_sudo(site)}llm-appliance install{_where(site)}")
    return record


def daemon(site: Site) -> Daemon:
    """Return the daemon that has our images: the one that runs them, else the one that would."""
    record = site.generations.record()
    boxed = record is not None and bool(record.deployment.gateway.image)
    return Daemon(record.deployment.podman if record and boxed else docker.probe(site.machine).podman)


def require_rights(site: Site, *, writing: bool = True) -> None:
    """Raise HostError when this user may not change this appliance; not `writing`: nor start and stop it."""
    layout = site.layout
    if layout.prefix == "/" and os.geteuid() != 0:
        raise HostError("only root may change a system-wide appliance", hint=f"sudo {site.command}, or --prefix DIR")
    nearest = next(path for path in (Path(layout.state), *Path(layout.state).parents) if path.exists())
    read_only = bool(os.statvfs(nearest).f_flag & os.ST_RDONLY)
    if read_only and writing:
        raise HostError(f"{nearest} is mounted read-only", hint="llm-appliance doctor says what makes it writable")
    if not read_only and not os.access(nearest, os.W_OK | os.X_OK):
        raise HostError(f"{nearest} cannot be written to", hint="choose a --prefix of your own")


def unknown_model(name: str, names: tuple[str, ...]) -> SpecError:
    """Return the error for a name that no model has."""
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"models: {', '.join(names) or 'none'}"
    return SpecError(f"no model is called {name!r}", hint=hint)


def _sudo(site: Site) -> str:
    return "sudo " if site.layout.prefix == "/" and os.geteuid() != 0 else ""


def _where(site: Site) -> str:
    return "" if site.layout.prefix == "/" else f" --prefix {site.layout.prefix}"
