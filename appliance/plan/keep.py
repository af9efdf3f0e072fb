"""What runs already and is still asked for stays as it is: a plan must not move what ran yesterday."""

from dataclasses import replace

from appliance.domain.deployment import Deployment, Model, Reason
from appliance.domain.host import Host
from appliance.domain.service import Service
from appliance.domain.spec import ApplianceSpec, ModelSpec, Serving
from appliance.engines import engines
from appliance.plan.room import pools, summed

Kept = dict[str, tuple[tuple[Service, ...], tuple[Reason, ...]]]
"""Model -> its replicas, and why they are as they are."""


def kept(spec: ApplianceSpec, models: tuple[Model, ...], host: Host, before: Deployment | None, runtime: str) -> Kept:
    """Return the models that keep engine, GPUs and layout: the same files, the same wishes, and the GPUs are there."""
    if before is None or before.runtime != runtime or before.spec.images != spec.images:
        return {}
    digests = {model.name: model.digest for model in models}
    earlier = {model.name: model.digest for model in before.models}
    wishes = {item.name: item for item in before.spec.models}
    found: Kept = {}
    taken: tuple[Service, ...] = ()
    for item in spec.models:
        # What an older version wrote down may lack a place of its own.
        services = tuple(
            replace(service, home=f"{before.layout.cache}/{service.name}")
            for service in before.services
            if service.model == item.name and not service.standin
        )
        same = (
            _as_engine_sees(wishes.get(item.name)) == _as_engine_sees(item)
            and earlier.get(item.name) == digests[item.name]
        )
        if same and services and all(_there(service, host) for service in services) and _fits(taken + services, host):
            taken += services
            about = (f"engine for {item.name}", f"memory of {item.name}", f"trust in {item.name}")
            found[item.name] = (services, tuple(one for one in before.reasons if one.subject in about))
    return found


def _as_engine_sees(item: ModelSpec | None) -> ModelSpec | None:
    """Return a wish without what only the gateway is told."""
    return replace(item, serving=Serving()) if item else None


def _there(service: Service, host: Host) -> bool:
    """Whether its engine and its GPUs are there, under the numbers that they had."""
    usable = {gpu.device: gpu.visible for gpu in host.devices if not gpu.failure}
    devices = (load.device for load in service.loads if load.device != "ram")
    return service.engine in engines() and tuple(usable.get(device) for device in devices) == service.gpus


def _fits(services: tuple[Service, ...], host: Host) -> bool:
    """Whether the machine is still as large as it was: memory can be taken out of one."""
    taken = summed(tuple(load for service in services for load in service.loads), pools(host))
    return taken.get("ram", 0) <= host.memory
