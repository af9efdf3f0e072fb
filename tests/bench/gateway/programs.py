"""The bench's own C programs: compiled once, run on the core that the gateway does not have."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KEY = "sk-bench-0123456789abcdefghijklmnopqrstuv"
"""What every client sends; a gateway that checks keys knows it."""


@dataclass(frozen=True)
class Spread:
    """Samples in microseconds."""

    count: int
    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class Load:
    """What the load generator saw."""

    latency: Spread
    """Of whole requests."""
    first: Spread
    """From a stream's request to its first token."""
    delay: Spread
    """Of each token, from the moment the upstream sent it."""
    seconds: float
    failed: int
    connections: int
    complaint: str


def compiled(name: str) -> str:
    """Return the program made of `name`.c; compiled only when its text changed."""
    text = (HERE / "net.h").read_bytes() + (HERE / f"{name}.c").read_bytes()
    digest = hashlib.sha256(text).hexdigest()[:12]
    program = Path("~/.cache/llm-appliance-bench").expanduser() / f"{name}-{digest}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        part = program.with_suffix(f".{os.getpid()}")
        subprocess.run(
            ("cc", "-O2", "-Wall", "-Wextra", "-o", str(part), str(HERE / f"{name}.c")), check=True, timeout=60
        )
        part.rename(program)
    return str(program)


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started in this block stays on one core; None: wherever the kernel puts it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def upstream(addresses: Sequence[str], *, tokens: int, interval: int, core: int | None = None) -> Iterator[int]:
    """Run one upstream on all these addresses, `tokens` for each stream, `interval` ms apart; yields its pid."""
    with on_core(core):
        process = subprocess.Popen((compiled("upstream"), str(tokens), str(interval), *addresses))
    try:
        time.sleep(0.2)
        assert process.poll() is None, "the upstream ended"
        yield process.pid
    finally:
        process.kill()
        process.wait()


def load_argv(kind: str, address: str, body: Path, clients: int, length: float, key: str = KEY) -> tuple[str, ...]:
    """Return the command of the load generator; `length`: seconds of requests, or ms in which the streams start."""
    return (compiled("load"), kind, address, str(body), key, str(clients), str(length))


def parse_load(text: str) -> Load:
    """Read what the load generator printed."""
    said = json.loads(text)
    latency, first, delay = (Spread(**said.pop(name)) for name in ("latency", "first", "delay"))
    return Load(latency=latency, first=first, delay=delay, **said)


def load(kind: str, address: str, body: Path, clients: int, length: float, *, core: int | None = None) -> Load:
    """Run the load generator to its end."""
    with on_core(core):
        argv = load_argv(kind, address, body, clients, length)
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, f"the load generator ends with {process.returncode}"
    return parse_load(text)
