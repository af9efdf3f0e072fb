"""The engines: one module each, found by discovery and by the entry point group `llm_appliance.engines`."""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from typing import Protocol, cast

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting
from appliance.domain.spec import EXPOSABLE, ModelSpec
from appliance.errors import SpecError
from appliance.options import Flags, plain, problem

GROUP = "llm_appliance.engines"
VISIBILITY = {
    "nvidia": "CUDA_VISIBLE_DEVICES",
    "amd": "HIP_VISIBLE_DEVICES",
    "intel": "ZE_AFFINITY_MASK",
    "ascend": "ASCEND_RT_VISIBLE_DEVICES",
    "metax": "CUDA_VISIBLE_DEVICES",
    "moore-threads": "MUSA_VISIBLE_DEVICES",
    "hygon": "HIP_VISIBLE_DEVICES",
}
"""Vendor -> the variable that names the GPUs that a program may see."""


BASE = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank")
"""What every model can be asked, whether it knows it or not: its engine says so in its own words."""


class Engine(Protocol):
    """What a module must hold to be an engine; strict mypy checks modules against it.

    It may hold besides: `FLAGS`, what it calls the uniform options (without it, it has none); `OWNED`, flag -> why the
    operator may not set it; `upstream(service)`, what `model` of a request must say where that is not the model's name;
    `METRICS`, the URL path of its own counters, in Prometheus' form; `MODELSCOPE`, the variable that makes ModelScope
    its hub; `ROUTES`, what it can be asked beside BASE, or path
    of ours -> its own; `KEPT`, True where connections to it may be kept; `NAMELESS`, True where it refuses requests
    whose X-Request-Id is no UUID; `LIMITED`, True where it must not get more requests than it works on at the same
    time.
    """

    @property
    def NAME(self) -> str:  # noqa: N802 - a constant of the module
        """As people type it."""

    @property
    def HEALTH(self) -> str:  # noqa: N802
        """URL path that answers 200 once it serves; may hold `{model}`, the served model's name."""

    @property
    def PARALLEL(self) -> int:  # noqa: N802
        """Requests that are planned for, each with the whole context, when the operator does not say."""

    @property
    def ADDRESS(self) -> str:  # noqa: N802
        """`unix` where it can listen on a socket, `tcp` where it knows ports only."""

    @property
    def FILLS(self) -> bool:  # noqa: N802
        """It gives its cache all that is left of a GPU, and needs to be told how much that is."""

    def refuse(self, model: Model, host: Host, release: Release) -> str | None:
        """Return why it cannot serve this model, None when it can; what a release needs, the catalog says."""

    def unfit(self, model: Model, gpus: tuple[Gpu, ...]) -> str | None:
        """Return why it cannot serve this model on these GPUs (() = the CPU), which have code of the release."""

    def spreads(self, model: Model, most: int) -> tuple[int, ...]:
        """Return over how many GPUs, up to `most`, one replica can be spread, fewest first."""

    def caches(self, model: Model, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
        """Return the types of a smaller KV cache that work there, the better ones first."""

    def layers(self, model: Model) -> int:
        """Return how many layers can be left in RAM one by one; 0 = all lie on GPUs, or all in RAM."""

    def estimate(self, model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
        """Return what one replica takes of the RAM and of each GPU."""

    def share(self, load: Load, gpu: Gpu, memory: int) -> float:
        """Return what its flag must say so that it takes `load` of a GPU with `memory` bytes."""

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


def health(service: Service) -> str:
    """Return the URL path that answers 200 once this service serves its model."""
    return engine(service.engine).HEALTH.replace("{model}", service.model)


def flags(module: Engine) -> Flags:
    """Return what an engine calls the uniform options."""
    known: Flags = getattr(module, "FLAGS", {})
    return known


def unable(item: ModelSpec, module: Engine, version: str = "") -> str:
    """Return why an engine cannot do what the options ask for, "" when it can."""
    return problem(flags(module), getattr(module, "OWNED", {}), item, module.NAME, version, _elsewhere())


@cache
def _elsewhere() -> dict[str, str]:
    """Return what each engine calls a uniform option -> that option: guides for one engine are tried with another."""
    return {plain(flag.name): option for one in engines().values() for option, flag in flags(one).items() if flag.name}


def paths(service: Service, expose: tuple[str, ...] = ()) -> tuple[tuple[str, str], ...]:
    """Return what a replica can be asked: (path of ours, path of the engine's)."""
    routes: dict[str, str] | tuple[str, ...] = getattr(engine(service.engine), "ROUTES", ())
    own = routes if isinstance(routes, dict) else {path: path for path in routes}
    hidden = {f"/{word}" for word in EXPOSABLE} - {f"/{word}" for word in expose}
    known = {path: path for path in BASE} | own
    return tuple(sorted((ours, theirs) for ours, theirs in known.items() if ours not in hidden))


def bound(service: Service) -> int:
    """Return how many requests a replica should get at the same time, 0 = as many as come."""
    limited = getattr(engine(service.engine), "LIMITED", False) or service.remote
    return service.setting.parallel if limited else 0


def nameless(service: Service) -> bool:
    """Return whether its engine is told no X-Request-Id, because it refuses what is no UUID."""
    return bool(getattr(engine(service.engine), "NAMELESS", False))


def metrics(service: Service) -> str:
    """Return the URL path of a replica's own counters, "" where its engine has none."""
    return str(getattr(engine(service.engine), "METRICS", ""))


def keeps(service: Service) -> bool:
    """Tell whether connections to a replica may be kept."""
    return bool(getattr(engine(service.engine), "KEPT", False))


def upstream(service: Service) -> str:
    """Return what `model` of a request must say towards a replica."""
    named = getattr(engine(service.engine), "upstream", None)
    return str(named(service)) if named else service.model
