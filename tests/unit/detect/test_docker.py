"""Docker: client, daemon, plugin, and what hands GPUs to containers."""

import json

import pytest

from appliance.detect import docker
from appliance.domain.host import Docker, Podman
from tests.unit.recorded import Answer, Argv, RecordedMachine

DOCKER = "/usr/bin/docker"
VERSION = Answer(
    stdout=json.dumps({"Client": {"Version": "28.2.2", "ApiVersion": "1.50"}, "Server": {"Version": "28.1.1"}})
)
DOWN = Answer(
    stdout=json.dumps({"Client": {"Version": "28.2.2", "ApiVersion": "1.50"}, "Server": None}),
    stderr="Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n",
    code=1,
)
INFO = Answer(
    stdout=json.dumps(
        {
            "Runtimes": {"runc": {}, "nvidia": {}},
            "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}],
            "CDISpecDirs": ["/opt/cdi"],
        }
    )
)
COMPOSE = Answer(stdout="2.24.5\n")


def machine(
    version: Answer = VERSION,
    info: Answer = INFO,
    compose: Answer = COMPOSE,
    *,
    program: str = DOCKER,
    files: dict[str, bytes] | None = None,
    programs: dict[str, str] | None = None,
) -> RecordedMachine:
    answers: dict[Argv, Answer] = {
        (program, *docker.VERSION): version,
        (program, *docker.INFO): info,
        (program, *docker.COMPOSE): compose,
        ("nvidia-ctk", "--version"): Answer(stdout="NVIDIA Container Toolkit CLI version 1.17.4\ncommit: 9b\n"),
    }
    known = {"docker": program, **(programs or {})}
    return RecordedMachine(answers=answers, files=files, programs=known)


def test_a_daemon_that_can_hand_out_gpus() -> None:
    files = {
        "/etc/cdi/amd.json": b'{"kind": "amd.com/gpu"}',
        "/opt/cdi/intel.yaml": b"kind: intel.com/gpu\n",
        "/etc/cdi/notes.txt": b"kind: no/spec\n",
    }
    found = docker.probe(machine(files=files, programs={"nvidia-ctk": "/usr/bin/nvidia-ctk"}))
    assert found == Docker(
        client="28.2.2",
        server="28.1.1",
        compose="2.24.5",
        runtimes=("nvidia", "runc"),
        cdi=("amd.com/gpu", "intel.com/gpu", "nvidia.com/gpu"),
        toolkit="1.17.4",
    )


def test_no_docker_asks_nothing() -> None:
    alone = RecordedMachine(files={"/var/run/cdi/nvidia.yaml": b"kind: nvidia.com/gpu\n"})
    assert docker.probe(alone) == Docker(cdi=("nvidia.com/gpu",)), "a spec may be there for another runtime"
    assert alone.ran() == []


def test_a_client_without_a_daemon() -> None:
    asked = machine(DOWN)
    found = docker.probe(asked)
    assert (found.client, found.server, found.compose) == ("28.2.2", "", "2.24.5")
    assert found.failure.startswith("Cannot connect to the Docker daemon")
    assert (DOCKER, *docker.INFO) not in asked.ran()


def test_compose_1_is_not_compose() -> None:
    absent = Answer(stderr="unknown flag: --short\n", code=125)
    asked = machine(compose=absent, programs={"docker-compose": "/usr/bin/docker-compose"})
    assert docker.probe(asked).compose == ""


SHIM = Answer(
    stdout=json.dumps({"Client": {"Version": "4.3.1", "APIVersion": "4.3.1"}}),
    stderr="Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.\n",
)
PODMAN = "/usr/bin/podman"
SERVES = Answer(stdout=json.dumps({"Client": {"Version": "4.3.1"}, "Server": {"Version": "4.3.0"}}))
SILENT = Answer(stderr="Error: unable to connect to Podman socket: no such file or directory\n", code=125)


def with_podman(answer: Answer, version: Answer = DOWN, programs: dict[str, str] | None = None) -> RecordedMachine:
    """Return a machine with Podman, and Docker's client where `programs` name it."""
    there = machine(version, programs={"docker": "", "podman": PODMAN, **(programs or {})})
    there.answers[PODMAN, *docker.PODMAN] = answer
    there.answers["/usr/bin/docker-compose", "version", "--short"] = Answer(stdout="2.26.1-4\n")
    there.answers[docker.PLUGINS[0], "version", "--short"] = COMPOSE
    return there


def test_podman_is_not_docker() -> None:
    assert docker.probe(machine(SHIM)) == Docker(failure="Podman answers in Docker's place")


@pytest.mark.parametrize(("client", "answer"), [("", DOWN), (DOCKER, DOWN), (DOCKER, SHIM)])
def test_podmans_service_is_asked_where_no_daemon_of_docker_answers(client: str, answer: Answer) -> None:
    files = {"/etc/cdi/nvidia.yaml": b"kind: nvidia.com/gpu\n"}
    there = with_podman(SERVES, answer, {"docker": client, "docker-compose": "/usr/bin/docker-compose"})
    there.files.update(files)
    assert docker.probe(there) == Docker(
        client="4.3.1",
        server="4.3.0",
        compose="2.26.1-4",
        cdi=("nvidia.com/gpu",),
        podman=Podman(socket="/run/podman/podman.sock", compose="/usr/bin/docker-compose"),
    )


def test_docker_comes_before_podman() -> None:
    there = with_podman(SERVES, VERSION, {"docker": DOCKER})
    assert docker.probe(there).podman is None
    assert not any(argv[0] == PODMAN for argv in there.ran())


def test_composes_plugin_is_a_program_too_and_its_first_version_is_none() -> None:
    plugin = docker.PLUGINS[0]
    there = with_podman(SERVES, programs={"docker-compose": "/usr/local/bin/docker-compose", plugin: plugin})
    there.answers["/usr/local/bin/docker-compose", "version", "--short"] = Answer(stdout="1.29.2\n")
    found = docker.probe(there)
    assert (found.compose, found.podman) == ("2.24.5", Podman(socket=docker.SOCKET, compose=plugin))
    assert docker.probe(with_podman(SERVES)).podman == Podman(socket=docker.SOCKET)


def test_podman_without_its_socket_says_how_to_open_it_and_hides_no_docker() -> None:
    alone = docker.probe(with_podman(SILENT))
    assert (alone.server, alone.podman) == ("", None)
    assert "systemctl enable --now podman.socket" in alone.failure and "unable to connect" in alone.failure
    assert docker.probe(with_podman(SILENT, programs={"docker": DOCKER})).failure.startswith(
        "Cannot connect to the Docker daemon"
    )


@pytest.mark.parametrize("place", docker.SNAP)
def test_snap_is_off_the_path_and_told(place: str) -> None:
    program = f"{place}/docker"
    found = docker.probe(machine(program=program, files={program: b""}, programs={"docker": ""}))
    assert (found.client, found.snap) == ("28.2.2", True)


def test_a_daemon_from_snap_with_a_client_of_its_own() -> None:
    info = Answer(stdout=json.dumps({"DockerRootDir": "/var/snap/docker/common/var-lib-docker"}))
    assert docker.probe(machine(info=info)).snap


@pytest.mark.parametrize(
    "said",
    ["", "[]", "null", '{"Client": [], "Server": 3}', '{"Client": {"Version": 1}}', "[" * 100_000, '{"a": ' * 50_000],
)
def test_an_answer_that_is_none(said: str) -> None:
    found = docker.probe(machine(Answer(stdout=said), Answer(stdout=said)))
    assert (found.client, found.server) == ("", "")
    assert found.failure


def test_a_failure_is_one_line_of_some_length() -> None:
    found = docker.probe(machine(Answer(stderr="WARNING: x\nerror: " + "bad\t" * 200 + "\nmore\n", code=1)))
    assert found.failure.startswith("bad bad")
    assert len(found.failure) <= docker.LINE
