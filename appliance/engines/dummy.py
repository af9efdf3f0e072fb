"""The dummy engine: speaks the OpenAI routes with fixed or echoed text, for tests, dry runs and gateway benchmarks."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting

NAME: Final = "dummy"
HEALTH: Final = "/health"
METRICS: Final = "/metrics"
PARALLEL: Final = 64
ADDRESS: Final = "unix"
FILLS: Final = False
KEPT: Final = True
"""It waits for many connections at once; a new one for each request costs as much as the gateway does."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Only where it was asked for by name: nobody wants it by accident."""
    return None if model.weights.format == "none" else "serves no weights, it only pretends"


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    """Everything works everywhere."""
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
    """Return what its Python process takes."""
    return (Load(device="ram", items=(("process", 32 << 20),)),)


def share(load: Load, gpu: Gpu, memory: int) -> float:
    """It takes nothing of a GPU."""
    return 0


def program(release: Release, state: str, python: str) -> str:
    """Return the Python that runs the appliance itself."""
    return python


def launch(service: Service) -> Launch:
    """Turn options into switches: `text`, `echo`, `token-delay`, `fail-every`, and so on."""
    return Launch(
        argv=(
            service.program, "-m", "appliance.dummy",
            "--host", f"unix:{service.socket}", "--model", service.model,
            *(word for name, value in service.options for word in (f"--{name}", value) if word),
        ),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command line."""
    return ()
