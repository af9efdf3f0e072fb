"""Gateways side by side, in one run: `python -m tests.bench.gateway [--quick] [--only ours,nginx] [--rounds 3]`.

One core for the gateway, which has one worker; the other for the load generator and the upstreams, all in C. CPU time is
the kernel's (schedstat). Rounds are interleaved, gateways that are not measured stand still, tables show medians; a
ratio is the median of the rounds' ratios, each of two measurements that stand side by side.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import sys
import tempfile
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from tests.bench.gateway import processes, table
from tests.bench.gateway.cases import FULL, INTERVAL, QUICK, Meter, Plan, bodies
from tests.bench.gateway.gateways import OWN, Running, Start, ours
from tests.bench.gateway.peers import PEERS, PINS, Unavailable
from tests.bench.gateway.programs import on_core, upstream
from tests.integration.gateway_rig import free_port

HEAD = f"""# Gateways side by side

Made by `python -m tests.bench.gateway`, in one run. One core for the gateway, one worker, the other core for the load
generator and two upstreams, which cost next to nothing. CPU is that of all processes of a gateway, from schedstat.

What to read of it: the ratios. How fast each is depends on the machine and on who else works on it, and where a core was
shared the times at the 99th percentile are those of the neighbours. The peers run with their defaults, not tuned by people
who know them; the two vLLM routers ask for no key, and the Rust one looks at no model. `nginx` is the same nginx with
nothing but `proxy_pass` and no log. `ours` has keys with limits, the log with tokens, and counters on, and `sendfile`, which
plain nginx does not have on by itself: it is what makes a large body cheaper than there.

Before each case every gateway gets the same to warm up, which is not counted: a tenth of a second of small requests, and
before the streams 200 streams of 10 tokens.

Load generator and upstreams do not sleep while there is work, so that no gateway is charged for waking them: that costs
about as much as what a gateway does itself, and comes the more often the slower it is.

Peers: {", ".join(packages[0] for packages in PINS.values())}; production-stack's router from a checkout of August 2026.
"""

ALL: dict[str, Start] = {**OWN, **PEERS}
NICE = -15
"""Of all that is measured, where that is allowed: what else runs here disturbs it less."""


def started(
    stack: ExitStack, names: list[str], plan: Plan, directory: Path, models: int
) -> tuple[dict[str, Running], dict[str, str]]:
    """Start the upstream and the gateways; returns those that run, and why others do not."""
    replicas = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    others = [f"unix:{directory}/other-{number}" for number in range(models - 1)]
    stack.enter_context(upstream([*replicas, *others], tokens=plan.tokens, interval=INTERVAL, core=plan.load_core))
    running: dict[str, Running] = {}
    missing: dict[str, str] = {}
    for name in names:
        say(f"start {name}")
        try:
            with on_core(plan.gateway_core):
                running[name] = stack.enter_context(ALL[name](replicas, others))
        except Unavailable as error:
            missing[name] = str(error)
            say(f"no {name}: {error}")
            continue
        # Whatever happens, it can be told to end.
        stack.callback(pause, running[name], signal.SIGCONT)
        pause(running[name])
    return running, missing


def pause(one: Running, number: signal.Signals = signal.SIGSTOP) -> None:
    if one.pid:
        processes.send(one.pid, number)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def measured(running: dict[str, Running], plan: Plan, directory: Path, rounds: int) -> dict[str, table.Rounds]:
    """Return each gateway's rounds. One case after the other, and in each the gateways in another order."""
    files = bodies(directory)
    meters = {name: Meter(one, plan, files).cases() for name, one in running.items()}
    warm = {name: Meter(one, plan, files).warm for name, one in running.items()}
    found: dict[str, table.Rounds] = {name: [{} for _ in range(rounds)] for name in running}
    order = list(running)
    for number in range(rounds):
        for case in next(iter(meters.values())):
            say(f"round {number + 1}: {case}")
            random.Random(f"{number} {case}").shuffle(order)
            for name in order:
                pause(running[name], signal.SIGCONT)
                warm[name](case)
                found[name][number][case] = meters[name][case]()
                pause(running[name])
    return found


def report(found: dict[str, table.Rounds], missing: dict[str, str], models: int) -> list[str]:
    """Return the tables as lines of Markdown."""
    rounds = max(len(all_) for all_ in found.values())
    lines = [
        f"{models} models configured, medians of {rounds} rounds; {os.cpu_count()} cores, Linux {platform.release()}. {table.quality(found)}",
        "", "Small chat completions (180 B in, 300 B out) and large bodies (8 clients), the model's name last:", "",
        *table.requests(found),
        "", f"200 streams, one token each {INTERVAL} ms, started within 1 s:", "",
        *table.streams(found),
    ]  # fmt: skip
    if wanted := table.aims(found):
        lines += ["", "Aims:", "", *wanted]
    return [*lines, *([""] if missing else []), *(f"No row for {name}: {why}." for name, why in missing.items())]


def main() -> None:
    """Start, measure, print; a full run is kept in RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short cases, 3 rounds: for tuning; no RESULTS.md")
    parser.add_argument("--only", default=",".join(ALL), metavar="NAMES", help=f"of {', '.join(ALL)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=int, default=100, help="configured; all but one only lie there")
    parser.add_argument("--keys", type=int, default=100, help="that ours knows")
    parser.add_argument(
        "--realtime", action="store_true", help="before all others, as root: they stand still meanwhile"
    )
    parser.add_argument("--cores", default="0,1", metavar="GATEWAY,LOAD")
    asked = parser.parse_args()
    names = [name for name in ALL if name in asked.only.split(",")]
    if unknown := set(asked.only.split(",")) - set(ALL):
        parser.error(f"no gateway is called {', '.join(sorted(unknown))}: {', '.join(ALL)}")
    ALL["ours"] = partial(ours, number_of_keys=asked.keys)
    gateway_core, load_core = (int(word) for word in asked.cores.split(","))
    plan = Plan(**(QUICK if asked.quick else FULL), gateway_core=gateway_core, load_core=load_core)  # type: ignore[arg-type]
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if asked.realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    with tempfile.TemporaryDirectory(prefix="gateways-", dir="/tmp") as name, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        running, missing = started(stack, names, plan, directory, asked.models)
        found = measured(running, plan, directory, asked.rounds)
    text = "\n".join(report(found, missing, asked.models)) + "\n"
    print(text)
    if not asked.quick and names == list(ALL):
        Path(__file__).with_name("RESULTS.md").write_text(f"{HEAD}\n{text}")


if __name__ == "__main__":
    main()
