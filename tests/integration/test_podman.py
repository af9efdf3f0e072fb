"""A fresh server that has Podman and nothing of Docker: straight into containers, operated, taken away."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration import product
from tests.integration.faults import SLOW
from tests.integration.lab import Lab, Server, podman_into
from tests.integration.product import SMOKE
from tests.integration.typed import command, until

PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
WEIGHTS = product.ROOT / "appliance/smoke/smoke.gguf"
SECOND = "/srv/models/second.gguf"
ETC, STATE = "/etc/llm-appliance", "/var/lib/llm-appliance"
GATEWAY, MODEL = "llm-appliance-gateway-1", "llm-appliance-smoke-1"
LOCAL = "lab-base:1"
"""The base that images are built on here, where no registry can be reached."""


pytestmark = SLOW


def containers(server: Server) -> dict[str, dict[str, Any]]:
    """Every container that is there, by name, as Podman describes it."""
    names = server.run("podman", "ps", "--all", "--quiet", "--no-trunc").stdout.split()
    rows = json.loads(server.run("podman", "container", "inspect", *names).stdout) if names else []
    return {row["Name"]: row for row in rows}


def running(server: Server) -> dict[str, str]:
    return {name: row["Id"] for name, row in containers(server).items() if row["State"]["Running"]}


@pytest.fixture(scope="module")
def fresh(lab: Lab) -> Iterator[Server]:
    """A server on which nothing of ours has been, with Podman."""
    with lab.boot("podman") as server:
        began = time.monotonic()
        podman_into(server, LOCAL)
        print(f"\nPodman and Compose in the server: {time.monotonic() - began:.0f} s")
        product.put_checkout(server)
        product.seed(server)
        server.put(WEIGHTS, SECOND, mode="0644")
        server.write(f"{ETC}/appliance.yaml", f"images:\n  base: {LOCAL}\n")
        yield server


@pytest.fixture(scope="module")
def boxed(fresh: Server) -> Server:
    process = product.install(fresh, "--runtime", "compose")
    assert process.wait(timeout=2400) == 0, process.output
    print(process.output)
    assert ANSWER in process.output
    return fresh


def test_where_its_socket_is_closed_the_way_out_is_said_and_nothing_is_written(fresh: Server) -> None:
    fresh.run("systemctl", "stop", "podman.socket", "podman.service")
    process = product.install(fresh, "--runtime", "compose")
    assert process.wait(timeout=600) == 4, process.output
    assert "Podman's service does not answer" in process.output
    assert "systemctl enable --now podman.socket" in process.output
    assert not fresh.exists(f"{STATE}/generations") and not fresh.exists("/etc/systemd/system/llm-appliance.service")
    fresh.run("systemctl", "start", "podman.socket")


def test_a_fresh_server_answers_from_containers_and_has_nothing_of_docker(boxed: Server) -> None:
    assert boxed.run("sh", "-c", "command -v docker || command -v dockerd", check=False).stdout == ""
    assert "Podman 4." in command(boxed, "detect").stdout
    assert set(running(boxed)) == {GATEWAY, MODEL}
    assert product.chat(boxed, PROMPT, path="/smoke/v1") == ANSWER
    assert "changed=0" in command(boxed, "install").stdout
    images = command(boxed, "image", "list").stdout
    assert "built from images/gateway" in images and "built from images/llama-cpp" in images
    assert "docker.io/" not in images


def test_what_podman_says_of_every_container(boxed: Server) -> None:
    for name, row in containers(boxed).items():
        host = row["HostConfig"]
        assert not host["Privileged"] and host["ReadonlyRootfs"], name
        assert row["EffectiveCaps"] in (None, []), name
        assert row["Config"]["User"] in ("60700:60700", "60701:60700"), name
        assert host["PidsLimit"] > 0 and host["Memory"] > 0, name
        assert host["NetworkMode"] == ("bridge" if name == GATEWAY else "none"), name
        assert not any(".sock" in mount["Source"] for mount in row["Mounts"]), name
        status = boxed.run("podman", "exec", name, "grep", "-E", "CapEff|NoNewPrivs", "/proc/1/status").stdout
        assert re.search(r"CapEff:\t0+\n", status) and re.search(r"NoNewPrivs:\t1\n", status), status
    listening = [line.split()[3] for line in boxed.run("ss", "-ltnH").stdout.splitlines()]
    assert [one for one in listening if one.endswith(":8080")] == ["127.0.0.1:8080"]


def test_the_unit_starts_and_stops_the_containers(boxed: Server) -> None:
    boxed.run("systemctl", "stop", "llm-appliance")
    assert running(boxed) == {}
    assert command(boxed, "status", code=None).code == 7
    boxed.run("systemctl", "start", "llm-appliance")
    assert set(running(boxed)) == {GATEWAY, MODEL}
    assert product.chat(boxed, PROMPT) == ANSWER
    gateway = running(boxed)[GATEWAY]
    command(boxed, "restart", "smoke")
    assert product.chat(boxed, PROMPT) == ANSWER
    assert running(boxed)[GATEWAY] == gateway
    assert "model loaded" in command(boxed, "logs", "smoke", "--lines", "200").stdout
    assert "gateway" in command(boxed, "logs").stdout


def test_a_killed_engine_comes_back(boxed: Server) -> None:
    pid = containers(boxed)[MODEL]["State"]["Pid"]
    boxed.sh(f"kill -KILL {pid}")
    until("it answers again", lambda: product.answers(boxed))
    assert containers(boxed)[MODEL]["State"]["Pid"] != pid


def test_a_model_comes_and_goes_and_one_that_does_not_start_is_taken_back(boxed: Server) -> None:
    before = running(boxed)
    command(boxed, "add-model", "second", SECOND)
    assert product.chat(boxed, PROMPT, model="second") == ANSWER
    command(boxed, "remove-model", "second")
    assert running(boxed) == before
    done = command(boxed, "add-model", "bad", SECOND, "--set", "override-kv=nonsense", code=None)
    assert done.code == 7 and "override-kv" in done.stderr and re.search(r"generation \d+ is back", done.stderr)
    assert running(boxed) == before


def test_images_go_into_a_file_and_come_back(boxed: Server) -> None:
    said = json.loads(boxed.run("llm-appliance", "image", "list", "--json").stdout)
    images = [row["ref"] for row in said["data"]["images"]]
    command(boxed, "image", "save", "/root/images.tar")
    boxed.run("systemctl", "stop", "llm-appliance")
    boxed.run("podman", "rm", "--all", "--force")
    boxed.run("podman", "rmi", *images)
    assert sorted(command(boxed, "image", "load", "/root/images.tar").stdout.split()) == sorted(images)
    boxed.run("systemctl", "start", "llm-appliance")
    assert product.chat(boxed, PROMPT) == ANSWER
    boxed.run("rm", "/root/images.tar")


def test_after_a_reboot_and_after_a_power_cut_it_answers(boxed: Server) -> None:
    for again in (boxed.reboot, boxed.kill_power):
        again()
        until(f"it answers after {again.__name__}", lambda: product.answers(boxed), 120)


def test_uninstall_leaves_no_container_network_volume_or_image_of_ours(boxed: Server) -> None:
    command(boxed, "uninstall", "--purge-models")
    assert containers(boxed) == {}
    networks = boxed.run("podman", "network", "ls", "--format", "{{.Name}}").stdout.split()
    assert networks == ["podman"]
    assert boxed.run("podman", "volume", "ls", "--quiet").stdout == ""
    images = boxed.run("podman", "images", "--all", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert images == [f"localhost/{LOCAL}"]
    ours = (ETC, STATE, "/var/cache/llm-appliance", "/run/llm-appliance", "/etc/systemd/system/llm-appliance.service")
    assert boxed.run("find", *ours, "-not", "-path", f"{ETC}*", check=False).stdout == ""
