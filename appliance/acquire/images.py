"""Makes container images present: pulled from a registry, or built from images/ where no registry has them."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from appliance import resources
from appliance.acquire.source import Carried, Source, index, refuse_offline
from appliance.bundle.index import Component
from appliance.domain.changes import File
from appliance.domain.deployment import Deployment
from appliance.domain.host import Driver, Host
from appliance.domain.release import Artifact
from appliance.errors import ArtifactError, HostError
from appliance.plan.require import conflict
from appliance.report import Bar, Progress
from appliance.system.docker import Daemon
from appliance.system.machine import Machine

MADE: Final = "images.json"
"""In the state directory: the images that we brought here, and that go with us."""
BUILT: Final = "prebuilt/llama-server"
"""Where a recipe looks for the program that was built on this machine already."""


def image(artifact: Artifact, deployment: Deployment, machine: Machine, source: Source, progress: Progress) -> None:
    """Make an image present; one that is there already is left alone. Raises ArtifactError, HostError."""
    daemon = Daemon(deployment.podman)
    if daemon.image(artifact.ref):
        return
    state = Path(deployment.layout.state)
    # One of ours is in no public registry.
    if (not artifact.recipe or deployment.spec.images.registry) and not source.offline:
        try:
            _pull(artifact, daemon, progress)
        except ArtifactError:
            if not artifact.recipe:
                raise
    if not daemon.image(artifact.ref):
        refuse_offline(source, f"the image {artifact.ref}")
        build(artifact, daemon, Path(deployment.layout.cache), machine, progress)
    remember(artifact.ref, state, machine)


def carried(
    artifact: Artifact,
    component: Component,
    bundle: Carried,
    deployment: Deployment,
    machine: Machine,
    progress: Progress,
) -> None:
    """Load an image from a bundle; one of its name that is here already is left alone. Raises ArtifactError."""
    if not Daemon(deployment.podman).image(artifact.ref):
        bundle.load(component, artifact, progress)
        remember(artifact.ref, Path(deployment.layout.state), machine)


def build(artifact: Artifact, daemon: Daemon, cache: Path, machine: Machine, progress: Progress) -> None:
    """Build one of ours from its directory below images/."""
    progress.step("build", f"image {artifact.ref}")
    args = dict(pin.split("=", 1) for pin in artifact.pins) | _proxies()
    said: list[str] = []

    def on_line(line: str) -> None:
        if line.startswith(("Step ", "STEP ", "==>")) and line not in said:
            said.append(line)
            progress.note(line[:110])

    args |= _index(machine) if artifact.recipe != "gateway" else {}
    try:
        recipe = resources.data(f"images/{artifact.recipe}")
        daemon.build(recipe, _extras(artifact, cache), args, artifact.ref, on_line)
    finally:
        daemon.prune()


def remember(ref: str, state: Path, machine: Machine) -> None:
    """Write down that we brought an image."""
    known = made(state)
    if ref not in known:
        _write((*known, ref), state, machine)


def made(state: Path) -> tuple[str, ...]:
    """Return the images that we brought here."""
    try:
        return tuple(json.loads((state / MADE).read_text()))
    except FileNotFoundError:
        return ()


def remove_made(daemon: Daemon, state: Path, machine: Machine, *, keep: Collection[str] = ()) -> tuple[str, ...]:
    """Remove the images that we brought, but those to keep and those that somebody uses; return what went."""
    known = made(state)
    doomed = [ref for ref in known if ref not in keep]
    if not doomed:
        return ()
    gone = tuple(ref for ref in doomed if daemon.remove(ref))
    daemon.prune()
    _write(tuple(ref for ref in known if ref not in gone), state, machine)
    return gone


def refuse_conflicts(deployment: Deployment, host: Host) -> None:
    """Raise HostError where NVIDIA's toolkit would not start an image that is here: better now than then."""
    driver = host.driver("nvidia") or Driver(vendor="nvidia")
    for service in deployment.started:
        if not service.container or not service.container.requests:
            continue
        image = Daemon(deployment.podman).image(service.container.image)
        gpus = tuple(gpu for gpu in host.devices if gpu.visible in service.gpus)
        env = (image.env if image else {}) | dict(service.container.env)
        if why := conflict(env, driver, gpus):
            raise HostError(
                f"{service.model}: the image {service.container.image} {why}",
                hint="bring the driver up to date, or name another image: --image REF",
            )


def _write(refs: tuple[str, ...], state: Path, machine: Machine) -> None:
    path = str(state / MADE)
    if refs:
        machine.write(File(path=path, content=(json.dumps(sorted(refs), indent=1) + "\n").encode()))
    else:
        machine.remove(path)


def _pull(artifact: Artifact, daemon: Daemon, progress: Progress) -> None:
    progress.step("pull", f"image {artifact.ref}")
    bar: Bar | None = None

    def on_bytes(more: int, total: int) -> None:
        nonlocal bar
        bar = bar or progress.bar(artifact.ref, total)
        bar.advance(more, total=total)

    try:
        daemon.pull(artifact.ref, on_bytes)
    finally:
        if bar:
            bar.close()


def _extras(artifact: Artifact, cache: Path) -> dict[str, Path]:
    """Return what this machine has built already, so that it is not compiled once more."""
    built = cache / "built" / artifact.twin / "llama-server"
    return {BUILT: built} if artifact.twin and built.is_file() else {}


def _index(machine: Machine) -> dict[str, str]:
    """Return the package index that pip is set up for here; file:// ones are not seen inside of a build."""
    url = index(machine).url
    return {"PIP_INDEX_URL": url} if url.startswith("http") else {}


def _proxies() -> dict[str, str]:
    """Return the proxy variables, which every Dockerfile takes without naming them."""
    names = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    return {name: os.environ[name] for name in names if name in os.environ}
