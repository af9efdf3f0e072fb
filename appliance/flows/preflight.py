"""What would fail later is refused now, with the numbers and the way out."""

import os
import shutil
from pathlib import Path

from appliance import acquire, verify
from appliance.acquire import images
from appliance.acquire.source import Source
from appliance.detect import detect, ports
from appliance.domain.deployment import Deployment
from appliance.errors import HostError
from appliance.flows.site import Site
from appliance.report import amount_text
from appliance.system.http import port_is_free


def require(site: Site, deployment: Deployment, source: Source) -> None:
    """Raise HostError when something is in the way: the port, the disk, or what an image asks of the driver."""
    spec = deployment.spec
    record = site.generations.record()
    # By the port alone: 127.0.0.1 and 0.0.0.0 are in each other's way, and our own gateway makes room.
    ours = record is not None and record.deployment.spec.port == spec.port
    if spec.port < 1024 and os.geteuid() != 0:
        raise HostError(f"port {spec.port} needs root", hint="choose one above 1023, for example 8080")
    if not port_is_free(spec.host, spec.port) and not (ours and _gateway_runs(site)):
        holder = ports.holder(site.machine, spec.port)
        raise HostError(
            f"port {spec.port} is taken{f' by {holder}' if holder else ''}",
            hint=f"stop it, or choose another: --listen {spec.host}:{spec.port + 1}",
        )
    engines, weights = acquire.missing(deployment, source.bundle)
    refuse_small_disk(deployment.layout.state, engines, weights)
    refuse_conflicts(site, deployment)


def _gateway_runs(site: Site) -> bool:
    record = site.generations.record()
    states = verify.states(record.deployment, site.machine) if record else ()
    return any(state.name == "gateway" and state.state in ("running", "starting") for state in states)


def refuse_small_disk(state: str, engines: int, weights: int) -> None:
    """Raise HostError when so many bytes find no room there."""
    path = Path(state)
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if engines + weights > free:
        raise HostError(
            f"{path}: {amount_text(free)} free, {amount_text(engines + weights)} needed "
            f"(engines {amount_text(engines)}, weights {amount_text(weights)})",
            hint="make room there, or mount a larger disk",
        )


def refuse_conflicts(site: Site, deployment: Deployment) -> None:
    """Refuse an image that is here and that NVIDIA's toolkit would not start. Raises HostError."""
    if any(one.container and one.container.requests for one in deployment.started):
        images.refuse_conflicts(deployment, detect(site.machine, state=site.layout.state))
