"""Bundles of container images: made on one server, installed on another that has Docker and no network at all."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration import product
from tests.integration.conftest import remove_image
from tests.integration.faults import SLOW
from tests.integration.lab import Lab, Server, base_into, docker_into
from tests.integration.lab.docker import NEWER
from tests.integration.product import SMOKE
from tests.integration.test_bundle import PLACE, fetch

QUESTION, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
BUNDLE, SECOND, WHOLE = f"{PLACE}/boxed.llmb", f"{PLACE}/second.llmb", f"{PLACE}/whole.llmb"
PACKAGES = ("docker.io", "iptables", f"docker-compose/{NEWER}")
LOCAL = "lab-base:1"
INSTALL = ("llm-appliance", "bundle", "install")


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
        server.run("llm-appliance", "bundle", "keygen", f"{PLACE}/vendor")
        words = ("llm-appliance", "bundle", "create", "--sign", f"{PLACE}/vendor.key", "--runtime", "compose")
        done = server.run(*words, "-o", BUNDLE, timeout=1200)
        print(done.stderr, done.stdout, flush=True)
        server.run(*words, "-o", f"{PLACE}/again/boxed.llmb", timeout=600)
        server.run("cmp", BUNDLE, f"{PLACE}/again/boxed.llmb")
        server.sh(
            "sed 's/A tiny chat model that shows/A tiny chat model that SHOWS/' "
            f"{product.CHECKOUT}/appliance/smoke/smoke.gguf >/srv/second.gguf"
        )
        done = server.run(*words, "-o", SECOND, "--base", BUNDLE, "--model", "second=/srv/second.gguf", timeout=600)
        print(done.stdout, flush=True)
        make_whole(server, words)
        listed = server.run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        for name in ("boxed.llmb", "boxed.llmb.install", "second.llmb", "whole.llmb", "whole.llmb.install"):
            fetch(server, f"{PLACE}/{name}", home / name)
    for path in home.glob("*.install"):
        path.chmod(0o755)
    return Made(home, tuple(sorted(one for one in listed if one.startswith("llm-appliance/"))))


def make_whole(server: Server, words: tuple[str, ...]) -> None:
    """Make a bundle for a machine without Docker: refused, until Docker's packages come along."""
    host = json.loads(server.run("llm-appliance", "detect", "--json").stdout)
    host["data"]["docker"] = {}
    server.write("/root/bare.json", json.dumps(host))
    words = (*words, "-o", WHOLE, "--host", "/root/bare.json")
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
        assert [line for line in server.run("ip", "-br", "link").stdout.splitlines() if line.split()[0] == "eth0"] == []
        assert refs(server) == ()
        for name in ("boxed.llmb", "boxed.llmb.install"):
            server.put(made.home / name, f"{PLACE}/{name}")
        refused_while_a_layer_is_damaged(server, made)
        process = server.popen(f"{BUNDLE}.install")
        code = process.wait(timeout=600)
        print(process.output, flush=True)
        assert code == 0
        assert f"smoke answers: {ANSWER}" in process.output
        yield server


def refs(server: Server) -> tuple[str, ...]:
    return tuple(sorted(server.run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()))


def refused_while_a_layer_is_damaged(server: Server, made: Made) -> None:
    """Docker gets no whole stream then, and has nothing of it afterwards."""
    damage_a_layer(server, made.home / "boxed.llmb")
    done = server.run(f"{BUNDLE}.install", check=False, timeout=300)
    assert (done.code, "damaged in bytes" in done.stderr, "layer-" in done.stderr) == (5, True, True), done
    assert refs(server) == ()
    assert not server.exists("/var/lib/llm-appliance/current")
    server.put(made.home / "boxed.llmb", BUNDLE)


def damage_a_layer(server: Server, made: Path) -> None:
    """Change one byte near the end of the bundle's largest layer."""
    layer = max(payloads(made, "image"), key=lambda one: one["size"])
    place = layer["offset"] + layer["size"] - 7
    server.sh(f"printf X | dd of={BUNDLE} bs=1 seek={place} conv=notrunc status=none")


def payloads(path: Path, kind: str) -> list[dict[str, Any]]:
    with tarfile.open(path, "r:") as archive:
        stream = archive.extractfile("bundle.json")
        assert stream is not None
        return [one for one in json.load(stream)["payloads"] if one["kind"] == kind]


def containers(server: Server) -> list[str]:
    return sorted(server.run("docker", "ps", "--format", "{{.Names}}").stdout.split())


def test_containers_answer_where_no_registry_and_no_network_is(target: Server, made: Made) -> None:
    assert containers(target) == ["llm-appliance-gateway-1", "llm-appliance-smoke-1"]
    assert refs(target) == made.refs
    assert product.chat(target, QUESTION) == ANSWER
    assert "changed=0" in target.run(f"{BUNDLE}.install", timeout=300).stdout


def test_every_layer_is_there_once_by_its_digest(made: Made) -> None:
    digests = [one["digest"] for one in payloads(made.home / "boxed.llmb", "image")]
    assert len(digests) == len(set(digests)) >= 4
    with tarfile.open(made.home / "boxed.llmb", "r:") as archive:
        names = archive.getnames()
    assert [f"blobs/sha256/{one}" in names for one in digests] == [True] * len(digests)


def test_a_second_bundle_without_the_layers_adds_a_model_and_rollback_takes_it_back(target: Server, made: Made) -> None:
    second = made.home / "second.llmb"
    assert second.stat().st_size < (made.home / "boxed.llmb").stat().st_size / 10
    # What says what an image is, is always carried; nothing that is larger.
    assert max(one["size"] for one in payloads(second, "image")) < 1 << 16
    target.put(second, SECOND)
    target.run(*INSTALL, SECOND, timeout=300)
    for again in (False, True):
        if again:
            target.reboot()
            target.run("llm-appliance", "verify", timeout=120)
        assert product.chat(target, QUESTION, model="second")
        assert product.chat(target, QUESTION) == ANSWER
    assert refs(target) == made.refs
    target.run("llm-appliance", "rollback", timeout=120)
    assert containers(target) == ["llm-appliance-gateway-1", "llm-appliance-smoke-1"]
    assert product.chat(target, QUESTION) == ANSWER


def test_the_inventory_names_the_layers_that_docker_has(target: Server) -> None:
    from appliance.bundle.image import chains

    told = json.loads(target.run("llm-appliance", "bundle", "inventory", "--json").stdout)["data"]["keys"]
    for ref in refs(target):
        (row,) = json.loads(target.run("docker", "inspect", ref).stdout)
        layers = [one.removeprefix("sha256:") for one in row["RootFS"]["Layers"]]
        assert set(chains(layers)) <= set(told)


def test_a_bundle_that_builds_on_layers_which_docker_lost_is_refused(target: Server) -> None:
    target.run("systemctl", "stop", "llm-appliance", timeout=60)
    target.sh("docker rm -f $(docker ps -aq); docker rmi -f $(docker images -q)")
    done = target.run(*INSTALL, SECOND, check=False, timeout=120)
    assert (done.code, "builds on what is not on this machine" in done.stderr) == (5, True), done
    target.run(*INSTALL, BUNDLE, timeout=300)
    assert product.chat(target, QUESTION) == ANSWER


def test_where_there_is_no_docker_it_says_so(lab: Lab, made: Made) -> None:
    with lab.boot("bare", network=False) as server:
        for name in ("boxed.llmb", "boxed.llmb.install"):
            server.put(made.home / name, f"{PLACE}/{name}")
        done = server.run(f"{BUNDLE}.install", check=False, timeout=300)
        assert (done.code, "engines are container images, and Docker with Compose is not here" in done.stderr) == (
            4,
            True,
        ), done
        assert server.run("which", "python3", check=False).code == 1


def test_docker_comes_along_where_it_was_put_in(lab: Lab, made: Made) -> None:
    with lab.boot("whole", network=False) as server:
        for name in ("whole.llmb", "whole.llmb.install"):
            server.put(made.home / name, f"{PLACE}/{name}")
        done = server.run(f"{WHOLE}.install", check=False, timeout=300)
        assert (done.code, f"{WHOLE}.install --packages" in done.stderr) == (4, True), done
        assert server.run("which", "docker", check=False).code == 1
        process = server.popen(f"{WHOLE}.install", "--packages")
        code = process.wait(timeout=600)
        print(process.output, flush=True)
        assert code == 0
        assert containers(server) == ["llm-appliance-gateway-1", "llm-appliance-smoke-1"]
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
