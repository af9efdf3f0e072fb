"""The picture of a plan: one bar for each device, in which everything that is there can be seen."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cli.bars import WIDTH, bars
from appliance.domain.deployment import Deployment
from appliance.domain.host import Host
from appliance.domain.service import Load, Service
from tests.unit.samples import GIB, HOST, deployment, gpu, gpu_host

LEGEND = "W weights  K KV cache  e engine  x held by others  . free"


def planned(*loads: Load, name: str = "tiny") -> Deployment:
    """Return a plan with one service that takes this."""
    plan = deployment()
    return replace(plan, services=(replace(plan.services[0], name=name, loads=loads),))


def load(device: str, weights: float = 0, cache: float = 0, driver: float = 0) -> Load:
    """Return a load in GiB."""
    items = (("weights", weights), ("KV cache", cache), ("driver", driver))
    return Load(device=device, items=tuple((name, int(amount * GIB)) for name, amount in items))


def lines(plan: Deployment, host: Host) -> dict[str, str]:
    """Return each device's line."""
    return {line.split()[0]: line for line in bars(plan, host) if "[" in line}


def bar(plan: Deployment, host: Host, device: str = "nvidia:0") -> str:
    return lines(plan, host)[device].partition("[")[2].partition("]")[0]


def test_a_table_of_devices() -> None:
    plan = planned(load("ram", 3), load("nvidia:0", 12, 6, 0.5))
    assert bars(plan, gpu_host(gpu(0, 24), gpu(1, 80, name="NVIDIA H100 80GB HBM3"))) == [
        f"ram       8 cores                [W{'.' * 39}]    3.0 of  128.0 GiB  tiny",
        f"nvidia:0  NVIDIA L4              [{'W' * 20}{'K' * 10}e{'.' * 9}]   18.5 of   24.0 GiB  tiny",
        f"nvidia:1  NVIDIA H100 80GB HBM3  [{'.' * 40}]    0.0 of   80.0 GiB",
        f"                                 {LEGEND}",
    ]


def test_what_is_tiny_can_be_seen() -> None:
    assert bar(planned(load("nvidia:0", 0.001, 0.001, 0.001)), gpu_host(gpu())) == f"WKe{'.' * 37}"


def test_what_is_tiny_can_be_seen_in_a_bar_that_is_full() -> None:
    full = planned(load("nvidia:0", 23.9, 0.05, 0.05))
    assert bar(full, gpu_host(gpu())) == f"{'W' * 38}Ke"


def test_what_others_hold_is_shown() -> None:
    host = gpu_host(gpu(0, memory_free=12 * GIB))
    assert bar(planned(load("ram", 1)), host) == "x" * 20 + "." * 20
    running = gpu_host(gpu(0, memory_free=6 * GIB))
    assert bar(planned(load("nvidia:0", 6, 6)), running) == "W" * 10 + "K" * 10 + "x" * 10 + "." * 10, (
        "less what is ours"
    )


def test_models_on_one_device_are_added_and_named() -> None:
    plan = deployment()
    one, two = (
        replace(plan.services[0], name=name, loads=(load("nvidia:0", 6, 3),)) for name in ("a", "b")
    )  # fmt: skip
    line = lines(replace(plan, services=(one, two)), gpu_host(gpu()))["nvidia:0"]
    assert f"[{'W' * 20}{'K' * 10}{'.' * 10}]" in line
    assert line.endswith("18.0 of   24.0 GiB  a, b")


def test_a_gpu_that_shares_the_machines_memory_has_no_bar_of_its_own() -> None:
    host = replace(gpu_host(replace(gpu(), memory=None, unified=True)), memory=128 * GIB)
    plan = planned(load("ram", 0, 0, 32), load("nvidia:0", 32, 32))
    assert set(lines(plan, host)) == {"ram"}
    assert sorted(bar(plan, host, "ram")) == sorted("W" * 10 + "K" * 10 + "e" * 10 + "." * 10)


@pytest.mark.parametrize("host", [replace(HOST, memory=0), replace(gpu_host(gpu(0, 0)), memory=0)])
def test_a_machine_that_says_nothing_of_its_memory_has_no_bars(host: Host) -> None:
    assert bars(deployment(), host) == []


amounts = st.floats(0, 30)


@given(
    st.lists(st.builds(load, st.sampled_from(["ram", "nvidia:0"]), amounts, amounts, amounts), max_size=4),
    st.integers(0, 24),
)
def test_a_bar_is_as_wide_as_the_others_and_shows_every_letter(loads: list[Load], free: int) -> None:
    plan = deployment()
    services: tuple[Service, ...] = tuple(
        replace(plan.services[0], name=str(number), loads=(one,)) for number, one in enumerate(loads)
    )
    host = gpu_host(gpu(0, 24, memory_free=free * GIB), memory=20)
    plan = replace(plan, services=services)
    for device in ("ram", "nvidia:0"):
        drawn = bar(plan, host, device)
        assert len(drawn) == WIDTH
        items = [item for one in loads if one.device == device for item in one.items]
        for name, letter in (("weights", "W"), ("KV cache", "K"), ("driver", "e")):
            assert (letter in drawn) == any(amount for other, amount in items if other == name)
