"""The runtimes: what keeps services alive; one module each, found by discovery."""

import importlib
import pkgutil
from functools import cache
from typing import Protocol, cast

from appliance.domain.changes import Call, Command, Completed, Page, ServiceState, Unit
from appliance.domain.deployment import Deployment
from appliance.domain.host import Host
from appliance.errors import SpecError

GATEWAY = "gateway"
"""Name of the gateway among the services of a runtime."""


class Runtime(Protocol):
    """What a module must hold to be a runtime."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a constant of the module
        """As people type it."""

    @property
    def PREFERENCE(self) -> int:  # noqa: N802
        """The highest of those that do not refuse is taken."""

    def refuse(self, host: Host, prefix: str) -> str | None:
        """Return why it cannot be used here, None when it can."""

    def pages(self, deployment: Deployment, units: tuple[Unit, ...]) -> tuple[Page, ...]:
        """Return the files that it reads."""

    def check(self, deployment: Deployment, generation: str) -> tuple[Command, ...]:
        """Return the configuration checks, run on files that are not in force yet."""

    def activate(self, deployment: Deployment, changed: frozenset[str]) -> tuple[Command, ...]:
        """Return what makes the files in force run; `changed` holds the paths that differ from before."""

    def start(self, deployment: Deployment, model: str) -> tuple[Command, ...]:
        """Return what starts one model, or everything for ""."""

    def stop(self, deployment: Deployment, model: str) -> tuple[Command, ...]:
        """Return what stops one model, or everything for ""."""

    def restart(self, deployment: Deployment, model: str) -> tuple[Command, ...]:
        """Return what restarts one model, or everything for ""."""

    def revive(self, deployment: Deployment, services: tuple[str, ...]) -> tuple[Command, ...]:
        """Return what gives services that fail over and over a fresh start; () where `activate` does."""

    def retire(self, deployment: Deployment, services: tuple[str, ...]) -> tuple[Command, ...]:
        """Return what stops services that are no longer wanted, before their files go."""

    def files(self, service: str) -> tuple[str, ...]:
        """Return the paths, as a Changeset names them, that only this service is started by; () = all share one."""

    def begin(self, deployment: Deployment, service: str) -> tuple[Command, ...]:
        """Return what starts one service that was retired as the files in force say, and does not wait for it."""

    def settle(self, deployment: Deployment) -> tuple[Command, ...]:
        """Return what is to be run after our files are gone."""

    def status(self, deployment: Deployment) -> Command | Call:
        """Return the one question that tells the state of all services."""

    def read_status(self, deployment: Deployment, done: Completed) -> tuple[ServiceState, ...]:
        """Read its answer."""

    def logs(
        self, deployment: Deployment, services: tuple[str, ...], *, follow: bool, lines: int, since: int = 0
    ) -> Command:
        """Return the command that shows the log of these services, of all for ().

        `lines` 0 = all that there are; `since` in seconds since 1970, 0 = from the beginning. Raises UsageError where
        the log knows no times.
        """


@cache
def runtimes() -> dict[str, Runtime]:
    """Return every runtime by name."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    return {module.NAME: cast("Runtime", module) for module in modules}


def runtime(name: str) -> Runtime:
    """Return the runtime of that name. Raises SpecError with those there are."""
    try:
        return runtimes()[name]
    except KeyError:
        raise SpecError(f"no runtime is called {name!r}", hint=f"auto, {', '.join(sorted(runtimes()))}") from None
