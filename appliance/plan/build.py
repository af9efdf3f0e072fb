"""Puts the decisions together into one Deployment."""

from collections.abc import Iterator
from dataclasses import replace

from appliance.catalog import Catalog, providers
from appliance.domain.deployment import Deployment, Model
from appliance.domain.host import Host
from appliance.domain.layout import Layout
from appliance.domain.release import Release
from appliance.domain.service import Remote, Service
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.engines import engine
from appliance.errors import HostError
from appliance.plan import choose, containers, keep, ladder, runtime, share, size, wishes, words
from appliance.plan.fitness import CONTAINERS
from appliance.plan.gateway import gateway
from appliance.plan.place import Fitted, Place
from appliance.plan.room import Room, pools, room

SCHEMA = 1
SOCKET_LIMIT = 107
"""Bytes of a unix socket's path that the kernel takes, its final NUL left out."""
LOAD_RATE = 100 << 20
"""Bytes a second that the slowest disk we expect reads weights at."""
COMPILE = 600
"""Seconds that PyTorch, or an engine on a GPU, may take beside that: to load libraries, compile kernels and so on."""
BESIDE_GPUS = 16
"""Threads of an engine that computes on GPUs."""
PORTS = range(18100, 19100)
"""Where engines listen that know no unix sockets, on 127.0.0.1 only."""


def plan(
    spec: ApplianceSpec, models: tuple[Model, ...], host: Host, layout: Layout, catalog: Catalog,
    *, python: str, before: Deployment | None = None, anew: bool = False, renew: tuple[str, ...] = (),
) -> Deployment:  # fmt: skip
    """Return what will run; `models` are the spec's, inspected. Raises HostError when something cannot be.

    `before` is what runs now: a model that is asked for as it was keeps its engine, its GPUs and its layout, unless
    all is to be planned `anew`, or it is among those to `renew`. The largest models are placed first, for the others
    fit in between.
    """
    chosen, reason = runtime.choose(spec, host, layout, before)
    kept = {} if anew else keep.kept(spec, models, host, before, chosen)
    kept = {name: what for name, what in kept.items() if name not in renew}
    here, where = room(host), pools(host)
    for service in (one for services, _ in kept.values() for one in services):
        here = here.take(service.loads, where, running=True)
    for service in before.services if before else ():
        here = here if service.model in kept else here.without(service.loads, where)
    artifacts = {one.digest: one for one in before.artifacts} if before else {}
    services: dict[str, tuple[Service, ...]] = {name: replicas for name, (replicas, _) in kept.items()}
    ports = free_ports(host, tuple(service for replicas in services.values() for service in replicas))
    new = [(item, model) for item, model in _pairs(spec, models) if item.name not in kept]
    for item, _ in new:
        wishes.check(item, chosen)
    candidates = {item.name: choose.candidates(item, model, host, catalog, chosen) for item, model in new}
    fits, here = _fit(new, candidates, host, here)
    if chosen in CONTAINERS:
        fits = {item.name: _located(item, fits[item.name], spec, host) for item, _ in new}
    elif spec.images.portable:
        fits = {name: _made_of(one, choose.portable(one.candidate.release, host)) for name, one in fits.items()}
    for item, model in new:
        artifacts |= {one.digest: one for one in fits[item.name].candidate.release.artifacts}
        placed = _services(item, model, fits[item.name], layout, host, python, ports)
        remote = _remote(item, spec) if providers.is_remote(item.source) else None
        services[item.name] = _elsewhere(placed, remote, python) if remote else placed
    grown = share.grow(tuple(one for name in fits for one in services[name]), host, here)
    if chosen == "systemd":
        grown = tuple(replace(one, relayed=bool(one.port)) for one in grown)
    if chosen in CONTAINERS:
        own = {item.name for item, _ in new if item.image}
        grown = tuple(_contained(one, fits[one.model], host, own=one.model in own) for one in grown)
    services |= {name: tuple(one for one in grown if one.model == name) for name in fits}
    ordered = tuple(one for item in spec.models for one in services[item.name])
    told = {name: reasons for name, (_, reasons) in kept.items()}
    for item, model in _pairs(spec, models):
        if item.name in fits:
            fitted = fits[item.name]
            why = words.explain(item, model, services[item.name], fitted, host)
            told[item.name] = (choose.reason(item, fitted.candidate, fitted.refused), why, *wishes.warnings(item))
    owner, gateway_user, group = runtime.accounts(host, layout, chosen)
    boxed = chosen in CONTAINERS
    gateway_artifact = containers.gateway(spec.images, host) if boxed else choose.gateway(catalog, host)
    used = dict.fromkeys(digest for service in ordered for digest in service.artifacts)
    return Deployment(
        schema=SCHEMA,
        spec=spec,
        layout=layout,
        runtime=chosen,
        user=owner,
        gateway_user=gateway_user,
        group=group,
        python=python,
        models=models,
        services=ordered,
        gateway=gateway(spec, ordered, layout, host, gateway_artifact),
        artifacts=(gateway_artifact, *(artifacts[digest] for digest in used)),
        podman=host.docker.podman if boxed else None,
        runtime_version=host.systemd if chosen == "systemd" or (boxed and layout.prefix == "/") else 0,
        reasons=(reason, *(one for item in spec.models for one in told[item.name])),
    )


def _fit(
    new: list[tuple[ModelSpec, Model]], candidates: dict[str, tuple[choose.Candidate, ...]], host: Host, here: Room
) -> tuple[dict[str, Fitted], Room]:
    """Place models, the largest first, for the others fit in between.

    Where that leaves one out, the smallest first; and where that does not help, all with modest contexts.
    """
    largest = sorted(new, key=lambda pair: -pair[1].weights.tensors)
    errors: list[HostError] = []
    for order, most in ((largest, 0), (largest[::-1], 0), (largest, ladder.USEFUL)):
        try:
            return _in_order(order, candidates, host, here, most)
        except HostError as error:
            errors.append(error)
            if len(new) < 2:
                break
    raise errors[0]


def _in_order(
    new: list[tuple[ModelSpec, Model]], candidates: dict[str, tuple[choose.Candidate, ...]], host: Host, here: Room,
    most: int,
) -> tuple[dict[str, Fitted], Room]:  # fmt: skip
    fits: dict[str, Fitted] = {}
    for item, model in new:
        fits[item.name], here = size.fit(item, model, candidates[item.name], host, here, most)
    return fits, here


def _pairs(spec: ApplianceSpec, models: tuple[Model, ...]) -> list[tuple[ModelSpec, Model]]:
    by_name = {model.name: model for model in models}
    return [(item, by_name[item.name]) for item in spec.models]


def _services(
    item: ModelSpec, model: Model, fitted: Fitted, layout: Layout, host: Host, python: str, ports: Iterator[int]
) -> tuple[Service, ...]:
    release = fitted.candidate.release
    module = engine(release.engine)
    image = next((one for one in release.artifacts if one.kind == "image"), None)
    names = [item.name] if item.replicas == 1 else [f"{item.name}_{n}" for n in range(1, item.replicas + 1)]
    return tuple(
        Service(
            name=name,
            model=item.name,
            engine=release.engine,
            version=release.version,
            program=image.program if image else module.program(release, layout.state, python),
            weights=_weights(model, layout),
            socket=socket_path(layout, name),
            home=f"{layout.cache}/{name}",
            cpus=item.cpus or 0,
            setting=place.setting,
            threads=_threads(item, place, host),
            start_timeout=60 + model.weights.size // LOAD_RATE + (COMPILE if module.FILLS or release.torch else 0),
            accelerator=release.accelerator,
            gpus=tuple(gpu.visible for gpu in place.gpus),
            vendor=place.gpus[0].vendor if place.gpus else "",
            loads=place.loads,
            artifacts=tuple(one.digest for one in release.artifacts),
            port=next(ports) if module.ADDRESS == "tcp" else 0,
            options=item.options,
            tuning=item.tuning,
            adapters=item.adapters,
        )
        for name, place in zip(names, fitted.places, strict=True)
    )


def _located(item: ModelSpec, fitted: Fitted, spec: ApplianceSpec, host: Host) -> Fitted:
    return _made_of(fitted, containers.located(fitted.candidate.release, item, spec.images, host))


def _made_of(fitted: Fitted, release: Release) -> Fitted:
    return replace(fitted, candidate=replace(fitted.candidate, release=release))


def _contained(service: Service, fitted: Fitted, host: Host, *, own: bool) -> Service:
    """Put a service into its image, with the GPUs that it has."""
    release = fitted.candidate.release
    if service.remote:
        return service
    torch = bool(release.torch) or engine(release.engine).FILLS
    gpus = tuple(gpu for gpu in host.devices if gpu.visible in service.gpus and gpu.vendor == service.vendor)
    return replace(service, container=containers.container(service, release, gpus, host, torch=torch, own=own))


def _remote(item: ModelSpec, spec: ApplianceSpec) -> Remote:
    """Return where a provider serves a model, and the proxy that leads there."""
    remote = providers.place(item.source, item.key_file)
    name = providers.host(remote).rpartition(":")[0]
    direct = [part.strip().lstrip("*.") for part in spec.proxy.none.split(",") if part.strip()]
    spared = name in providers.CLEAR or any(name == one or name.endswith(f".{one}") for one in direct)
    return remote if spared else replace(remote, proxy=spec.proxy.https.partition("://")[2].rstrip("/"))


def _elsewhere(services: tuple[Service, ...], remote: Remote, python: str) -> tuple[Service, ...]:
    """Make replicas places with a provider; behind a proxy they share the first one's tunnel."""
    tunnel = python if remote.proxy else ""
    return tuple(
        replace(one, remote=remote, socket=services[0].socket, program="" if number else tunnel)
        for number, one in enumerate(services)
    )


def _threads(item: ModelSpec, place: Place, host: Host) -> int:
    """Return the processors of one replica; beside GPUs, more than a few only wait for each other."""
    if item.cpus and item.cpus > host.cpus:
        raise HostError(f"{item.name}: {item.cpus} processors are asked for, {host.cpus} are here", hint="--cpus")
    if item.cpus:
        return item.cpus
    most = max(1, host.cpus // item.replicas)
    return min(most, BESIDE_GPUS) if place.gpus else most


def free_ports(host: Host, services: tuple[Service, ...]) -> Iterator[int]:
    """Yield the ports that nobody has, neither somebody else here nor a replica of ours."""
    taken = {port.port for port in host.ports} | {service.port for service in services}
    return (port for port in PORTS if port not in taken)


def _weights(model: Model, layout: Layout) -> str:
    """Return what an engine is pointed at: the first GGUF file, or the directory of safetensors."""
    home = f"{layout.state}/store/models/{model.digest}"
    if not model.weights.files:
        return ""
    return f"{home}/{model.weights.files[0].name}" if model.weights.format == "gguf" else home


def socket_path(layout: Layout, name: str) -> str:
    """Return where a service listens. Raises HostError where the kernel takes no path of that length."""
    path = f"{layout.run}/{name}/engine.sock"
    if len(path.encode()) > SOCKET_LIMIT:
        raise HostError(
            f"socket path of {len(path.encode())} bytes, the kernel takes {SOCKET_LIMIT}: {path}",
            hint="choose a shorter --prefix",
        )
    return path
