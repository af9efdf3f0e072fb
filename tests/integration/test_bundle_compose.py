"""Bundles of container images: made on one server, installed on another that has Docker and no network at all."""

from __future__ import annotations

import json
import os
import tarfile
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
from tests.integration.lab import Lab, Server, base_into, docker_into
from tests.integration.lab.docker import NEWER

PACKAGES = ("docker.io", "iptables", f"docker-compose/{NEWER}")

pytestmark = SLOW


@pytest.fixture(scope="module")
def docked(lab: Lab) -> Iterator[str]:
    """The image of a server with Docker and Compose, and nothing else."""
    image = f"llm-appliance-lab-docked:{os.getpid()}"
    with lab.boot("docked") as server:
        docker_into(server, LOCAL)
        server.save(image)
    yield image
    remove_image(image)


@dataclass(frozen=True)
class Made:
    """What a server with a network made."""

    home: Path
    refs: tuple[str, ...]
    """Its images."""


@pytest.fixture(scope="module")
def made(lab: Lab, docked: str, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle of images with the built-in model, and one after it that adds a second model."""
    home = tmp_path_factory.mktemp("boxed")
    with lab.boot("boxer", image=docked) as server:
        base_into(server, LOCAL)
        product.put_checkout(server)
        product.seed(server)
        assert product.install(server).wait(timeout=2400) == 0
        server.run("llm-appliance", "config", "set", "images.base", LOCAL)
        boxes.create(server)
        done = server.run(*CREATE, "-o", SECOND, "--base", BUNDLE, "--model", f"second={OTHER}", timeout=600)
        print(done.stdout, flush=True)
        make_whole(server)
        listed = server.run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        boxes.take_away(server, home)
    return Made(home, tuple(sorted(one for one in listed if one.startswith("llm-appliance/"))))


def make_whole(server: Server) -> None:
    """Make a bundle for a machine without Docker: refused, until Docker's packages come along."""
    boxes.describe_bare(server)
    words = (*CREATE, "-o", WHOLE, "--host", BARE)
    done = server.run(*words, check=False, timeout=120)
    assert (done.code, "no Docker answers on the target" in done.stderr, "--package" in done.stderr) == (
        4,
        True,
        True,
    ), done
    added = [word for name in PACKAGES for word in ("--package", name)]
    done = server.run(*words, *added, timeout=1200)
    print(done.stderr, done.stdout, flush=True)


@pytest.fixture(scope="module")
def target(lab: Lab, docked: str, made: Made) -> Iterator[Server]:
    """A server with Docker, without network and Python, after the first command."""
    with lab.boot("boxed", network=False, image=docked) as server:
        assert server.run("which", "python3", check=False).code == 1
        assert boxes.without_network(server)
        assert refs(server) == ()
        boxes.bring(server, made.home, "boxed.llmb")
        boxes.refused_while_a_layer_is_damaged(server, made.home)
        assert refs(server) == (), "Docker got no whole stream then"
        assert f"smoke answers: {ANSWER}" in boxes.install(server, BUNDLE)
        yield server


def refs(server: Server) -> tuple[str, ...]:
    return tuple(sorted(server.run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()))


def containers(server: Server) -> list[str]:
    return sorted(server.run("docker", "ps", "--format", "{{.Names}}").stdout.split())


def test_containers_answer_where_no_registry_and_no_network_is(target: Server, made: Made) -> None:
    assert containers(target) == SERVING
    assert refs(target) == made.refs
    assert product.chat(target, QUESTION) == ANSWER
    assert "changed=0" in target.run(f"{BUNDLE}.install", timeout=300).stdout


def test_every_layer_is_there_once_by_its_digest(made: Made) -> None:
    digests = [one["digest"] for one in boxes.payloads(made.home / "boxed.llmb", "image")]
    assert len(digests) == len(set(digests)) >= 4
    with tarfile.open(made.home / "boxed.llmb", "r:") as archive:
        names = archive.getnames()
    assert [f"blobs/sha256/{one}" in names for one in digests] == [True] * len(digests)


def test_a_second_bundle_without_the_layers_adds_a_model_and_rollback_takes_it_back(target: Server, made: Made) -> None:
    assert (made.home / "second.llmb").stat().st_size < (made.home / "boxed.llmb").stat().st_size / 10
    boxes.add_second(target, made.home)
    assert refs(target) == made.refs
    target.run("llm-appliance", "rollback", timeout=120)
    assert containers(target) == SERVING
    assert product.chat(target, QUESTION) == ANSWER


def test_the_inventory_names_the_layers_that_docker_has(target: Server) -> None:
    told = boxes.inventory(target)
    for ref in refs(target):
        (row,) = json.loads(target.run("docker", "inspect", ref).stdout)
        assert boxes.chained(row) <= told


def test_a_bundle_that_builds_on_layers_which_docker_lost_is_refused(target: Server) -> None:
    target.run("systemctl", "stop", "llm-appliance", timeout=60)
    target.sh("docker rm -f $(docker ps -aq); docker rmi -f $(docker images -q)")
    boxes.refused_without_its_base(target)
    target.run(*INSTALL, BUNDLE, timeout=300)
    assert product.chat(target, QUESTION) == ANSWER


def test_where_there_is_no_docker_it_says_so(lab: Lab, made: Made) -> None:
    with lab.boot("bare", network=False) as server:
        boxes.bring(server, made.home, "boxed.llmb")
        done = server.run(f"{BUNDLE}.install", check=False, timeout=300)
        assert (done.code, "engines are container images, and Docker with Compose is not here" in done.stderr) == (
            4,
            True,
        ), done
        assert server.run("which", "python3", check=False).code == 1


def test_docker_comes_along_where_it_was_put_in(lab: Lab, made: Made) -> None:
    with lab.boot("whole", network=False) as server:
        boxes.bring(server, made.home, "whole.llmb")
        done = server.run(f"{WHOLE}.install", check=False, timeout=300)
        assert (done.code, f"{WHOLE}.install --packages" in done.stderr) == (4, True), done
        assert server.run("which", "docker", check=False).code == 1
        boxes.install(server, WHOLE, "--packages")
        assert containers(server) == SERVING
        assert product.chat(server, QUESTION) == ANSWER
        server.reboot()
        server.run("llm-appliance", "verify", timeout=120)
        assert "changed=0" in server.run(f"{WHOLE}.install", "--packages", timeout=300).stdout
        server.run("llm-appliance", "uninstall", "--purge-models", timeout=120)
        server.run("docker", "compose", "version")


def test_no_image_is_left_behind(target: Server) -> None:
    target.run("llm-appliance", "uninstall", "--purge-models", timeout=120)
    assert containers(target) == []
    assert refs(target) == ()
