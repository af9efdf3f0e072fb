"""Engines that keep one cache for all requests get all that is left of their GPUs, and are told how much that is."""

import math
from dataclasses import replace

from appliance.domain.host import Gpu, Host
from appliance.domain.service import Load, Service
from appliance.engines import engine
from appliance.errors import HostError
from appliance.plan.room import MARGIN, Room, pools, summed

UNIFIED = 0.5
"""Part of what is left that a GPU takes which shares the machine's memory: everything else there lives in it too."""


def grow(services: tuple[Service, ...], host: Host, here: Room) -> tuple[Service, ...]:
    """Return the services with larger caches and their flag set; those that take no more than they need stay."""
    where = pools(host)
    takers: dict[str, int] = {}
    for service in services:
        for load in service.loads:
            if load.device != "ram" and engine(service.engine).FILLS:
                pool = where[load.device]
                takers[pool] = takers.get(pool, 0) + 1
    taken = summed(tuple(load for service in services for load in service.loads), where)
    gpus = {gpu.device: _at_start(gpu, here, taken.get(gpu.pool, 0)) for gpu in host.devices}
    return tuple(_grown(service, gpus, here, where, takers) for service in services)


def _at_start(gpu: Gpu, here: Room, ours: int) -> Gpu:
    """Return the GPU as it is when an engine starts: what runs now and is replaced has given its memory back."""
    if gpu.memory_free is None or gpu.unified or gpu.pool not in here.live:
        return gpu
    return replace(gpu, memory_free=min(here.total[gpu.pool], here.live[gpu.pool] + ours + MARGIN))


def _grown(
    service: Service, gpus: dict[str, Gpu], here: Room, where: dict[str, str], takers: dict[str, int]
) -> Service:  # fmt: skip
    module = engine(service.engine)
    devices = [load.device for load in service.loads if load.device in gpus]
    if not module.FILLS or not devices:
        return service
    left = min(here.free(where[device]) // takers[where[device]] for device in devices)
    more = int(left * UNIFIED) if gpus[devices[0]].unified else left
    if service.tuning.memory_share is not None:
        more = min(left, _asked(service, here.total[where[devices[0]]]))
    loads = tuple(_larger(load, more) if load.device in gpus else load for load in service.loads)
    largest = next(load for load in loads if load.device == devices[0])
    part = module.share(largest, gpus[devices[0]], here.total[where[devices[0]]])
    # Rounded up: a thousandth too little, and what the plan promised would not fit.
    setting = replace(service.setting, memory_share=min(0.99, math.ceil(part * 1000) / 1000))
    return replace(service, loads=loads, setting=setting)


def _asked(service: Service, total: int) -> int:
    """Return how much larger its cache gets to the share that is asked for. Raises HostError when it has more."""
    asked = int((service.tuning.memory_share or 0) * total)
    needed = max(load.total for load in service.loads if load.device != "ram")
    if asked < needed:
        part = math.ceil(needed / total * 100) / 100
        raise HostError(
            f"{service.name}: --memory-share {service.tuning.memory_share} is less than what it needs",
            hint=f"try --memory-share {part}, or a smaller --context",
        )
    return asked - needed


def _larger(load: Load, more: int) -> Load:
    items = tuple((name, amount + more if name == "KV cache" else amount) for name, amount in load.items)
    return replace(load, items=items)
