"""What the command line costs, beside RamaLama's, in one run: `python -m tests.bench.cli`; prints tables and ratios.

Installs the appliance under a directory of its own (`--prefix`), and RamaLama from the package index into another.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.integration.product import build_cache

PORT = 18431
PEER = "ramalama"
PROGRAM = (sys.executable, "-m", "appliance")
"""Ours, from this checkout."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one run: on the clock, and of processor time with all children."""

    wall: float
    cpu: float


def run(argv: Sequence[str]) -> Cost:
    """Run a program as a whole process, its output thrown away; the kernel's accounting tells the CPU time."""
    began = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 10):
        raise SystemExit(f"{' '.join(argv)} ends with {process.returncode}")
    return Cost(time.monotonic() - began, usage.ru_utime + usage.ru_stime)


def turns(commands: dict[str, Sequence[str]], rounds: int) -> dict[str, list[Cost]]:
    """Run all commands in turn, so that a machine that gets slower slows all alike; the first round warms up."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, argv in commands.items():
            cost = run(argv)
            if number:
                costs[name].append(cost)
    return costs


def table(costs: dict[str, list[Cost]], base: str) -> None:
    """Print medians, and the ratio to the peer."""
    peer = statistics.median(cost.cpu for cost in costs[base])
    print(f"{'command':24} {'wall ms':>9} {'cpu ms':>8} {'min':>6} {'max':>6} {'cpu / ' + base:>24}")
    for name, values in costs.items():
        wall, cpu = (statistics.median(getattr(cost, field) for cost in values) for field in ("wall", "cpu"))
        low, high = min(cost.cpu for cost in values), max(cost.cpu for cost in values)
        print(f"{name:24} {wall * 1e3:9.0f} {cpu * 1e3:8.0f} {low * 1e3:6.0f} {high * 1e3:6.0f} {cpu / peer:24.2f}")


def peer(directory: Path) -> str:
    """Install RamaLama; return its program."""
    subprocess.run((sys.executable, "-m", "venv", str(directory)), check=True, timeout=120)
    pip = (str(directory / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", PEER)
    subprocess.run(pip, check=True, timeout=600)
    return str(directory / "bin" / PEER)


def appliance(prefix: Path) -> None:
    """Install the appliance under `prefix`, with the engine that the tests have built if there is one."""
    if build_cache().is_dir():
        shutil.copytree(build_cache(), prefix / "cache")
    command = (*PROGRAM, "install", "--prefix", str(prefix), "--listen", f"127.0.0.1:{PORT}")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=3000)


def first_token(connection: Callable[[], http.client.HTTPConnection], path: str, model: str) -> bool:
    """Ask for a stream and wait for its first token; False while nobody answers."""
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "Say hello."}]})
    with suppress(OSError, http.client.HTTPException):
        link = connection()
        link.request("POST", path, body, {"Content-Type": "application/json"})
        response = link.getresponse()
        while response.status == 200 and (line := response.readline()):
            if b'"content":"' in line:
                return True
    return False


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        import socket

        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def until_first_token(argv: Sequence[str], asked: Callable[[], bool]) -> tuple[float, subprocess.Popen[bytes]]:
    """Start a program and return the seconds until `asked` says that the first token came."""
    began = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not asked():
        time.sleep(0.01)
        if time.monotonic() - began > 60:
            raise SystemExit(f"no token after 60 s: {' '.join(argv)}")
    return time.monotonic() - began, process


def add_model(prefix: Path, rounds: int) -> None:
    """Time `add-model` to the first token through the gateway, and the same engine started by hand."""
    plan = subprocess.run(
        (*PROGRAM, "plan", "--json", "--prefix", str(prefix)), check=False, capture_output=True, timeout=60
    )
    service = json.loads(plan.stdout)["data"]["deployment"]["services"][0]
    setting = service["setting"]
    socket = str(prefix / "alone.sock")
    engine = (
        service["program"], "--model", service["weights"], "--alias", "alone", "--host", socket,
        "--ctx-size", str(setting["context"] * setting["parallel"]), "--parallel", str(setting["parallel"]),
        "--threads", str(service["threads"]), "--jinja", "--metrics", "--no-webui", "--offline", "--cache-ram", "0",
    )  # fmt: skip
    ours, alone = [], []
    for number in range(rounds + 1):
        Path(socket).unlink(missing_ok=True)
        seconds, process = until_first_token(
            engine, lambda: first_token(lambda: UnixConnection(socket), "/v1/chat/completions", "alone")
        )
        process.kill()
        process.wait()
        alone.append(seconds)
        name = f"second-{number}"
        command = (*PROGRAM, "add-model", name, "builtin:smoke", "--prefix", str(prefix))
        gateway = lambda: http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)  # noqa: E731
        path = f"/{name}/v1/chat/completions"
        seconds, process = until_first_token(command, lambda path=path, name=name: first_token(gateway, path, name))  # type: ignore[misc]
        process.wait(timeout=60)
        ours.append(seconds)
        run((*PROGRAM, "remove-model", name, "--prefix", str(prefix)))
    with_us, without = statistics.median(ours[1:]), statistics.median(alone[1:])
    print(f"\n{'start to first token':24} {'seconds':>9} {'min':>6} {'max':>6}")
    for label, values in (("engine alone", alone[1:]), ("add-model", ours[1:])):
        print(f"{label:24} {statistics.median(values):9.2f} {min(values):6.2f} {max(values):6.2f}")
    print(f"add-model takes {with_us - without:.2f} s more than the engine alone")


def many_models(prefix: Path) -> None:
    """Serve twenty models: the built-in one and dummies."""
    for number in range(19):
        (prefix / "etc/models.d" / f"dummy-{number}.yaml").write_text("source: none\nengine: dummy\n")
    command = (*PROGRAM, "install", "--prefix", str(prefix))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)


def main() -> None:
    """Install both, measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as directory:
        prefix = Path(directory, "p")
        # Compiled once, as where it is installed, and not into the checkout.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(directory, "compiled"))
        ramalama = peer(Path(directory, "peer"))
        appliance(prefix)
        here = ("--prefix", str(prefix))
        try:
            costs = turns(
                {
                    f"{PEER} version": (ramalama, "version"),
                    f"{PEER} --help": (ramalama, "--help"),
                    "--version": (*PROGRAM, "--version"),
                    "--help": (*PROGRAM, "--help"),
                    "status": (*PROGRAM, "status", *here),
                    "plan": (*PROGRAM, "plan", *here),
                    "install, nothing to do": (*PROGRAM, "install", *here),
                },
                rounds,
            )
            table(costs, f"{PEER} version")
            add_model(prefix, min(rounds, 5))
            many_models(prefix)
            print()
            table(turns({"--version": (*PROGRAM, "--version"), "status, 20 models": (*PROGRAM, "status", *here)}, rounds),
                  "--version")  # fmt: skip
        finally:
            subprocess.run((*PROGRAM, "uninstall", "--purge-models", "--yes", *here), check=False, capture_output=True)


if __name__ == "__main__":
    main()
