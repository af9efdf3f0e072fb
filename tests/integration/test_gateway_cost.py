"""No part of the gateway is slow by a mistake: CPU time beside plain nginx's in the same minute, with much room.

The bench (`python -m tests.bench.gateway`) measures; this only notices what is several times too dear. It compares the
kernel's count of CPU time, not the clock, so it does not matter how busy the machine is.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.bench.gateway.cases import INTERVAL, Meter, Plan, bodies
from tests.bench.gateway.gateways import nginx, ours
from tests.bench.gateway.programs import upstream
from tests.integration.gateway_rig import free_port, missing_ability

DEAREST = {"small": 6.0, "100k": 6.0, "2m": 6.0, "streams": 6.0}
"""Times plain nginx's CPU; two to three times of what is measured where everything shares one core."""


@pytest.fixture(autouse=True)
def _nginx() -> None:
    reason = missing_ability() or (None if shutil.which("cc") else "the load generator is in C: no cc here")
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def test_nothing_costs_several_times_what_plain_nginx_costs(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    plan = Plan(small=0.6, large=0.6, streams=100, tokens=10, idle=0.0, gateway_core=core, load_core=core)
    replicas = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    files = bodies(tmp_path)
    with (
        upstream(replicas, tokens=plan.tokens, interval=INTERVAL),
        nginx(replicas, []) as plain,
        ours(replicas, []) as one,
    ):
        meters = [Meter(running, plan, files) for running in (one, plain)]
        found = {}
        for case in DEAREST:
            measured = [meter.cases()[case]() for meter in meters]
            assert [numbers["failed"] for numbers in measured] == [0, 0]
            found[case] = measured[0]["cpu"] / measured[1]["cpu"]
    print("times plain nginx's CPU:", {case: round(times, 2) for case, times in found.items()})
    assert {case: times for case, times in found.items() if times > DEAREST[case]} == {}
