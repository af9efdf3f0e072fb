"""The test lab: fresh Debian servers with a real systemd, booted as containers on one machine."""

from tests.integration.lab.docker import base_into, docker_into, podman_into
from tests.integration.lab.images import base_image
from tests.integration.lab.machine import LabError, dockerd, missing_ability, require_packages
from tests.integration.lab.process import Process
from tests.integration.lab.server import (
    CommandFailed,
    Completed,
    FileState,
    Lab,
    Mount,
    Server,
    difference,
    remove_leftovers,
)
from tests.integration.lab.single import address, container, image, serving

__all__ = [
    "CommandFailed",
    "Completed",
    "FileState",
    "Lab",
    "LabError",
    "Mount",
    "Process",
    "Server",
    "address",
    "base_image",
    "base_into",
    "container",
    "difference",
    "docker_into",
    "dockerd",
    "image",
    "missing_ability",
    "podman_into",
    "remove_leftovers",
    "require_packages",
    "serving",
]
