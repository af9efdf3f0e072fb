"""llama.cpp's own server: parallel slots, metrics, a unix socket; built from the pinned source."""

from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Launch, Model, Release, Service
from appliance.domain.host import Host

NAME: Final = "llama-cpp"
HEALTH: Final = "/health"
PARALLEL: Final = 4
BUFFERS: Final = 256 << 20
"""Bytes for compute buffers and the program; a 3 MB model was seen to take 25 MB in all, large ones take more."""


def refuse(model: Model, host: Host, release: Release) -> str | None:
    """Refuse what is not GGUF, and machines that the release was not made for."""
    if model.weights.format != "gguf":
        return f"reads GGUF files only, {model.name} is {model.weights.format} ({model.weights.architecture})"
    if host.arch not in release.arch:
        return f"{release.version} is for {', '.join(release.arch)}, this machine is {host.arch}"
    return None


def estimate(model: Model, context: int, parallel: int) -> tuple[tuple[str, int], ...]:
    """Weights are mapped whole; the KV cache is reserved for all slots at start."""
    return (
        ("weights", model.weights.size),
        ("KV cache", model.weights.kv_bytes_per_token * context * parallel),
        ("buffers", BUFFERS),
    )


def program(release: Release, state: str, python: str) -> str:
    """Return the built server's path."""
    return f"{state}/engines/llama-cpp-{release.artifacts[0].digest[:16]}/bin/llama-server"


def launch(service: Service) -> Launch:
    """One context of `context` tokens for each slot; the server divides `--ctx-size` among them."""
    return Launch(
        argv=(
            service.program,
            "--model", service.weights,
            "--alias", service.model,
            "--host", service.socket,
            "--ctx-size", str(service.context * service.parallel),
            "--parallel", str(service.parallel),
            "--threads", str(service.threads),
            "--jinja", "--metrics", "--no-webui", "--offline",
            # Its default keeps 8 GiB of old prompts, which no memory plan knows of.
            "--cache-ram", "0",
            *(word for name, value in service.options for word in (f"--{name}", value) if word),
        ),
    )  # fmt: skip


def pages(service: Service) -> tuple[Page, ...]:
    """Everything is on the command line."""
    return ()
