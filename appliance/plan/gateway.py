"""Plans the gateway: where it listens, and how each model is reached through it."""

import ipaddress

from appliance.domain.deployment import Artifact, Certificate, Device, Gateway, Layout, Route, Service
from appliance.domain.host import Host
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.domain.version import version
from appliance.engines import bound, health, keeps, metrics, nameless, paths, upstream
from appliance.errors import HostError
from appliance.gateway import TRIPLETS

INSIDE = 8080
"""Port of the gateway in its container, which needs no rights."""
CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""Where the distributions that we know keep the certificates that they trust."""
HTTP2_DIRECTIVE = {"debian": (13,), "ubuntu": (25, 4)}
"""Distribution -> the release from which on its nginx has `http2 on`; earlier ones say it where they listen."""


def gateway(
    spec: ApplianceSpec, services: tuple[Service, ...], layout: Layout, host: Host, artifact: Artifact
) -> Gateway:
    """Return the gateway in front of these services. Raises HostError where its packages do not exist."""
    boxed = artifact.kind == "image"
    root = "" if boxed else f"{layout.state}/gateway/{artifact.digest[:16]}"
    triplet = TRIPLETS.get(host.arch, "")
    if not triplet:
        raise HostError(f"no gateway packages for {host.arch}", hint=f"supported: {', '.join(TRIPLETS)}")
    by_model: dict[str, list[Service]] = {}
    for service in services:
        by_model.setdefault(service.model, []).append(service)
    tls = Certificate(certificate=spec.tls.certificate, key=spec.tls.key, http2_listens=boxed or _http2_listens(host))
    return Gateway(
        host=spec.host,
        port=spec.port,
        program=f"{root}/usr/sbin/nginx",
        root=root,
        ld_library_path="" if boxed else f"{root}/usr/lib/{triplet}:{root}/lib/{triplet}",
        image=artifact.ref if boxed else "",
        inside=INSIDE if boxed else 0,
        triplet=triplet,
        workers=min(host.cpus, 8),
        routes=tuple(
            _route(name, item, by_model[item.name])
            for item in spec.models
            for name in (item.name, *(name for name, _ in item.adapters))
        ),
        aliases=tuple((alias, item.name) for item in spec.models for alias in item.serving.aliases),
        splits=spec.splits,
        open=spec.insecure or ipaddress.ip_address(spec.host).is_loopback,
        cors=spec.cors,
        tls=tls if tls.certificate else None,
        ca_file=CA_FILE,
        devices=(
            # A kernel may tell a little more or less after the next boot: no plan is to differ by that.
            Device(device="ram", name="RAM", memory=host.memory >> 27 << 27),
            *(Device(device=gpu.device, name=gpu.name, memory=gpu.memory or 0) for gpu in host.devices),
        ),
    )


def _route(name: str, item: ModelSpec, replicas: list[Service]) -> Route:
    """Return how a model is reached, under its own name or that of an adapter."""
    first, serving = replicas[0], item.serving
    return Route(
        name=name,
        upstream_model=name if name != item.name else upstream(first),
        health=health(first),
        replicas=tuple((service.name, service.address) for service in replicas),
        remote=first.remote,
        paths=paths(first, serving.expose),
        balance=serving.balance,
        limit=serving.limit or bound(first),
        queue=serving.queue,
        resend=serving.retry == "before_first_byte",
        fallback=serving.fallback,
        keepalive=keeps(first),
        nameless=nameless(first),
        metrics=metrics(first) if name == item.name else "",
    )


def _http2_listens(host: Host) -> bool:
    """Tell whether this distribution's nginx is older than 1.25.1."""
    return version(host.os_version) < HTTP2_DIRECTIVE.get(host.os, (99,))
