"""The memory of every device that is not promised yet, and which GPUs a replica gets."""

from dataclasses import dataclass, replace
from functools import cache

from appliance.domain.host import Gpu, Host
from appliance.domain.service import Load
from appliance.memory import MIB

RAM_SHARE = 0.9
"""Part of the RAM that models may take; the rest is the system's and the gateway's."""
GPU_SHARE = 0.92
"""Part of a GPU that models may take: what vLLM takes by itself, so that every engine has the same."""
MARGIN = 256 * MIB
"""Bytes that stay free on a GPU beside what others hold now: a measurement is a moment's."""
LINKS = ("NV", "PIX", "PXB", "PHB", "NODE", "SYS")
"""Connections between GPUs as NVIDIA's tool names them, the fastest first."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is left, in bytes, by pool; immutable, so that an attempt that fails leaves no trace."""

    total: dict[str, int]
    left: dict[str, int]
    """Of what may be promised."""
    live: dict[str, int]
    """Of what nobody holds right now; a replica that runs already has its memory and needs none of this."""

    def free(self, pool: str) -> int:
        """Return the bytes that a new replica may take; none of a GPU whose memory is not known."""
        return max(0, min(self.left.get(pool, 0), self.live.get(pool, 0)))

    def holds(self, loads: tuple[Load, ...], pools: dict[str, str]) -> bool:
        """Whether all loads fit; `pools` tells which memory a device uses."""
        return all(amount <= self.free(pool) for pool, amount in summed(loads, pools).items())

    def take(self, loads: tuple[Load, ...], pools: dict[str, str], *, running: bool = False) -> "Room":
        """Return what is left once the loads are there."""
        taken = summed(loads, pools)
        left = {pool: amount - taken.get(pool, 0) for pool, amount in self.left.items()}
        live = self.live if running else {pool: amount - taken.get(pool, 0) for pool, amount in self.live.items()}
        return replace(self, left=left, live=live)

    def without(self, loads: tuple[Load, ...], pools: dict[str, str]) -> "Room":
        """Return what there is once a replica that runs now is gone; what it only maps counts as free already."""
        real = tuple(
            replace(load, items=tuple(one for one in load.items if load.device != "ram" or one[0] != "weights"))
            for load in loads
        )
        freed = summed(real, pools)
        live = {pool: min(self.total[pool], amount + freed.get(pool, 0)) for pool, amount in self.live.items()}
        return replace(self, live=live)


def room(host: Host) -> Room:
    """Return what an empty plan may promise on this machine."""
    gpus = [gpu for gpu in host.devices if gpu.memory is not None]
    total = {"ram": host.memory} | {gpu.device: gpu.memory or 0 for gpu in gpus}
    left = {"ram": int(host.memory * RAM_SHARE)} | {gpu.device: int((gpu.memory or 0) * GPU_SHARE) for gpu in gpus}
    live = {"ram": host.memory_available or host.memory}
    live |= {gpu.device: total[gpu.device] if gpu.memory_free is None else gpu.memory_free - MARGIN for gpu in gpus}
    return Room(total, left, live)


def pools(host: Host) -> dict[str, str]:
    """Return the memory that each device uses."""
    return {"ram": "ram"} | {gpu.device: gpu.pool for gpu in host.devices}


def summed(loads: tuple[Load, ...], pools: dict[str, str]) -> dict[str, int]:
    """Return the bytes that loads take of each memory."""
    taken: dict[str, int] = {}
    for load in loads:
        pool = pools.get(load.device, load.device)
        taken[pool] = taken.get(pool, 0) + load.total
    return taken


def sets(gpus: tuple[Gpu, ...], count: int, here: Room) -> tuple[tuple[Gpu, ...], ...]:
    """Return sets of `count` GPUs worth a trial, the best first: those with the most room, then the nearest."""
    usable = sorted((gpu for gpu in gpus if gpu.pool in here.left), key=lambda gpu: (-here.free(gpu.pool), gpu.index))
    if count > len(usable):
        return ()
    if count == 1:
        return ((usable[0],),)
    roomy = [gpu for gpu in usable if here.free(gpu.pool) >= here.free(usable[count - 1].pool)]
    seeds = roomy if count < len(roomy) else roomy[:1]  # all of them are one set, whichever it begins with
    nearest = min((_nearest(seed, roomy, count) for seed in seeds), key=_distance)
    return (tuple(sorted(nearest, key=lambda gpu: gpu.index)),)


def _nearest(seed: Gpu, gpus: list[Gpu], count: int) -> tuple[Gpu, ...]:
    """Return the seed and those that it reaches fastest."""
    others = sorted((gpu for gpu in gpus if gpu is not seed), key=lambda gpu: (_link(seed, gpu), gpu.index))
    return (seed, *others[: count - 1])


def _distance(gpus: tuple[Gpu, ...]) -> tuple[int, int]:
    """Return how far apart GPUs are, the first index deciding between equals."""
    return sum(_link(one, other) for one in gpus for other in gpus if one is not other), min(g.index for g in gpus)


def _link(one: Gpu, other: Gpu) -> int:
    return _rank(one.links[other.index]) if other.index < len(one.links) else len(LINKS)


@cache
def _rank(name: str) -> int:
    return next((rank for rank, known in enumerate(LINKS) if name.startswith(known)), len(LINKS))
