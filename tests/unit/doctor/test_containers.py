"""Docker and GPUs: what keeps them apart; it is an error only where our services are to run in containers."""

from dataclasses import replace
from typing import Any

import pytest

from appliance.domain.finding import Finding
from appliance.domain.host import Host
from appliance.domain.spec import ApplianceSpec
from tests.unit.doctor.sound import ASKS, CUDA, SYSTEMS, facts, look, only

COMPOSE = facts(spec=replace(ASKS, runtime="compose"))


def docker(**more: Any) -> Host:
    return replace(CUDA, docker=replace(CUDA.docker, **more))


def test_docker_that_was_not_told_of_the_toolkit() -> None:
    found = only("docker-gpu-runtime", docker(runtimes=("runc",)))
    assert found.severity == "warning"
    assert found.remedy == (
        "nvidia-ctk runtime configure --runtime=docker",
        "systemctl restart docker",
        "or: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    )


def test_cdi_will_do_as_well() -> None:
    assert look(docker(runtimes=("runc",), cdi=("nvidia.com/gpu",))) == {}


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("docker-gpu-runtime", {"runtimes": ("runc",)}),
        ("docker-toolkit-missing", {"toolkit": ""}),
        ("docker-snap", {"snap": True}),
        ("docker-silent", {"server": "", "failure": "permission denied"}),
    ],
)
def test_containers_that_are_asked_for_make_it_an_error(name: str, broken: dict[str, Any]) -> None:
    def found(known: object) -> Finding:
        return only(name, docker(**broken), known)  # type: ignore[arg-type]

    assert found(facts()).severity in {"warning", "info"}
    assert (found(COMPOSE).severity, found(COMPOSE).prevents) == ("error", True)


def test_containers_without_gpus_need_no_toolkit() -> None:
    spec = ApplianceSpec(runtime="compose")
    assert not only("docker-toolkit-missing", docker(toolkit=""), facts(spec=spec)).prevents
    assert look(replace(SYSTEMS["debian"], docker=replace(CUDA.docker, toolkit="")), facts(spec=spec)) == {}


@pytest.mark.parametrize(
    ("system", "command"),
    [
        ("debian", "apt-get install nvidia-container-toolkit"),
        ("rocky", "dnf install nvidia-container-toolkit"),
        ("opensuse-leap", "zypper install nvidia-container-toolkit"),
        ("arch", "pacman -S nvidia-container-toolkit"),
    ],
)
def test_the_toolkit_is_installed_the_way_of_the_distribution(system: str, command: str) -> None:
    host = replace(docker(toolkit=""), os=SYSTEMS[system].os)
    assert command in only("docker-toolkit-missing", host).remedy


def test_rootless_docker_may_not_set_device_cgroups() -> None:
    host = docker(rootless=True)
    assert "no-cgroups=true" in only("docker-rootless-cgroups", host, facts(no_cgroups=False)).remedy[0]
    assert look(host, facts(no_cgroups=True)) == {}


def test_a_daemon_that_does_not_answer_says_why() -> None:
    assert only("docker-silent", docker(server="", failure="permission denied")).message == (
        "no daemon answers: permission denied"
    )
