"""Makes what a deployment needs present, digest-checked: engines, the gateway's packages, model weights."""

import shutil
from pathlib import Path

from appliance.acquire import build, debian, hub, images, installed, store, toolchain, wheels
from appliance.acquire.source import Carried, Source
from appliance.domain.deployment import Deployment, Model
from appliance.domain.release import Artifact
from appliance.errors import ApplianceError, ArtifactError
from appliance.report import Progress
from appliance.system.docker import Daemon
from appliance.system.machine import Machine

MAKERS = {
    "debs": debian.gateway, "build": build.llama_server, "wheels": wheels.environment, "program": installed.program,
    "image": images.image,
}  # fmt: skip
"""What makes an artifact of each kind; each leaves a finished one alone."""


def acquire(deployment: Deployment, machine: Machine, source: Source, progress: Progress) -> None:
    """Make every artifact and every model present. Raises ArtifactError, CommandError or HostError."""
    engines(deployment, machine, source, progress)
    here = hub.access(
        hub.settings(deployment.spec.hub, offline=source.offline),
        cache=deployment.layout.cache,
        state=deployment.layout.state,
        progress=progress,
    )
    if source.bundle:
        source.bundle.attach(progress)
    for model in deployment.models:
        if source.bundle and not store.has(model, here.state) and source.bundle.has_model(model):
            source.bundle.weights(model, progress)
        add(model, here, group=deployment.group)
    shutil.rmtree(Path(deployment.layout.cache, "hub"), ignore_errors=True)


def engines(deployment: Deployment, machine: Machine, source: Source, progress: Progress) -> None:
    """Make every artifact present: engines and gateway. Raises ArtifactError, CommandError or HostError."""
    for artifact in deployment.artifacts:
        maker = MAKERS.get(artifact.kind)
        if maker is None:
            raise ArtifactError(f"{artifact.name}: artifacts of kind {artifact.kind!r} are not known")
        try:
            carried = source.bundle.component(artifact) if source.bundle else None
            if source.bundle and carried and artifact.kind == "image":
                images.carried(artifact, carried, source.bundle, deployment, machine, progress)
            elif source.bundle and carried and not home(artifact, deployment).is_dir():
                source.bundle.bring(carried, home(artifact, deployment), progress)
            maker(artifact, deployment, machine, source, progress)
        except (OSError, ApplianceError):
            _discard_drafts(Path(deployment.layout.state))
            raise
    toolchain.discard(Path(deployment.layout.cache))


def present(artifact: Artifact, deployment: Deployment) -> bool:
    """Tell whether an artifact is here: as a directory of ours, or with Docker."""
    if artifact.kind == "image":
        return Daemon(deployment.podman).image(artifact.ref) is not None
    return home(artifact, deployment).is_dir()


def home(artifact: Artifact, deployment: Deployment) -> Path:
    """Return the directory that an artifact is in, or will be."""
    if artifact.kind == "debs":
        return Path(deployment.gateway.root)
    name = "llama-cpp" if artifact.kind == "build" else artifact.name
    return Path(deployment.layout.state, "engines", f"{name}-{artifact.digest[:16]}")


def add(model: Model, here: hub.Access, *, group: str = "") -> None:
    """Make one model present in the store. Raises ArtifactError or HostError."""
    if store.has(model, here.state):
        return
    hub.bring(model.name, tuple(file for file in model.weights.files if file.url), here)
    store.add(model, here.state, here.progress, group=group)


def _discard_drafts(state: Path) -> None:
    """Remove what was being made: on a full disk it is in the way of everything else."""
    for part in ("engines", "gateway"):
        for draft in state.glob(f"{part}/.*.new"):
            shutil.rmtree(draft, ignore_errors=True)


def missing(deployment: Deployment, bundle: Carried | None = None) -> tuple[int, int]:
    """Return the bytes that are still to be made or copied: (engines and packages, weights), roughly."""
    engines = sum(
        (bundle.size(one) if bundle else 0) or SPACE.get(one.name) or SPACE[one.kind]
        for one in deployment.artifacts
        if one.kind in SPACE and not _present(one, deployment)
    )
    weights = sum(store.missing(model, deployment.layout.state) for model in deployment.models)
    return engines, weights


SPACE = {
    "debs": 60 << 20, "build": 1500 << 20, "wheels": 1800 << 20,
    "vllm": 16 << 30, "sglang": 16 << 30, "lmdeploy": 12 << 30, "fastchat": 8 << 30, "xinference": 9 << 30,
}  # fmt: skip
"""Bytes that making an artifact takes at its peak: source, compiler and objects measured, a fifth on top. Engines with
a torch and its CUDA libraries by name: downloaded and unpacked (inferred from the sizes of their wheels)."""


def _present(artifact: Artifact, deployment: Deployment) -> bool:
    state = Path(deployment.layout.state)
    return any(
        path.name.endswith(artifact.digest[:16])
        for part in ("engines", "gateway")
        for path in state.glob(f"{part}/[!.]*")
    )
