"""A real Prometheus and its promtool, unpacked from Debian's package; nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.integration.gateway_rig import CACHE, free_port, until
from tests.integration.lab.machine import alone, command


def programs() -> Path:
    """Return the directory of `prometheus` and `promtool`: 19 MB are fetched, once."""
    home = CACHE / "prometheus"
    with alone("packages"):
        if (home / "usr/bin/promtool").exists():
            return home / "usr/bin"
        draft = CACHE / ".prometheus.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        fetch = ("sh", "-c", 'cd "$1" && apt-get -q -o APT::Sandbox::User=root download prometheus', "sh", draft)
        if command(*fetch, timeout=300, check=False).returncode:
            command("apt-get", "update", timeout=300)
            command(*fetch, timeout=300)
        (archive,) = draft.glob("*.deb")
        command("dpkg-deb", "-x", archive, draft, timeout=120)
        archive.unlink()
        draft.rename(home)
    return home / "usr/bin"


def promtool(*words: str | Path, data: str = "") -> str:
    """Run promtool and return what it says; it must be content."""
    done = subprocess.run(
        [programs() / "promtool", *words], input=data, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """One that runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression gives now."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=30)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found


@contextmanager
def prometheus(config: str, home: Path) -> Iterator[Prometheus]:
    """Yield a Prometheus with this configuration, and end it."""
    (home / "prometheus.yml").write_text(config)
    port = free_port()
    argv = [
        str(programs() / "prometheus"), f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with (home / "stderr").open("wb") as stream:
        environment = {**os.environ, "GOMAXPROCS": "1", "no_proxy": "*"}
        process = subprocess.Popen(argv, stdout=stream, stderr=stream, env=environment)
    one = Prometheus(f"http://127.0.0.1:{port}")

    def ready() -> bool:
        assert process.poll() is None, (home / "stderr").read_text()
        try:
            return httpx.get(f"{one.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(ready, timeout=60, what="Prometheus ready")
        yield one
    finally:
        process.terminate()
        process.wait(30)
