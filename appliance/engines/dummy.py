"""The dummy engine: speaks the OpenAI routes with fixed or echoed text, for tests, dry runs and gateway benchmarks."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Launch, Model, Release, Service
from appliance.domain.host import Host

NAME: Final = "dummy"
HEALTH: Final = "/health"
PARALLEL: Final = 64


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Only where it was asked for by name: nobody wants it by accident."""
    return None if model.weights.format == "none" else "serves no weights, it only pretends"


def estimate(model: Model, context: int, parallel: int) -> tuple[tuple[str, int], ...]:
    """Return what its Python process takes."""
    return (("process", 32 << 20),)


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
