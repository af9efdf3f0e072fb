"""The appliance under supervisord: an ordinary user's below a prefix, and root's where systemd does not run the machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.integration import product
from tests.integration.conftest import Quickstart, remove_image
from tests.integration.lab import FileState, Lab, Server, base_image, container, difference
from tests.integration.lab.machine import command

HOME = "/home/alice"
PREFIX = f"{HOME}/llm"
CHECKOUT = f"{HOME}/llm-appliance"
BASE = "http://127.0.0.1:8080"
KNOWN = "Hello! Your LLM appliance is up and answering."
PROCESSES = r"""
for one in /proc/[0-9]*; do
    words=$(tr '\0\n' '  ' <"$one/cmdline" 2>/dev/null) && [ -n "$words" ] || continue
    printf '%s %s %s\n' "${one#/proc/}" "$(stat -c %U "$one")" "$words"
done
"""


@dataclass(frozen=True)
class Running:
    """One process."""

    pid: int
    user: str
    words: str


def processes(server: Server) -> list[Running]:
    """Every process that has a command line; what has ended and not been collected has none."""
    lines = (line.split(" ", 2) for line in server.sh(PROCESSES).stdout.splitlines())
    return [Running(int(line[0]), line[1], line[2]) for line in lines]


def one(server: Server, words: str) -> Running:
    found = [item for item in processes(server) if words in item.words and "/bin/sh -c" not in item.words]
    assert len(found) == 1, found
    return found[0]


def chat(server: Server, model: str = "smoke") -> str:
    body = json.dumps(
        {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 32, "temperature": 0}
    )
    done = server.run("curl", "-fsS", "-m", "30", f"{BASE}/v1/chat/completions", "-d", body)
    return str(json.loads(done.stdout)["choices"][0]["message"]["content"])


def pids(server: Server, *argv: str, user: str | None = None) -> dict[str, int]:
    """Ask `status` for the process of each service."""
    document = json.loads(server.run(*argv, "status", "--json", user=user).stdout)
    return {row["name"]: row["pid"] for row in document["data"]["services"] if row["state"] == "running"}


# ------------------------------------------------------------------------------------------------ alice


@dataclass(frozen=True)
class Quick:
    """What the installer did in alice's home."""

    code: int
    output: str
    touched: dict[str, tuple[FileState | None, FileState | None]]
    again: str
    kept_pids: bool
    image: str


@pytest.fixture(scope="module")
def home(lab: Lab, quickstart: Quickstart) -> Iterator[Quick]:
    """README's command with --prefix, typed by an ordinary user; the server's disk afterwards."""
    image = f"llm-appliance-lab-alice:{os.getpid()}"
    with lab.boot("alice") as server:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        server.sh("apt-get update -qq && apt-get install -y -qq --no-install-recommends python3", env=quiet)
        server.run("useradd", "-m", "-s", "/bin/bash", "alice")
        product.put_checkout(server, CHECKOUT)
        if product.seed(server):
            server.sh(f"mkdir -p {PREFIX} && mv {product.CACHE} {PREFIX}/cache")
        server.run("chown", "-R", "alice:", HOME)
        before = server.files(ignore=(PREFIX,))
        process = server.popen(f"{CHECKOUT}/installers/install.sh", "--prefix", PREFIX, user="alice")
        code = process.wait(timeout=1800)
        touched = difference(before, server.files(ignore=(PREFIX,)))
        cli = f"{PREFIX}/bin/llm-appliance"
        first = pids(server, cli, user="alice") if code == 0 else {}
        again = server.run(cli, "install", user="alice", check=False).stdout
        kept = bool(first) and first == pids(server, cli, user="alice")
        server.save(image)
    yield Quick(code, process.output, touched, again, kept, image)
    remove_image(image)


@pytest.fixture
def alices(lab: Lab, home: Quick) -> Iterator[Server]:
    """A server that was booted anew, on which alice started her appliance."""
    assert home.code == 0, home.output
    with lab.boot("alice", image=home.image) as server:
        mine(server, "start")
        yield server


def mine(server: Server, *words: str, check: bool = True, timeout: float = 60) -> str:
    """Type a command of the appliance as alice, in her home, without naming the prefix."""
    done = server.run(f"{PREFIX}/bin/llm-appliance", *words, user="alice", check=check, timeout=timeout)
    return done.stdout + done.stderr


def test_an_ordinary_user_installs_below_a_prefix_and_touches_nothing_else(home: Quick) -> None:
    assert home.code == 0, home.output
    assert f"smoke answers: {KNOWN}" in home.output
    assert home.touched == {}
    assert "changed=0" in home.again
    assert home.kept_pids


def test_everything_runs_as_the_user_and_listens_on_the_loopback_only(alices: Server) -> None:
    assert chat(alices).strip().startswith("Hello")
    own = [item for item in processes(alices) if PREFIX in item.words]
    assert {item.user for item in own} == {"alice"}
    assert {"supervisord", "nginx", "llama-server"} <= {
        name for name in ("supervisord", "nginx", "llama-server") for item in own if name in item.words
    }
    listening = alices.run("ss", "-Hltn").stdout.split("\n")
    assert [line.split()[3] for line in listening if line] == ["127.0.0.1:8080"]


def test_a_model_comes_and_goes_beside_the_first(alices: Server) -> None:
    alices.sh(
        f"sed 's/A tiny chat model that shows/A tiny chat model that SHOWS/' {CHECKOUT}/appliance/smoke/smoke.gguf "
        f">{HOME}/second.gguf && chmod 600 {HOME}/second.gguf",
        user="alice",
    )
    before = pids(alices, f"{PREFIX}/bin/llm-appliance", user="alice")
    assert "second answers" in mine(alices, "add-model", "second", f"{HOME}/second.gguf")
    assert chat(alices, "second")
    now = pids(alices, f"{PREFIX}/bin/llm-appliance", user="alice")
    assert {name: now[name] for name in before} == before
    assert "second" in mine(alices, "list")
    mine(alices, "stop", "second")
    assert chat(alices)
    mine(alices, "start", "second")
    mine(alices, "restart", "second")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and "200" not in ask(alices, "second"):
        time.sleep(0.1)
    assert chat(alices, "second")
    mine(alices, "remove-model", "second")
    assert pids(alices, f"{PREFIX}/bin/llm-appliance", user="alice") == before
    assert "404" in ask(alices, "second")
    assert "changed=0" in mine(alices, "install")


def ask(server: Server, model: str) -> str:
    """The status that a model's own path answers with."""
    url = f"{BASE}/{model}/v1/completions"
    body = json.dumps({"prompt": "Hi", "max_tokens": 1})
    return server.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", body, url, check=False).stdout


def test_it_stops_starts_and_tells_what_it_does(alices: Server) -> None:
    assert "running" in mine(alices, "status")
    mine(alices, "stop")
    assert [item for item in processes(alices) if item.user == "alice"] == []
    said = alices.run(f"{PREFIX}/bin/llm-appliance", "status", user="alice", check=False)
    assert (said.code, said.stdout.count("stopped")) == (7, 2), said
    mine(alices, "start")
    assert chat(alices)
    before = pids(alices, f"{PREFIX}/bin/llm-appliance", user="alice")
    mine(alices, "restart")
    after = pids(alices, f"{PREFIX}/bin/llm-appliance", user="alice")
    assert not set(before.values()) & set(after.values())
    assert chat(alices)
    assert "listening" in mine(alices, "logs", "smoke", "-n", "200").lower()
    assert mine(alices, "logs", "gateway", check=False) is not None


@pytest.mark.parametrize("words", ["llama-server", "nginx: master", "supervisord -c"])
def test_what_is_killed_comes_back_or_says_that_it_is_gone(alices: Server, words: str) -> None:
    victim = one(alices, words)
    alices.sh(f"kill -9 {victim.pid}")
    if "supervisord" in words:
        # Nobody watches over the watcher; the next command starts it again.
        assert "changed=0" in mine(alices, "install")

    def back() -> bool:
        """A killed master's workers answer for a moment longer: only a new process says that it is back."""
        pids = {item.pid for item in processes(alices) if words in item.words and "/bin/sh -c" not in item.words}
        return bool(pids - {victim.pid}) and ask(alices, "smoke") == "200"

    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and not back():
        time.sleep(0.1)
    assert chat(alices)
    assert one(alices, words).pid != victim.pid
    assert alices.run(f"{PREFIX}/bin/llm-appliance", "status", user="alice").code == 0


def test_uninstall_leaves_the_weights_and_nothing_that_runs(alices: Server) -> None:
    mine(alices, "uninstall")
    assert [item for item in processes(alices) if item.user == "alice"] == []
    left = alices.run("find", PREFIX, "-type", "f").stdout.splitlines()
    assert len(left) == 1 and left[0].startswith(f"{PREFIX}/state/store/models/"), left


def test_uninstall_with_the_weights_leaves_nothing(alices: Server) -> None:
    mine(alices, "uninstall", "--purge-models", "--yes")
    assert [item for item in processes(alices) if item.user == "alice"] == []
    assert not alices.exists(PREFIX), alices.run("find", PREFIX).stdout


# ------------------------------------------------------------------------------------------------ no systemd


def test_without_systemd_root_gets_supervisord_and_services_without_root(lab: Lab, quickstart: Quickstart) -> None:
    """The machine's first process is no init at all, as in rented containers and CI."""
    with container(base_image()).with_command(["sleep", "infinity"]) as pod:
        server = Server(pod.get_container_id())
        product.put_checkout(server)
        before = server.files()
        product.seed(server)
        process = product.install(server)
        assert process.wait(timeout=1800) == 0, process.output
        assert f"smoke answers: {KNOWN}" in process.output
        assert chat(server)
        assert one(server, "llama-server").user == "llm-engine"
        workers = [item for item in processes(server) if "nginx: worker" in item.words]
        assert workers and {item.user for item in workers} == {"llm-gateway"}
        assert one(server, "nginx: master").user == "llm-gateway"
        assert server.exists("/etc/llm-appliance/appliance.yaml")
        first = pids(server, "llm-appliance")
        assert "changed=0" in server.run("llm-appliance", "install").stdout
        assert pids(server, "llm-appliance") == first
        server.sh(f"kill -9 {one(server, 'llama-server').pid}")
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and ask(server, "smoke") != "200":
            time.sleep(0.1)
        assert chat(server)
        command("docker", "restart", "-t", "1", server.container, timeout=60)
        server.run("llm-appliance", "start", timeout=60)
        assert chat(server)
        server.run("llm-appliance", "uninstall", "--purge-models", timeout=60)
        assert [item.words for item in processes(server) if "llm-appliance" in item.words] == []
        left = {path for path in difference(before, server.files()) if not path.startswith(LOGS)}
        assert left == set()


LOGS = ("/var/log/", "/var/lib/dpkg/", "/var/cache/", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-")
"""Where the distribution's own tools keep what they did."""
