"""llama-cpp-python's server: one request at a time, for those who need its own routes."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Launch, Model, Release, Service
from appliance.domain.host import Host

NAME: Final = "llama-cpp-python"
HEALTH: Final = "/v1/models"
PARALLEL: Final = 1
BUFFERS: Final = 384 << 20
"""Bytes for compute buffers and the Python process."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse what is not GGUF, and machines that the release was not made for."""
    if model.weights.format != "gguf":
        return f"reads GGUF files only, {model.name} is {model.weights.format} ({model.weights.architecture})"
    if host.arch not in release.arch:
        return f"{release.version} is for {', '.join(release.arch)}, this machine is {host.arch}"
    return None


def estimate(model: Model, context: int, parallel: int) -> tuple[tuple[str, int], ...]:
    """It serves one request at a time, whatever is asked."""
    return (
        ("weights", model.weights.size),
        ("KV cache", model.weights.kv_bytes_per_token * context),
        ("buffers", BUFFERS),
    )


def program(release: Release, state: str, python: str) -> str:
    """Return the environment's Python."""
    return f"{state}/engines/llama-cpp-python-{release.artifacts[0].digest[:16]}/bin/python"


def launch(service: Service) -> Launch:
    """Its command line knows TCP only, so uvicorn is pointed at the socket and the settings come by environment."""
    return Launch(
        argv=(
            service.program, "-m", "uvicorn", "--factory", "llama_cpp.server.app:create_app",
            "--uds", service.socket, "--log-level", "warning",
        ),
        env=(
            ("MODEL", service.weights),
            ("MODEL_ALIAS", service.model),
            ("N_CTX", str(service.context)),
            ("N_THREADS", str(service.threads)),
            ("INTERRUPT_REQUESTS", "false"),
            *((name.replace("-", "_").upper(), value) for name, value in service.options),
        ),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is in the environment."""
    return ()
