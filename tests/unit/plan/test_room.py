"""What may be promised of each memory, and which GPUs a replica is offered."""

from dataclasses import replace

import pytest

from appliance.domain.host import Gpu, Slice
from appliance.domain.service import Load
from appliance.memory import MIB
from appliance.plan.room import Room, pools, room, sets, summed
from tests.unit.samples import GIB, HOST, gpu, gpu_host

PAIRS = ("X NV12 SYS SYS", "NV12 X SYS SYS", "SYS SYS X NV12", "SYS SYS NV12 X")
"""Four GPUs, two and two linked."""


def load(device: str, amount: int) -> Load:
    return Load(device=device, items=(("weights", amount // 2), ("KV cache", amount - amount // 2)))


def linked(*rows: str, free: tuple[int, ...] = ()) -> tuple[Gpu, ...]:
    """Return GPUs with these links; `free` in GiB."""
    return tuple(
        gpu(index, 80, links=tuple(row.split()), memory_free=free[index] * GIB if free else None)
        for index, row in enumerate(rows)
    )


def chosen(gpus: tuple[Gpu, ...], count: int) -> list[list[int]]:
    return [[one.index for one in found] for found in sets(gpus, count, room(gpu_host(*gpus)))]


def test_nine_tenths_of_the_ram_and_92_hundredths_of_each_gpu() -> None:
    here = room(gpu_host(gpu(0, 24), gpu(1, 80), memory=100))
    assert here.total == {"ram": 100 * GIB, "nvidia:0": 24 * GIB, "nvidia:1": 80 * GIB}
    assert here.free("ram") == 90 * GIB
    assert here.free("nvidia:0") == int(24 * GIB * 0.92)
    assert here.free("nvidia:1") == int(80 * GIB * 0.92)


def test_what_others_hold_now_cannot_be_promised() -> None:
    host = gpu_host(gpu(0, 24, memory_free=10 * GIB), gpu(1, 24, memory_free=24 * GIB), memory_available=7 * GIB)
    here = room(host)
    assert here.free("ram") == 7 * GIB
    assert here.free("nvidia:0") == 10 * GIB - 256 * MIB, "a little stays: a measurement is a moment's"
    assert here.free("nvidia:1") == int(24 * GIB * 0.92), "what is free never makes it more than its share"


def test_a_gpu_that_is_full_has_no_room() -> None:
    assert room(gpu_host(gpu(0, 24, memory_free=1 * MIB))).free("nvidia:0") == 0


def test_a_machine_that_does_not_say_what_is_available_has_its_share() -> None:
    assert room(replace(HOST, memory_available=0)).free("ram") == 9 * GIB


def test_a_gpu_that_shares_the_machines_memory_uses_the_ram() -> None:
    host = gpu_host(gpu(0, unified=True), memory=100)
    host = replace(host, gpus=(replace(host.gpus[0], memory=None),))
    here, where = room(host), pools(host)
    assert where == {"ram": "ram", "nvidia:0": "ram"}
    loads = (load("ram", 10 * GIB), load("nvidia:0", 50 * GIB))
    assert summed(loads, where) == {"ram": 60 * GIB}
    assert here.take(loads, where).free("ram") == 30 * GIB
    assert not here.holds((*loads, load("nvidia:0", 31 * GIB)), where)
    assert sets(host.gpus, 1, here) == (host.gpus,)


def test_a_gpu_whose_memory_nobody_knows_is_not_used() -> None:
    blind = replace(gpu(0), memory=None)
    host = gpu_host(blind, gpu(1))
    here = room(host)
    assert sets(host.gpus, 1, here) == ((gpu(1),),)
    assert sets((blind,), 1, here) == ()
    assert sets(host.gpus, 2, here) == ()
    assert here.free("nvidia:0") == 0
    assert not here.holds((load("nvidia:0", 1),), pools(host))


def test_the_parts_of_a_gpu_are_devices_of_their_own() -> None:
    parts = tuple(Slice(index=n, uuid=f"MIG-{n}", profile="1g.10gb", memory=10 * GIB) for n in (0, 1))
    host = gpu_host(gpu(0, 80, partitioned=True, slices=parts))
    here = room(host)
    assert set(here.total) == {"ram", "nvidia:0.0", "nvidia:0.1"}
    assert here.free("nvidia:0.1") == int(10 * GIB * 0.92)


def test_taking_leaves_the_room_before_as_it_was() -> None:
    host = gpu_host(gpu())
    here, where = room(host), pools(host)
    before = (dict(here.left), dict(here.live))
    after = here.take((load("ram", GIB), load("nvidia:0", 2 * GIB)), where)
    assert (here.left, here.live) == before
    assert after.left == {"ram": here.left["ram"] - GIB, "nvidia:0": here.left["nvidia:0"] - 2 * GIB}
    assert after.live == {"ram": here.live["ram"] - GIB, "nvidia:0": here.live["nvidia:0"] - 2 * GIB}


def test_what_runs_already_has_its_memory() -> None:
    host = gpu_host(gpu(0, 24, memory_free=4 * GIB))
    here, where = room(host), pools(host)
    after = here.take((load("nvidia:0", 19 * GIB),), where, running=True)
    assert after.live == here.live, "it is in what is not free already"
    assert after.free("nvidia:0") == int(24 * GIB * 0.92) - 19 * GIB


def test_what_will_stop_gives_its_memory_back() -> None:
    host = gpu_host(gpu(0, 24, memory_free=4 * GIB), memory=100, memory_available=50 * GIB)
    here, where = room(host), pools(host)
    after = here.without((load("nvidia:0", 10 * GIB), load("ram", 20 * GIB)), where)
    assert after.free("nvidia:0") == 14 * GIB - 256 * MIB
    assert after.free("ram") == 60 * GIB, "weights in RAM are mapped files: they counted as available before"
    assert after.left == here.left
    assert here.without((load("nvidia:0", 90 * GIB),), where).live["nvidia:0"] == 24 * GIB


def test_all_loads_of_one_memory_count_together() -> None:
    host = gpu_host(gpu(), memory=10)
    here, where = room(host), pools(host)
    assert here.holds((load("ram", 5 * GIB), load("ram", 4 * GIB)), where)
    assert not here.holds((load("ram", 5 * GIB), load("ram", 4 * GIB + 1)), where)


def test_one_gpu_is_the_one_with_the_most_room_the_first_of_equals() -> None:
    assert chosen((gpu(0), gpu(1)), 1) == [[0]]
    assert chosen((gpu(0, memory_free=9 * GIB), gpu(1, memory_free=10 * GIB)), 1) == [[1]]
    assert chosen((gpu(1), gpu(0)), 1) == [[0]], "whatever their order"


def test_there_are_no_more_gpus_than_there_are() -> None:
    assert chosen((gpu(0), gpu(1)), 3) == []
    assert chosen((), 1) == []


def test_two_gpus_are_a_linked_pair() -> None:
    assert chosen(linked(*PAIRS), 2) == [[0, 1]]
    assert chosen(linked("X SYS SYS NV4", "SYS X NV4 SYS", "SYS NV4 X SYS", "NV4 SYS SYS X"), 2) == [[0, 3]]


def test_room_comes_before_nearness() -> None:
    assert chosen(linked(*PAIRS, free=(10, 80, 80, 80)), 2) == [[2, 3]]
    assert chosen(linked(*PAIRS, free=(10, 80, 10, 80)), 2) == [[1, 3]]
    assert chosen(linked(*PAIRS, free=(70, 70, 80, 80)), 2) == [[2, 3]]


@pytest.mark.parametrize(
    ("near", "far"), [("NV1", "PIX"), ("PIX", "PXB"), ("PXB", "PHB"), ("PHB", "NODE"), ("NODE", "SYS"), ("SYS", "?")]
)
def test_links_from_the_fastest_to_the_slowest(near: str, far: str) -> None:
    rows = (f"X {far} {far}", f"{far} X {near}", f"{far} {near} X")
    assert chosen(linked(*rows), 2) == [[1, 2]]


def test_gpus_without_links_are_taken_by_their_numbers() -> None:
    assert chosen((gpu(3), gpu(1), gpu(2), gpu(0)), 2) == [[0, 1]]
    assert chosen((gpu(3), gpu(1), gpu(2), gpu(0)), 3) == [[0, 1, 2]]


def test_four_of_eight_are_one_side_of_the_machine() -> None:
    rows = tuple(" ".join("X" if a == b else "NV6" if a % 2 == b % 2 else "SYS" for b in range(8)) for a in range(8))
    assert chosen(linked(*rows), 4) == [[0, 2, 4, 6]]


def test_a_room_is_not_changed_by_asking() -> None:
    here = room(gpu_host(gpu(), gpu(1)))
    copy = Room(dict(here.total), dict(here.left), dict(here.live))
    sets((gpu(), gpu(1)), 2, here)
    assert here == copy
