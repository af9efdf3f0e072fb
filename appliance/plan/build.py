"""Puts the decisions together into one Deployment."""

from appliance.catalog import Catalog
from appliance.domain.deployment import (
    Deployment,
    Gateway,
    Layout,
    Model,
    Reason,
    Refusal,
    Release,
    Route,
    Service,
)
from appliance.domain.host import Host
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.engines import engine
from appliance.errors import HostError
from appliance.gateway import TRIPLETS
from appliance.plan import choose, size
from appliance.runtimes import runtime, runtimes

SCHEMA = 1
SOCKET_LIMIT = 107
"""Bytes of a unix socket's path that the kernel takes, its final NUL left out."""
LOAD_RATE = 100 << 20
"""Bytes a second that the slowest disk we expect reads weights at."""
ACCOUNTS = ("llm-engine", "llm-gateway", "llm-appliance")
"""User of the engines, user of the gateway, group of both."""


def plan(
    spec: ApplianceSpec, models: tuple[Model, ...], host: Host, layout: Layout, catalog: Catalog, *, python: str
) -> Deployment:
    """Return what will run; `models` are the spec's, inspected. Raises HostError when something cannot be."""
    chosen_runtime, runtime_reason = _runtime(spec, host, layout)
    choices = {model.name: choose.release(item, model, host, catalog) for item, model in _pairs(spec, models)}
    budget = size.Budget(total=host.memory)
    services: list[Service] = []
    reasons = [runtime_reason]
    for item, model in _pairs(spec, models):
        release, reason = choices[model.name]
        fitted, size_reason = budget.fit(item, model, engine(release.engine))
        program = engine(release.engine).program(release, layout.state, python)
        services += _services(item, model, release, fitted, layout, host, program)
        reasons += [reason, size_reason]
    owner, gateway_user, group = _accounts(host, layout)
    releases = {release.engine: release for release, _ in choices.values()}
    gateway_artifact = choose.gateway(catalog, host)
    return Deployment(
        schema=SCHEMA,
        spec=spec,
        layout=layout,
        runtime=chosen_runtime,
        user=owner,
        gateway_user=gateway_user,
        group=group,
        python=python,
        models=models,
        services=tuple(services),
        gateway=_gateway(spec, services, layout, host, gateway_artifact.digest),
        artifacts=(gateway_artifact, *(artifact for release in releases.values() for artifact in release.artifacts)),
        reasons=tuple(reasons),
    )


def _accounts(host: Host, layout: Layout) -> tuple[str, str, str]:
    """Accounts of our own for the system; under a prefix they would be a trace outside it, so all is its owner's."""
    if not host.root:
        return "", "", ""
    return ACCOUNTS if layout.prefix == "/" else ("root", "root", "root")


def _pairs(spec: ApplianceSpec, models: tuple[Model, ...]) -> list[tuple[ModelSpec, Model]]:
    by_name = {model.name: model for model in models}
    return [(item, by_name[item.name]) for item in spec.models]


def _runtime(spec: ApplianceSpec, host: Host, layout: Layout) -> tuple[str, Reason]:
    """Take the runtime that was asked for, else the preferred one of those that work here."""
    if spec.runtime != "auto":
        why = runtime(spec.runtime).refuse(host, layout.prefix)
        if why:
            raise HostError(f"runtime {spec.runtime} cannot be used here: {why}", hint="leave --runtime out to choose")
        return spec.runtime, Reason(subject="runtime", chosen=spec.runtime, why="asked for")
    ranked = sorted(runtimes().values(), key=lambda module: -module.PREFERENCE)
    refusals = [(module.NAME, module.refuse(host, layout.prefix)) for module in ranked]
    chosen = next(name for name, why in refusals if why is None)
    refused = tuple(Refusal(name=name, why=why) for name, why in refusals if why)
    return chosen, Reason(subject="runtime", chosen=chosen, why="the first that works here", refused=refused)


def _services(
    item: ModelSpec, model: Model, release: Release, fitted: size.Fitted, layout: Layout, host: Host, program: str
) -> list[Service]:
    names = [item.name] if item.replicas == 1 else [f"{item.name}_{n}" for n in range(1, item.replicas + 1)]
    first = model.weights.files[0].name if model.weights.files else ""
    return [
        Service(
            name=name,
            model=item.name,
            engine=release.engine,
            version=release.version,
            program=program,
            weights=f"{layout.state}/store/models/{model.digest}/{first}" if first else "",
            socket=_socket(layout, name),
            context=fitted.context,
            parallel=fitted.parallel,
            threads=max(1, host.cpus // item.replicas),
            memory=fitted.memory,
            start_timeout=60 + model.weights.size // LOAD_RATE,
            options=item.options,
        )
        for name in names
    ]


def _socket(layout: Layout, name: str) -> str:
    path = f"{layout.run}/{name}/engine.sock"
    if len(path.encode()) > SOCKET_LIMIT:
        raise HostError(
            f"socket path of {len(path.encode())} bytes, the kernel takes {SOCKET_LIMIT}: {path}",
            hint="choose a shorter --prefix",
        )
    return path


def _gateway(spec: ApplianceSpec, services: list[Service], layout: Layout, host: Host, digest: str) -> Gateway:
    root = f"{layout.state}/gateway/{digest[:16]}"
    triplet = TRIPLETS.get(host.arch, "")
    if not triplet:
        raise HostError(f"no gateway packages for {host.arch}", hint=f"supported: {', '.join(TRIPLETS)}")
    return Gateway(
        host=spec.host,
        port=spec.port,
        program=f"{root}/usr/sbin/nginx",
        root=root,
        ld_library_path=f"{root}/usr/lib/{triplet}:{root}/lib/{triplet}",
        triplet=triplet,
        workers=min(host.cpus, 8),
        routes=tuple(
            Route(
                name=item.name,
                upstream_model=item.name,
                health=engine(next(one.engine for one in services if one.model == item.name)).HEALTH,
                sockets=tuple(service.socket for service in services if service.model == item.name),
            )
            for item in spec.models
        ),
    )
