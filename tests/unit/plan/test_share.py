"""What is left of a GPU goes to the engines that fill it, and their flag says exactly so much."""

import math
from dataclasses import replace

import pytest

from appliance.domain.host import Host
from appliance.domain.service import Load, Service, Setting
from appliance.memory import MIB
from appliance.plan.room import Room, pools, room, summed
from appliance.plan.share import grow
from tests.unit.samples import GIB, gpu, gpu_host

ITEMS = (("weights", 8 * GIB), ("KV cache", 2 * GIB), ("activations", GIB), ("libraries", GIB))
"""12 GiB."""
SHARE = int(24 * GIB * 0.92)


def service(engine: str = "vllm", *devices: str, name: str = "a") -> Service:
    loads: tuple[Load, ...] = (Load(device="ram", items=(("processes", GIB),)),)
    loads += tuple(Load(device=device, items=ITEMS) for device in devices or ("nvidia:0",))
    return Service(
        name=name, model=name, engine=engine, version="1", program="/p", weights="/w", socket="/s", threads=1,
        setting=Setting(context=4096, parallel=1, tensor_parallel=len(devices) or 1), start_timeout=60, vendor="nvidia",
        loads=loads, gpus=tuple(devices),
    )  # fmt: skip


def grown(host: Host, *services: Service) -> tuple[Service, ...]:
    here = room(host)
    for one in services:
        here = here.take(one.loads, pools(host))
    return grow(services, host, here)


def kv(one: Service) -> list[int]:
    return [amount for load in one.loads for name, amount in load.items if name == "KV cache"]


def left(host: Host, *services: Service) -> Room:
    here = room(host)
    for one in services:
        here = here.take(one.loads, pools(host))
    return here


def test_the_cache_grows_into_what_is_left() -> None:
    host = gpu_host(gpu())
    (one,) = grown(host, service())
    assert kv(one) == [2 * GIB + SHARE - 12 * GIB]
    assert dict(one.loads[1].items)["weights"] == 8 * GIB, "and nothing else does"
    assert one.loads[0] == service().loads[0]
    assert left(host, one).free("nvidia:0") == 0


def test_vllm_is_told_its_part_of_the_whole_gpu() -> None:
    (one,) = grown(gpu_host(gpu()), service())
    assert one.setting.memory_share == 0.92
    free = gpu_host(gpu(0, memory_free=15 * GIB))
    (one,) = grown(free, service())
    assert sum(amount for _, amount in one.loads[1].items) == 15 * GIB - 256 * MIB
    assert one.setting.memory_share == 0.615, "(15 GiB - 256 MiB) / 24 GiB = 0.6146, rounded up"
    assert one.setting.memory_share * 24 * GIB >= one.loads[1].total, "rounded down, the promised cache would not fit"


def test_sglang_is_told_what_weights_and_cache_take() -> None:
    (one,) = grown(gpu_host(gpu()), service("sglang"))
    assert one.setting.memory_share == math.ceil((SHARE - 2 * GIB) / (24 * GIB) * 1000) / 1000 == 0.837


def test_sglang_is_told_the_part_of_what_is_free_when_it_starts() -> None:
    (one,) = grown(gpu_host(gpu(0, memory_free=20 * GIB)), service("sglang"))
    cache = 2 * GIB + 20 * GIB - 256 * MIB - 12 * GIB
    assert one.setting.memory_share == math.ceil((8 * GIB + cache) / (20 * GIB) * 1000) / 1000 == 0.888


def test_lmdeploy_is_told_the_caches_part_of_what_the_weights_leave() -> None:
    (one,) = grown(gpu_host(gpu()), service("lmdeploy"))
    cache = 2 * GIB + SHARE - 12 * GIB
    assert one.setting.memory_share == math.ceil(cache / (24 * GIB - 8 * GIB - GIB) * 1000) / 1000 == 0.806
    (one,) = grown(gpu_host(gpu(0, memory_free=20 * GIB)), service("lmdeploy"))
    cache = 2 * GIB + 20 * GIB - 256 * MIB - 12 * GIB
    assert one.setting.memory_share == math.ceil(cache / (20 * GIB - 8 * GIB - GIB) * 1000) / 1000 == 0.887


def test_engines_on_one_gpu_divide_what_is_left() -> None:
    host = gpu_host(gpu(0, 48))
    both = grown(host, service(name="a"), service("sglang", name="b"))
    more = (int(48 * GIB * 0.92) - 24 * GIB) // 2
    assert [kv(one) for one in both] == [[2 * GIB + more]] * 2
    assert left(host, *both).free("nvidia:0") <= 1


def test_what_takes_no_more_than_it_needs_stays() -> None:
    host = gpu_host(gpu(0, 48))
    llama = service("llama-cpp", name="b")
    one, other = grown(host, service(name="a"), llama)
    assert other == llama
    assert kv(one) == [2 * GIB + int(48 * GIB * 0.92) - 24 * GIB], "nothing is kept for it"
    cpu = replace(service(), loads=(Load(device="ram", items=ITEMS),), gpus=())
    assert grown(host, cpu) == (cpu,)


def test_all_gpus_of_a_replica_grow_by_what_the_fullest_has_left() -> None:
    host = gpu_host(gpu(0), gpu(1))
    wide, narrow = grown(host, service("vllm", "nvidia:0", "nvidia:1"), service("llama-cpp", "nvidia:1", name="b"))
    assert kv(wide) == [2 * GIB, 2 * GIB] or kv(wide)[0] == kv(wide)[1]
    host = gpu_host(gpu(0, 48), gpu(1, 48))
    wide, narrow = grown(host, service("vllm", "nvidia:0", "nvidia:1"), service("vllm", "nvidia:1", name="b"))
    more = (int(48 * GIB * 0.92) - 24 * GIB) // 2
    assert (kv(wide), kv(narrow)) == ([2 * GIB + more] * 2, [2 * GIB + more])
    assert wide.setting.memory_share == narrow.setting.memory_share


@pytest.mark.parametrize("count", [1, 3])
def test_of_memory_that_is_the_machines_too_a_half_is_taken(count: int) -> None:
    gpus = tuple(replace(gpu(index), memory=None, unified=True) for index in range(count))
    host = gpu_host(*gpus, memory=128)
    services = tuple(service("vllm", one.device, name=one.device[-1]) for one in gpus)
    after = grown(host, *services)
    free = int(128 * GIB * 0.9) - count * 13 * GIB
    assert [kv(one) for one in after] == [[2 * GIB + int(free // count * 0.5)]] * count
    taken = summed(tuple(load for one in after for load in one.loads), pools(host))["ram"]
    assert taken <= 128 * GIB * 0.9
    assert after[0].setting.memory_share == math.ceil(after[0].loads[1].total / (128 * GIB) * 1000) / 1000


def test_a_flag_never_says_everything() -> None:
    host = gpu_host(gpu(0, 24, memory_free=10 * GIB))
    items = (("weights", 9 * GIB), ("KV cache", 512 * MIB), ("activations", 0), ("libraries", 0))
    tight = replace(service("lmdeploy"), loads=(Load(device="nvidia:0", items=items),))
    assert grown(host, tight)[0].setting.memory_share <= 0.99
