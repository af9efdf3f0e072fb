"""Docker, and how GPUs get into its containers."""

from collections.abc import Iterator
from typing import Final

from appliance.doctor.check import error, info, looks_for, warning
from appliance.doctor.checks.gpu import gpus
from appliance.doctor.facts import Facts
from appliance.doctor.remedy import TOOLKIT, as_root, packages
from appliance.domain.finding import Finding
from appliance.domain.host import Host

RUNTIMES: Final = ("compose", "swarm")
"""Those of ours that need Docker."""
CONFIGURE: Final = "nvidia-ctk runtime configure --runtime=docker"
CDI: Final = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


def _verdict(facts: Facts, message: str, *remedy: str, gpu: bool = True) -> Finding:
    """An error for an appliance that is to run in containers, else a warning."""
    if facts.spec.runtime not in RUNTIMES:
        return warning("docker", message, *remedy)
    return error("docker", message, *remedy, prevents=bool(facts.wants_gpu) if gpu else True)


@looks_for("docker-silent", "Docker's client is there, and no daemon answers")
def silent(host: Host, facts: Facts) -> Iterator[Finding]:
    """Only worth to know where nothing of ours runs in containers."""
    docker = host.docker
    if docker.client and not docker.server:
        message = f"no daemon answers: {docker.failure or 'it does not say why'}"
        remedy = (as_root(host, "systemctl enable --now docker"),)
        if facts.spec.runtime in RUNTIMES:
            yield _verdict(facts, message, *remedy, gpu=False)
        else:
            yield info("docker", message, *remedy)


@looks_for("docker-gpu-runtime", "the container toolkit is there, and Docker was not told of it")
def gpu_runtime(host: Host, facts: Facts) -> Iterator[Finding]:
    """Either way will do: the nvidia runtime, or CDI specifications."""
    docker = host.docker
    if not docker.server or docker.podman or not docker.toolkit or docker.snap or not gpus(host, "nvidia"):
        return
    if "nvidia" in docker.runtimes or any(kind.startswith("nvidia.com/") for kind in docker.cdi):
        return
    yield _verdict(
        facts,
        f"container toolkit {docker.toolkit} is there, and Docker {docker.server} has neither the nvidia runtime "
        "nor a CDI specification: containers get no GPU",
        as_root(host, CONFIGURE),
        as_root(host, "systemctl restart docker"),
        "or: " + as_root(host, CDI),
    )


@looks_for("docker-toolkit-missing", "NVIDIA GPUs and Docker are there, and no container toolkit")
def toolkit(host: Host, facts: Facts) -> Iterator[Finding]:
    """Engines that run from their own environments need none."""
    docker = host.docker
    if not docker.server or docker.podman or docker.toolkit or docker.cdi or docker.snap or not gpus(host, "nvidia"):
        return
    message = "no NVIDIA container toolkit: containers get no GPU"
    name = "nvidia-container-toolkit"
    remedy = (
        f"# NVIDIA's package repository must be set up: {TOOLKIT}",
        *packages(host, f"NVIDIA's container toolkit: {TOOLKIT}", apt=name, dnf=name, zypper=name, pacman=name),
        as_root(host, CONFIGURE),
        as_root(host, "systemctl restart docker"),
    )
    if facts.spec.runtime in RUNTIMES:
        yield _verdict(facts, message, *remedy)
    else:
        yield info("docker", message, *remedy)


@looks_for("docker-snap", "Docker was installed from snap, which hands no GPU to containers")
def snap(host: Host, facts: Facts) -> Iterator[Finding]:
    """Its confinement keeps the toolkit out."""
    if host.docker.snap and host.gpus:
        yield _verdict(
            facts,
            "Docker was installed from snap: its confinement keeps GPUs from containers",
            as_root(host, "snap remove docker"),
            *packages(
                host, "Docker from its own repository: https://docs.docker.com/engine/install/",
                apt="docker.io", zypper="docker", pacman="docker",
            ),
        )  # fmt: skip


@looks_for("docker-rootless-cgroups", "rootless Docker, and the container toolkit still sets device cgroups")
def rootless(host: Host, facts: Facts) -> Iterator[Finding]:
    """A daemon without root may not, so that every container with a GPU fails to start; CDI does not need it."""
    docker = host.docker
    if docker.rootless and docker.toolkit and not docker.cdi and not facts.no_cgroups and gpus(host, "nvidia"):
        yield _verdict(
            facts,
            "Docker runs rootless, and the container toolkit sets device cgroups, which it may not",
            "sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups=true --in-place",
            "systemctl --user restart docker",
        )
