"""Bundles: made on one server, installed on another that has no network and no Python, damaged, cut off and resumed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration import product
from tests.integration.conftest import Quickstart, remove_image
from tests.integration.lab import Lab, Server
from tests.integration.product import SMOKE

PLACE = "/media/disk"
BUNDLE = f"{PLACE}/site.llmb"
QUESTION, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]


@dataclass(frozen=True)
class Made:
    """What a server with a network made."""

    home: Path
    """Directory on this machine: site.llmb, its script, keys, and what was made for the tests."""
    seconds: float
    said: str


def fetch(server: Server, remote: str, local: Path) -> None:
    """Bring a file here, as somebody would with a disk."""
    with local.open("wb") as stream:
        subprocess.run(("docker", "exec", server.container, "cat", remote), stdout=stream, check=True, timeout=600)


@pytest.fixture(scope="module")
def made(lab: Lab, quickstart: Quickstart, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle of the built-in model and, made after it, one that adds a second model."""
    assert quickstart.code == 0, quickstart.output
    home = tmp_path_factory.mktemp("media")
    with product.installed(lab, quickstart.image, "creator") as server:
        server.run("mkdir", "-p", PLACE)
        server.run("llm-appliance", "bundle", "keygen", f"{PLACE}/vendor")
        words = ("llm-appliance", "bundle", "create", "--sign", f"{PLACE}/vendor.key")
        done = server.run(*words, "-o", BUNDLE, timeout=600)
        again = server.run(*words, "-o", f"{PLACE}/again/site.llmb", timeout=600)
        server.run("cmp", BUNDLE, f"{PLACE}/again/site.llmb")
        server.sh(
            "sed 's/A tiny chat model that shows/A tiny chat model that SHOWS/' "
            f"{product.CHECKOUT}/appliance/smoke/smoke.gguf >/srv/second.gguf"
        )
        server.run(
            *words, "-o", f"{PLACE}/second.llmb", "--base", BUNDLE, "--model", "second=/srv/second.gguf", timeout=600
        )
        server.run(*words, "-o", f"{PLACE}/parts/site.llmb", "--split", "20M", timeout=600)
        for name in server.sh(f"cd {PLACE} && find . -type f").stdout.split():
            (home / name).parent.mkdir(exist_ok=True)
            fetch(server, f"{PLACE}/{name}", home / name)
    for path in home.glob("**/*.install"):
        path.chmod(0o755)
    print(done.stderr, done.stdout, flush=True)
    assert "write" in again.stderr
    return Made(home, 0, done.stdout + done.stderr)


@dataclass(frozen=True)
class Airgap:
    """What the script did on a server without network, and that server's disk afterwards."""

    code: int
    output: str
    image: str


@pytest.fixture(scope="module")
def airgap(lab: Lab, made: Made) -> Iterator[Airgap]:
    """The first command on a server that was booted without network and holds what a minimal Debian holds."""
    image = f"llm-appliance-lab-airgap:{os.getpid()}"
    with lab.boot("airgap", network=False) as server:
        assert server.run("which", "python3", check=False).code == 1
        assert [line for line in server.run("ip", "-br", "link").stdout.splitlines() if not line.startswith("lo")] == []
        before = server.files()
        for name in ("site.llmb", "site.llmb.install"):
            server.put(made.home / name, f"{PLACE}/{name}")
        process = server.popen(f"{BUNDLE}.install")
        code = process.wait(timeout=600)
        print(process.output, flush=True)
        server.save(image)
        assert before
    yield Airgap(code, process.output, image)
    remove_image(image)


@pytest.fixture
def installed(lab: Lab, made: Made, airgap: Airgap) -> Iterator[Server]:
    """A server that was installed from the bundle and booted again, still without network."""
    assert airgap.code == 0, airgap.output
    with lab.boot("airgap", network=False, image=airgap.image) as server:
        server.run("llm-appliance", "verify", timeout=120)
        yield server


def put(server: Server, made: Made, *names: str) -> None:
    for name in names:
        server.put(made.home / name, f"{PLACE}/{name}")


def test_one_command_without_network_or_python_ends_with_a_server_that_answers(airgap: Airgap) -> None:
    assert airgap.code == 0, airgap.output
    assert f"smoke answers: {ANSWER}" in airgap.output


def test_it_answers_after_a_reboot_and_a_second_run_changes_nothing(installed: Server) -> None:
    installed.reboot()
    installed.run("llm-appliance", "verify", timeout=60)
    assert product.chat(installed, QUESTION) == ANSWER
    said = installed.run(f"{BUNDLE}.install", timeout=300).stdout
    assert "changed=0" in said


def test_a_second_bundle_adds_a_model_and_the_first_one_takes_it_back(installed: Server, made: Made) -> None:
    put(installed, made, "second.llmb")
    assert (made.home / "second.llmb").stat().st_size < (made.home / "site.llmb").stat().st_size / 10
    installed.run("llm-appliance", "bundle", "install", f"{PLACE}/second.llmb", timeout=120)
    assert product.chat(installed, QUESTION, model="second")
    assert product.chat(installed, QUESTION) == ANSWER
    assert "changed=0" in installed.run("llm-appliance", "install", "--offline", timeout=60).stdout
    installed.reboot()
    installed.run("llm-appliance", "verify", timeout=60)
    installed.run("llm-appliance", "rollback", timeout=60)
    assert "second" not in installed.run("llm-appliance", "list").stdout
    assert product.chat(installed, QUESTION) == ANSWER
