"""The engines: one module each, found by discovery and by the entry point group `llm_appliance.engines`."""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from typing import Protocol, cast

from appliance.domain.changes import Page
from appliance.domain.deployment import Launch, Model, Release, Service
from appliance.domain.host import Host
from appliance.errors import SpecError

GROUP = "llm_appliance.engines"


class Engine(Protocol):
    """What a module must hold to be an engine; strict mypy checks modules against it."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a constant of the module
        """As people type it."""

    @property
    def HEALTH(self) -> str:  # noqa: N802
        """URL path that answers 200 once it serves."""

    @property
    def PARALLEL(self) -> int:  # noqa: N802
        """Requests at the same time when the operator does not say."""

    def refuse(self, model: Model, host: Host, release: Release) -> str | None:
        """Return why it cannot serve this here, None when it can."""

    def estimate(self, model: Model, context: int, parallel: int) -> tuple[tuple[str, int], ...]:
        """Return the memory it will take as (item, bytes); `context` in tokens for each request."""

    def program(self, release: Release, state: str, python: str) -> str:
        """Return the absolute path of its executable: below the state directory, or the appliance's own `python`."""

    def launch(self, service: Service) -> Launch:
        """Return argv and environment."""

    def pages(self, service: Service) -> tuple[Page, ...]:
        """Return the configuration files that it reads itself, paths relative to the generation."""


@cache
def engines() -> dict[str, Engine]:
    """Return every engine by name."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    modules += [point.load() for point in entry_points(group=GROUP)]
    return {module.NAME: cast("Engine", module) for module in modules}


def engine(name: str) -> Engine:
    """Return the engine of that name. Raises SpecError with near names."""
    try:
        return engines()[name]
    except KeyError:
        raise SpecError(f"no engine is called {name!r}", hint=f"engines: {', '.join(sorted(engines()))}") from None
