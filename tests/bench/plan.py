"""What planning costs: `python -m tests.bench.plan` plans 200 models over 8 hosts of 8 GPUs and prints wall times.

Readings: hosts that get their share of 25 models in one plan, each model alone on each host, and plans that are asked
for all 200 at once. With `--profile`, the slowest functions of each.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice

from appliance import catalog
from appliance.domain.deployment import Model
from appliance.domain.host import Host
from appliance.domain.layout import Layout
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.errors import HostError
from appliance.plan import plan
from tests.golden.plans.machines import hosts, models

HOST = "h100x8-570-nvcc"
HOSTS = 8
MODELS = 200
MIX = ("qwen3-0.6b", "qwen3-8b-q4", "qwen3-8b", "gpt-oss-20b", "smoke")
"""Of several kinds and engines; 25 of them with a short context fit eight GPUs."""
SMALL = ("smoke", "qwen3-0.6b")
"""So small that 25 lie on one GPU, with a context that one asks for."""
CONTEXT = 2048
LAYOUT = Layout(prefix="/", etc="/etc/a", state="/var/lib/a", cache="/var/cache/a", run="/run/a", log="/var/log/a")
TARGET = 1.0
"""Seconds that each reading should stay below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One plan to make."""

    spec: ApplianceSpec
    models: tuple[Model, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a reading came to."""

    seconds: float
    plans: int
    asked: int
    """Models in all plans."""
    placed: int
    refused: int
    """Plans that cannot be made."""


def task(names: Iterator[str], count: int, context: int | None = None) -> Task:
    """Return a plan of `count` models; each is served under a name of its own."""
    chosen = [models()[name] for name in islice(names, count)]
    items = tuple(
        ModelSpec(name=f"{model.name}-{number}", source=model.source, context=context)
        for number, model in enumerate(chosen)
    )
    named = tuple(replace(model, name=item.name) for model, item in zip(chosen, items, strict=True))
    return Task(spec=ApplianceSpec(models=items), models=named)


def run(tasks: list[Task], host: Host) -> Cost:
    """Make every plan, as one process that keeps nothing between them would."""
    read = catalog.load()
    placed = refused = 0
    began = time.perf_counter()
    for one in tasks:
        try:
            placed += len(plan(one.spec, one.models, host, LAYOUT, read, python="/usr/bin/python3").services)
        except HostError:
            refused += 1
    seconds = time.perf_counter() - began
    asked = sum(len(one.models) for one in tasks)
    return Cost(seconds=seconds, plans=len(tasks), asked=asked, placed=placed, refused=refused)


def readings() -> dict[str, list[Task]]:
    """Return the plans of each reading."""
    share = MODELS // HOSTS
    return {
        "8 plans of 25 small models": [task(cycle(SMALL), share, CONTEXT) for _ in range(HOSTS)],
        "8 plans of 25 mixed models": [task(cycle(MIX), share, CONTEXT) for _ in range(HOSTS)],
        "8 plans of 25 that do not fit": [task(cycle(models()), share) for _ in range(HOSTS)],
        "200 models × 8 hosts, each alone": [task(names, 1) for names in [cycle(models())] for _ in range(MODELS * HOSTS)],
        "8 plans of 200 small models": [task(cycle(SMALL), MODELS, CONTEXT) for _ in range(HOSTS)],
    }  # fmt: skip


def table(rows: dict[str, Cost]) -> None:
    """Print what each reading cost."""
    print(f"{'':36} {'wall s':>7} {'ms/plan':>8} {'ms/model':>9} {'placed':>7} {'refused plans':>14}")
    for name, cost in rows.items():
        each, model = cost.seconds * 1e3 / cost.plans, cost.seconds * 1e3 / cost.asked
        told = "" if cost.seconds < TARGET else f"  over {TARGET:.0f} s"
        print(f"{name:36} {cost.seconds:7.2f} {each:8.1f} {model:9.2f} {cost.placed:7} {cost.refused:14}{told}")


def profile(work: Callable[[], object], count: int) -> None:
    """Print the functions that take the longest in themselves."""
    recorder = cProfile.Profile()
    recorder.runcall(work)
    pstats.Stats(recorder).sort_stats("tottime").print_stats(count)


def main() -> None:
    """Measure, and profile where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true", help="print the slowest functions of each reading")
    parser.add_argument("--host", default=HOST, choices=sorted(hosts()), help="machine of the golden table")
    parser.add_argument("--rounds", type=int, default=3, help="take the fastest of so many")
    wanted = parser.parse_args()
    host = hosts()[wanted.host]
    rows = {
        name: min((run(tasks, host) for _ in range(wanted.rounds)), key=lambda cost: cost.seconds)
        for name, tasks in readings().items()
    }
    table(rows)
    if wanted.profile:
        for name, tasks in readings().items():
            print(f"\n{name}")
            profile(lambda tasks=tasks: run(tasks, host), 15)  # type: ignore[misc]


if __name__ == "__main__":
    main()
