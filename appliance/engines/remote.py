"""Remote: a provider serves the model; nothing is started here, unless a proxy stands in the way out."""

from typing import Final

from appliance.catalog import providers
from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting

NAME: Final = "remote"
HEALTH: Final = ""
"""Nobody asks a provider every second: whether it serves shows when it is asked for something."""
PARALLEL: Final = 0
"""As many as come; `--concurrency` bounds each replica."""
ADDRESS: Final = "unix"
FILLS: Final = False
ROUTES: Final = (
    "/v1/responses",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/audio/speech",
    "/v1/images/generations",
    "/v1/images/edits",
)
"""What it can be asked beside what every engine can."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Serve what has no files here."""
    return None if model.weights.format == "remote" else "serves models of providers: remote:PROVIDER/MODEL"


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    """It computes nothing."""
    return None


def spreads(model: Model, most: int) -> tuple[int, ...]:
    """It uses no GPU."""
    return ()


def caches(model: Model, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """It has no cache."""
    return ()


def layers(model: Model) -> int:
    """It has no layers."""
    return 0


def estimate(model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
    """Return nothing of the RAM."""
    return (Load(device="ram", items=()),)


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """It takes nothing of a GPU."""
    return 0


def program(release: Release, state: str, python: str) -> str:
    """Nothing is started; with a proxy it is the appliance's own tunnel, which the plan says."""
    return ""


def launch(service: Service) -> Launch:
    """The tunnel through the proxy: what it carries is encrypted, and it knows no key."""
    if not service.remote or not service.program:
        return Launch()
    return Launch(
        argv=(
            service.program, "-m", "appliance.system.tunnel",
            service.socket, providers.host(service.remote), service.remote.proxy,
        )
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """The gateway knows all about it."""
    return ()


def upstream(service: Service) -> str:
    """Return what the provider calls the model."""
    return service.remote.model if service.remote else service.model
