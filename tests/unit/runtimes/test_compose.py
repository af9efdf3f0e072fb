"""Compose: where it may be used, what its file says, what is made anew for which change, how its answers are read."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
import yaml

from appliance.domain.changes import Command, Completed
from appliance.domain.deployment import Deployment
from appliance.domain.host import Docker, Podman
from appliance.domain.release import Artifact
from appliance.domain.spec import Images
from appliance.render.pages import launches, render
from appliance.runtimes import compose
from tests.unit.samples import CATALOG, GPU_CATALOG, HOST, deployment, gpu, gpu_host, item, layout, safetensors

DOCKER = Docker(client="28.0.0", server="28.0.0", compose="2.26.1", runtimes=("runc",))
WITH = replace(HOST, docker=DOCKER)
PODMAN = replace(
    DOCKER, client="4.3.1", server="4.3.1", podman=Podman(socket="/run/podman/podman.sock", compose="/usr/bin/docker-compose")
)  # fmt: skip
IMAGE = Artifact(name="llama-server", kind="image", ref="registry.example/llama:1", digest="", program="/app/server")
BOXED = replace(
    CATALOG, releases=(replace(CATALOG.releases[0], artifacts=(*CATALOG.releases[0].artifacts, IMAGE)),)
)  # fmt: skip
AWKWARD = "a b; $HOME ${x} \"q\" 'q' \\ %h #no: yes"
UNIT = "/etc/systemd/system/llm-appliance.service"
BEGIN = "docker compose --ansi=never --project-name=llm-appliance --file=/var/lib/llm-appliance/current/compose.yaml "


def planned(*items: Any, **more: Any) -> Deployment:
    return deployment(*items, **{"host": WITH, "catalog": BOXED, "runtime": "compose", **more})


PLAN = planned(item("a"), item("b", replicas=2, options=(("chat-template", AWKWARD),)))


def file_of(plan: Deployment) -> dict[str, Any]:
    (text,) = (file.content.decode() for file in render(plan).files if file.path == "compose.yaml")
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def words(commands: tuple[Command, ...]) -> list[str]:
    return [" ".join(command.argv).removeprefix(BEGIN) for command in commands]


@pytest.mark.parametrize(
    ("docker", "why"),
    [
        (DOCKER, None),
        (Docker(), "Docker is not installed"),
        (Docker(client="28.0.0"), "no Docker daemon answers"),
        (Docker(client="28.0.0", failure="permission denied"), "permission denied"),
        (replace(DOCKER, compose=""), "Docker's Compose plugin is not installed"),
        (replace(DOCKER, compose="2.3.3"), "Compose 2.3.3 is too old, 2.20 is needed"),
        (replace(DOCKER, snap=True), "Docker from snap sees no files of the system"),
        (
            replace(DOCKER, rootless=True),
            "Docker runs rootless: its containers cannot be given files of numbered users",
        ),
        (PODMAN, None),
        (replace(PODMAN, server="3.4.4"), "Podman 3.4.4 is too old, 4.3 is needed"),
        (
            replace(PODMAN, compose="", podman=Podman(socket="/run/podman/podman.sock")),
            "Podman needs docker-compose, a program of its own, of version 2",
        ),
    ],
)
def test_where_it_cannot_be_used(docker: Docker, why: str | None) -> None:
    assert compose.refuse(replace(HOST, docker=docker), "/") == why


def test_it_needs_root() -> None:
    assert compose.refuse(replace(WITH, root=False), "/") == "needs root"


def test_a_service_for_each_replica_and_one_for_the_gateway() -> None:
    assert [*file_of(PLAN)["services"]] == ["gateway", "a", "b_1", "b_2"]
    assert [page.path for page in compose.pages(PLAN, launches(PLAN))] == ["compose.yaml", UNIT]


def test_without_systemd_there_is_no_unit_and_below_a_prefix_neither() -> None:
    for more in ({"host": replace(WITH, systemd=0, init="tini")}, {"where": layout("/srv/llm")}):
        plan = planned(**more)
        assert [page.path for page in compose.pages(plan, launches(plan))] == ["compose.yaml"]
        commands = (*compose.activate(plan, frozenset({"compose.yaml"})), *compose.retire(plan, ("gateway", "tiny")))
        assert {command.argv[0] for command in commands} == {"docker"}


def test_another_prefix_is_another_project() -> None:
    assert file_of(PLAN)["name"] == "llm-appliance"
    one, two = (file_of(planned(where=layout(prefix)))["name"] for prefix in ("/srv/a", "/srv/b"))
    assert len({one, two, "llm-appliance"}) == 3


def test_words_arrive_as_they_are_whatever_they_hold() -> None:
    argv = file_of(PLAN)["services"]["b_1"]["entrypoint"]
    assert AWKWARD.replace("$", "$$") in argv
    assert argv[argv.index("/run/llm-appliance/b_1/engine.sock") + 1] == "/app/server"


def test_an_engine_with_a_socket_has_no_network_and_sees_its_own_socket_only() -> None:
    service = file_of(PLAN)["services"]["b_1"]
    assert service["network_mode"] == "none"
    there = {one["target"]: one.get("read_only", False) for one in service["volumes"]}
    assert there == {
        "/run/llm-appliance/b_1": False,
        "/var/cache/llm-appliance/b_1": False,
        f"/var/lib/llm-appliance/store/models/{'d' * 64}": True,
    }


def test_an_engine_with_a_port_is_reached_through_a_relay_and_the_gateway_knows_its_socket_only() -> None:
    lmdeploy = next(one for one in GPU_CATALOG.releases if one.engine == "lmdeploy")
    image = Artifact(name="lmdeploy", kind="image", ref="lmdeploy:1", digest="", program="lmdeploy")
    catalog = replace(CATALOG, releases=(replace(lmdeploy, artifacts=(image,)),))
    host = replace(gpu_host(gpu()), docker=replace(DOCKER, runtimes=("nvidia", "runc")))
    plan = planned(host=host, catalog=catalog, facts=safetensors())
    (service,) = plan.services
    assert service.address == "unix:/run/llm-appliance/tiny/engine.sock"
    services = file_of(plan)["services"]
    assert [*services] == ["gateway", "tiny_relay", "tiny"]
    assert services["tiny"]["network_mode"] == "service:tiny_relay"
    assert services["tiny_relay"]["network_mode"] == "none"
    assert services["tiny_relay"]["entrypoint"][-1] == f"TCP4:127.0.0.1:{service.port}"
    assert services["tiny"]["entrypoint"][0] == "lmdeploy"
    assert not any("sockets" in volume["source"] for volume in services["tiny"]["volumes"])
    assert "tiny_relay" in compose.retire(plan, ("tiny",))[0].argv


def test_a_changed_file_lets_compose_make_anew_what_differs() -> None:
    assert words(compose.activate(PLAN, frozenset({"compose.yaml"}))) == [
        "up --detach --remove-orphans",
        "systemctl enable --quiet llm-appliance.service",
        "systemctl start --no-block llm-appliance.service",
    ]


def test_the_gateway_rereads_its_configuration_before_anything_is_made_anew() -> None:
    for path in ("nginx/nginx.conf", "nginx/gateway.lua"):
        assert words(compose.activate(PLAN, frozenset({path})))[:2] == [
            "kill --signal HUP gateway",
            "up --detach --remove-orphans",
        ]
    assert words(compose.activate(PLAN, frozenset({"nginx/gateway.json"})))[0] == "up --detach --remove-orphans"


def test_another_model_leaves_gateway_and_others_as_they_are() -> None:
    before, after = (file_of(plan)["services"] for plan in (planned(item("a")), planned(item("a"), item("b"))))
    assert (before["gateway"], before["a"]) == (after["gateway"], after["a"])


def test_with_the_last_service_everything_goes() -> None:
    assert words(compose.retire(PLAN, ("b_1",))) == ["rm --stop --force b_1"]
    assert words(compose.retire(PLAN, ("gateway", "a", "b_1", "b_2"))) == [
        "systemctl disable --quiet llm-appliance.service",
        "systemctl stop llm-appliance.service",
        "down --remove-orphans --volumes --timeout 15",
    ]


def test_one_model_or_all() -> None:
    assert words(compose.stop(PLAN, "b")) == ["stop b_1 b_2"]
    assert words(compose.stop(PLAN, "")) == ["systemctl stop llm-appliance.service"]
    assert words(compose.start(PLAN, "b")) == ["up --detach --wait b_1 b_2"]
    assert words(compose.start(PLAN, "")) == ["systemctl start llm-appliance.service", "up --detach --wait"]
    assert words(compose.restart(PLAN, "a")) == ["restart a", "up --detach --wait a"]
    assert " ".join(compose.logs(PLAN, ("a",), follow=False, lines=9).argv) == "docker logs --tail=9 llm-appliance-a-1"


def test_several_logs_and_what_comes_are_shown_by_a_program_of_ours() -> None:
    begin = f"{PLAN.python} -m appliance.system.tail --project llm-appliance --lines 9 --since 0 "
    for services, follow, rest in (
        (("a",), True, "--follow a"),
        (("b_1", "b_2"), False, "b_1 b_2"),
        ((), True, "--follow gateway a b_1 b_2"),
    ):
        assert " ".join(compose.logs(PLAN, services, follow=follow, lines=9).argv) == begin + rest
    by_podman = compose.logs(planned(host=replace(WITH, docker=PODMAN)), (), follow=False, lines=9)
    assert "--podman /run/podman/podman.sock" in " ".join(by_podman.argv)


def test_podman_is_spoken_to_at_its_socket_and_nothing_of_docker_is_needed() -> None:
    plan = planned(item("a"), host=replace(WITH, docker=PODMAN))
    began = "/usr/bin/docker-compose --host unix:///run/podman/podman.sock --ansi=never --project-name=llm-appliance "
    commands = (
        *compose.check(plan, "/g"), *compose.activate(plan, frozenset({"compose.yaml"})), *compose.start(plan, "a"),
        *compose.retire(plan, ("gateway", "a")),
    )  # fmt: skip
    by_program: dict[str, list[str]] = {}
    for command in commands:
        by_program.setdefault(command.argv[0], []).append(" ".join(command.argv))
    assert {*by_program} == {"/usr/bin/docker-compose", "podman", "systemctl", "systemd-analyze"}
    assert all(one.startswith(began) for one in by_program["/usr/bin/docker-compose"])
    assert compose.status(plan).argv[0] == compose.logs(plan, ("a",), follow=False, lines=1).argv[0] == "podman"
    (unit,) = (file.content.decode() for file in render(plan).files if file.path == UNIT)
    assert (
        f"ExecStart=-{began}" in unit.replace('"', "")
        and "After=podman.socket" in unit
        and "docker.service" not in unit
    )


def test_podmans_times_have_the_zone_of_the_machine() -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 3600 - 60)) + ".123456789+01:00"
    state = {"Status": "running", "Pid": 7, "StartedAt": stamp}
    row = {"Name": "llm-appliance-a-1", "State": state, "RestartCount": 0}
    _, a, *_ = compose.read_status(PLAN, Completed(argv=(), code=0, stdout=json.dumps([row]), stderr="", seconds=0))
    assert a.state == "running" and -70 < a.since < -50


def container(name: str, status: str, seconds: float = 60, restarts: int = 0, **more: Any) -> dict[str, Any]:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - seconds)) + ".123456789Z"
    state = {"Status": status, "Pid": 7, "ExitCode": 0, "StartedAt": stamp, "FinishedAt": stamp, "Error": "", **more}
    return {"Name": f"/llm-appliance-{name}-1", "State": state, "RestartCount": restarts}


@pytest.mark.parametrize(
    ("row", "state", "detail"),
    [
        (container("a", "running"), "running", ""),
        (container("a", "running", restarts=9), "running", ""),
        (container("a", "running", seconds=-3600, restarts=3), "failed", "crash loop, restarted 3 times"),
        (container("a", "restarting", restarts=2, ExitCode=1), "failed", "exit code 1, restarted 2 times"),
        (container("a", "created"), "starting", ""),
        (container("a", "exited"), "stopped", ""),
        (container("a", "exited", ExitCode=137, OOMKilled=True), "stopped", "out of memory, exit code 137, restarted 0 times"),
    ],
)  # fmt: skip
def test_states(row: dict[str, Any], state: str, detail: str) -> None:
    done = Completed(argv=(), code=1, stdout=json.dumps([row]), stderr="no such container: b", seconds=0)
    gateway, a, *others = compose.read_status(PLAN, done)
    assert (a.name, a.state, a.detail, a.pid) == ("a", state, detail, 7)
    assert {one.state for one in (gateway, *others)} == {"stopped"}
    assert a.since < 0


def test_no_daemon_is_said() -> None:
    done = Completed(argv=(), code=1, stdout="", stderr="Cannot connect to the Docker daemon", seconds=0)
    assert {(one.state, one.detail) for one in compose.read_status(PLAN, done)} == {
        ("stopped", "Cannot connect to the Docker daemon")
    }


def test_a_registry_of_ones_own_has_all_images_and_what_is_built_here_too() -> None:
    plan = planned(images=Images(registry="mirror.example:5000/x/"))
    assert plan.services[0].container
    assert plan.services[0].container.image == "mirror.example:5000/x/registry.example/llama:1"
    assert plan.gateway.image.startswith("mirror.example:5000/x/llm-appliance/gateway:")
