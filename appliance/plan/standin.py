"""Stand-ins: a second replica, of a model that has one only, which answers while that one is replaced."""

from collections.abc import Iterator
from dataclasses import replace

from appliance.domain.deployment import Deployment
from appliance.domain.gateway import Route
from appliance.domain.host import Gpu, Host
from appliance.domain.service import Service, standin_name
from appliance.plan.build import free_ports, socket_path
from appliance.plan.room import Room, pools, room, sets


def with_standins(before: Deployment, after: Deployment, names: tuple[str, ...], host: Host) -> Deployment:
    """Return `after` with a stand-in for each of `names` that is its model's only replica, as far as there is room.

    Each is what that replica is to be, on the same devices or on others of their kind; `before` is what runs now.
    """
    where = pools(host)
    now = then = room(host)
    for service in before.started:
        now, then = now.take(service.loads, where, running=True), then.without(service.loads, where)
    for service in after.started:
        then = then.take(service.loads, where)
    ports = free_ports(host, (*before.services, *after.services))
    found: dict[str, Service] = {}
    for service in _alone(after):
        if service.name not in names:
            continue
        for one in _places(service, host, now):
            if now.holds(one.loads, where) and then.holds(one.loads, where):
                now, then = now.take(one.loads, where), then.take(one.loads, where)
                found[service.name] = _renamed(one, after, ports)
                break
    routes = tuple(_wider(route, found) for route in after.gateway.routes)
    return replace(after, services=(*after.services, *found.values()), gateway=replace(after.gateway, routes=routes))


def _alone(after: Deployment) -> Iterator[Service]:
    models = [service.model for service in after.started]
    return (one for one in after.started if models.count(one.model) == 1 and not one.remote)


def _places(service: Service, host: Host, here: Room) -> Iterator[Service]:
    """Yield the service where it is, then on other GPUs of the same kind."""
    yield service
    own = tuple(gpu for gpu in host.devices if gpu.vendor == service.vendor and gpu.visible in service.gpus)
    if not own or service.container:
        return  # an image is handed its GPUs one by one, as it was planned
    same = tuple(gpu for gpu in host.devices if gpu not in own and not gpu.failure and _kind(gpu) == _kind(own[0]))
    for gpus in sets(same, len(own), here):
        moved = {old.device: new.device for old, new in zip(own, gpus, strict=True)}
        loads = tuple(replace(load, device=moved.get(load.device, load.device)) for load in service.loads)
        yield replace(service, gpus=tuple(gpu.visible for gpu in gpus), loads=loads)


def _kind(gpu: Gpu) -> tuple[str, str, int | None]:
    return gpu.vendor, gpu.name, gpu.memory


def _renamed(service: Service, after: Deployment, ports: Iterator[int]) -> Service:
    name, layout = standin_name(service.model), after.layout
    port = next(ports) if service.on_loopback else service.port
    return replace(service, name=name, socket=socket_path(layout, name), home=f"{layout.cache}/{name}", port=port)


def _wider(route: Route, found: dict[str, Service]) -> Route:
    more = tuple((found[name].name, found[name].address) for name, _ in route.replicas if name in found)
    return replace(route, replicas=(*route.replicas, *more))
