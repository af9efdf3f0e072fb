"""Bundles of container images where Podman has them: made on one server, installed on another that has no network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration import boxes, product
from tests.integration.boxes import (
    ANSWER,
    BARE,
    BUNDLE,
    CREATE,
    INSTALL,
    LOCAL,
    OTHER,
    QUESTION,
    SECOND,
    SERVING,
    WHOLE,
)
from tests.integration.conftest import remove_image
from tests.integration.faults import SLOW
from tests.integration.lab import Lab, Server, base_into, podman_into
from tests.integration.lab.docker import PODMAN_PACKAGES, ready_for_podman

OWN = "ours/llama:2"
"""An image of the operator's, in OCI's form, which no Docker builds."""

pytestmark = SLOW


@pytest.fixture(scope="module")
def podded(lab: Lab) -> Iterator[str]:
    """The image of a server with Podman and Compose, and nothing else."""
    image = f"llm-appliance-lab-podded:{os.getpid()}"
    with lab.boot("podded") as server:
        podman_into(server, LOCAL)
        server.save(image)
    yield image
    remove_image(image)


@dataclass(frozen=True)
class Made:
    """What a server with a network made."""

    home: Path
    images: dict[str, str]
    """Its images: their ids by their names."""


@pytest.fixture(scope="module")
def made(lab: Lab, podded: str, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle of images with the built-in model, and one after it: a second model, with an image on top of another."""
    home = tmp_path_factory.mktemp("boxed")
    with lab.boot("boxer", image=podded) as server:
        base_into(server, LOCAL, "podman")
        product.put_checkout(server)
        product.seed(server)
        server.write("/etc/llm-appliance/appliance.yaml", f"images:\n  base: {LOCAL}\n")
        process = product.install(server, "--runtime", "compose")
        assert process.wait(timeout=2400) == 0, process.output
        ours = images(server, "llm-appliance/")
        boxes.create(server)
        engine = next(name for name in ours if "llama-cpp" in name)
        server.write("/srv/on-top/Dockerfile", f"FROM {engine}\nCOPY note /note\n")
        server.write("/srv/on-top/note", "on top\n")
        server.run("podman", "build", "--tag", f"docker.io/{OWN}", "/srv/on-top")
        server.run("llm-appliance", "add-model", "second", OTHER, "--image", OWN, timeout=300)
        done = server.run(*CREATE, "-o", SECOND, "--base", BUNDLE, timeout=600)
        print(done.stdout, flush=True)
        make_whole(server)
        boxes.take_away(server, home)
    return Made(home, ours)


def make_whole(server: Server) -> None:
    """Make a bundle for a machine without Podman, whose packages come along."""
    boxes.describe_bare(server)
    added = [word for name in PODMAN_PACKAGES for word in ("--package", name)]
    done = server.run(*CREATE, "--model", "smoke=builtin:smoke", "-o", WHOLE, "--host", BARE, *added, timeout=1200)
    print(done.stderr, done.stdout, flush=True)


def images(server: Server, word: str = "") -> dict[str, str]:
    """Every image with a name that holds the word, and its id."""
    rows = json.loads(server.run("podman", "images", "--no-trunc", "--format", "json").stdout or "[]")
    return {name: row["Id"] for row in rows for name in row.get("Names") or () if word in name}


def containers(server: Server) -> list[str]:
    return sorted(server.run("podman", "ps", "--format", "{{.Names}}").stdout.split())


@pytest.fixture(scope="module")
def target(lab: Lab, podded: str, made: Made) -> Iterator[Server]:
    """A server with Podman, without network, Python and images, after the first command."""
    with lab.boot("boxed", network=False, image=podded) as server:
        assert server.run("which", "python3", "docker", check=False).stdout == ""
        assert boxes.without_network(server)
        assert images(server) == {}
        boxes.bring(server, made.home, "boxed.llmb")
        refused_without_the_socket(server)
        boxes.refused_while_a_layer_is_damaged(server, made.home)
        assert images(server) == {}, "Podman got no whole stream then"
        assert server.sh("ls -d /var/tmp/api_load* /var/tmp/storage*", check=False).stdout == ""
        assert f"smoke answers: {ANSWER}" in boxes.install(server, BUNDLE)
        yield server


def refused_without_the_socket(server: Server) -> None:
    server.run("systemctl", "stop", "podman.socket", "podman.service")
    done = server.run(f"{BUNDLE}.install", check=False, timeout=300)
    assert (done.code, "nor Podman's socket with docker-compose" in done.stderr) == (4, True), done
    server.run("systemctl", "start", "podman.socket")


def test_containers_answer_where_no_registry_and_no_network_is(target: Server, made: Made) -> None:
    assert containers(target) == SERVING
    assert images(target) == made.images
    assert product.chat(target, QUESTION) == ANSWER
    for again in (target.reboot, target.kill_power):
        again()
        target.run("llm-appliance", "verify", timeout=120)
        assert product.chat(target, QUESTION) == ANSWER
    assert "changed=0" in target.run(f"{BUNDLE}.install", timeout=300).stdout
    assert "changed=0" in target.run("llm-appliance", "install", "--offline", timeout=120).stdout


def test_a_second_bundle_brings_of_an_image_what_is_new_and_rollback_takes_it_back(target: Server, made: Made) -> None:
    boxes.add_second(target, made.home)
    assert images(target, "llm-appliance/") == made.images
    read = ("podman", "run", "--rm", "--network", "none", "--entrypoint")
    assert target.run(*read, "cat", OWN, "/note").stdout == "on top\n"
    whole = [
        target.run(*read, "sha256sum", ref, "/app/llama-server").stdout for ref in (OWN, *made.images) if "llama" in ref
    ]
    assert len(set(whole)) == 1, "what lies in layers that were not carried is as it was"
    target.run("llm-appliance", "rollback", timeout=120)
    assert containers(target) == SERVING


def test_the_inventory_names_the_layers_that_podman_has(target: Server) -> None:
    told = boxes.inventory(target)
    for name in images(target):
        (row,) = json.loads(target.run("podman", "image", "inspect", name).stdout)
        assert boxes.chained(row) <= told


def test_a_bundle_that_builds_on_layers_which_podman_lost_is_refused(target: Server) -> None:
    target.run("systemctl", "stop", "llm-appliance", timeout=60)
    target.sh("podman rm --all --force; podman rmi --all --force")
    boxes.refused_without_its_base(target)
    target.run(*INSTALL, BUNDLE, "--allow-older", timeout=300)
    assert product.chat(target, QUESTION) == ANSWER


def test_no_image_is_left_behind(target: Server) -> None:
    target.run("llm-appliance", "uninstall", "--purge-models", timeout=120)
    assert containers(target) == []
    assert images(target) == {}


def test_podman_comes_along_where_it_was_put_in(lab: Lab, made: Made) -> None:
    with lab.boot("whole", network=False) as server:
        ready_for_podman(server)
        boxes.bring(server, made.home, "whole.llmb")
        boxes.install(server, WHOLE, "--packages")
        assert containers(server) == SERVING
        assert product.chat(server, QUESTION) == ANSWER
        server.reboot()
        server.run("llm-appliance", "verify", timeout=120)
        assert "changed=0" in server.run(f"{WHOLE}.install", "--packages", timeout=300).stdout
