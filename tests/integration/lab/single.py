"""Single images and containers for a test, by testcontainers; what a killed run leaves goes with the lab's servers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy

from tests.integration.lab.server import LABEL, identity

# What would clean up after a killed run is an image of a registry that is not everywhere reached; our label does it too.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
SILENCE = 1800
"""Seconds that a build may say nothing: a compiler does not."""


def container(image: str, **options: Any) -> DockerContainer:
    """One that is gone, with its volumes, at the end of its `with`."""
    return DockerContainer(image).with_kwargs(labels={LABEL: identity(os.getpid())}, **options)


def serving(image: str, port: int, **options: Any) -> DockerContainer:
    """One that is waited for until its image's own HEALTHCHECK finds it well; `address` tells where it is reached."""
    waiting = HealthcheckWaitStrategy().with_startup_timeout(300).with_poll_interval(0.2)
    return container(image, **options).with_exposed_ports(port).waiting_for(waiting)


def address(box: DockerContainer, port: int) -> str:
    """Where a port of it is on this machine; another one after each start."""
    return f"http://{box.get_container_host_ip()}:{box.get_exposed_port(port)}"


def image(context: Path, name: str, *, dockerfile: str = "Dockerfile", **args: str) -> DockerImage:
    """An image that is built as its `with` begins and gone at the end; `args` are its build arguments."""
    return DockerImage(
        context, {"timeout": SILENCE}, tag=f"llm-appliance-lab-{name}:{os.getpid()}", dockerfile_path=dockerfile,
        buildargs=args, rm=True, forcerm=True, network_mode="host",
    )  # fmt: skip
