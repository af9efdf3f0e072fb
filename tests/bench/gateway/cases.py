"""What is done to each gateway, and the numbers that come out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.gateway import processes
from tests.bench.gateway.gateways import MODEL, Running
from tests.bench.gateway.programs import Load, load

Numbers = dict[str, float]
INTERVAL = 50
"""Milliseconds between two tokens of a stream."""
WARM = 10
"""Tokens of each stream before those that are measured."""


@dataclass(frozen=True)
class Plan:
    """How long each case takes, and where it runs."""

    small: float
    """Seconds of requests; also of one client alone."""
    large: float
    streams: int
    tokens: int
    idle: float
    gateway_core: int
    load_core: int


FULL = {"small": 2.0, "large": 2.0, "streams": 200, "tokens": 100, "idle": 5.0}
QUICK = {"small": 0.8, "large": 0.5, "streams": 200, "tokens": 20, "idle": 0.5}


def bodies(directory: Path) -> dict[str, Path]:
    """Write the requests: the model's name stands at the end, where it is found last."""
    made = {}
    for name, size, first in (
        ("small", 95, {}),
        ("100k", 100_000, {}),
        ("2m", 2_000_000, {}),
        ("stream", 80, {"stream": True}),
        ("warm", 80, {"stream": True}),
    ):
        body = {
            **first,
            "messages": [{"role": "user", "content": "QmFz" * (size // 4)}],
            "max_tokens": WARM if name == "warm" else 100,
            "model": MODEL,
        }
        made[name] = directory / f"{name}.json"
        made[name].write_text(json.dumps(body, separators=(",", ":")))
    return made


@dataclass
class Meter:
    """Measures one gateway."""

    running: Running
    plan: Plan
    files: dict[str, Path]

    def _load(self, kind: str, body: str, clients: int, length: float) -> tuple[Load, Numbers]:
        """Run the load; returns what it saw, the gateway's CPU in us, and how busy others kept its core."""
        busy, before = processes.core_busy(self.plan.gateway_core), self._cpu()
        began = time.monotonic()
        seen = load(kind, self.running.address, self.files[body], clients, length, core=self.plan.load_core)
        cpu, wall = (self._cpu() - before) / 1e3, time.monotonic() - began
        others = (processes.core_busy(self.plan.gateway_core) - busy - cpu / 1e6) / wall
        return seen, {"cpu": cpu, "others": others}

    def _cpu(self) -> int:
        return processes.cpu(self.running.pid) if self.running.pid else 0

    def _requests(self, body: str, clients: int, seconds: float) -> Numbers:
        seen, cost = self._load("requests", body, clients, seconds)
        done = max(seen.latency.count, 1)
        return {
            "rate": seen.latency.count / seen.seconds,
            "p50": seen.latency.p50,
            "p99": seen.latency.p99,
            "failed": seen.failed,
            "cpu": cost["cpu"] / done,
            "others": cost["others"],
        }

    def _streams(self) -> Numbers:
        seen, cost = self._load("streams", "stream", self.plan.streams, 1000)
        return {
            "ttft50": seen.first.p50,
            "ttft99": seen.first.p99,
            "delay50": seen.delay.p50,
            "delay99": seen.delay.p99,
            "rate": seen.delay.count / seen.seconds,
            "failed": seen.failed + max(0, self.plan.streams * self.plan.tokens - seen.delay.count),
            "cpu": cost["cpu"] / max(seen.delay.count, 1),
            "others": cost["others"],
        }

    def _idle(self) -> Numbers:
        before, began = self._cpu(), time.monotonic()
        time.sleep(self.plan.idle)
        share = (self._cpu() - before) / 1e9 / (time.monotonic() - began)
        rss, pss = processes.memory(self.running.pid) if self.running.pid else (0.0, 0.0)
        return {"percent": share * 100, "rss": rss, "pss": pss}

    def warm(self, case: str) -> None:
        """Let it open its connections, and compile what it compiles as it runs; nothing is measured."""
        load("requests", self.running.address, self.files["small"], 8, 0.1, core=self.plan.load_core)
        if case == "streams":
            load("streams", self.running.address, self.files["warm"], self.plan.streams, 200, core=self.plan.load_core)

    def cases(self) -> dict[str, Callable[[], Numbers]]:
        """Return the cases by name, each to be run by itself."""
        return {
            "one": lambda: self._requests("small", 1, self.plan.small / 2),
            "small": lambda: self._requests("small", 64, self.plan.small),
            "100k": lambda: self._requests("100k", 8, self.plan.large),
            "2m": lambda: self._requests("2m", 8, self.plan.large),
            "streams": self._streams,
            "idle": self._idle,
        }
