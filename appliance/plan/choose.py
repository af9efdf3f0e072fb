"""Which engine release serves a model here, and what it is made of on this machine."""

import hashlib
from dataclasses import replace

from appliance.catalog import DIRECTORY, Catalog
from appliance.domain.deployment import Artifact, Model, Reason, Refusal, Release
from appliance.domain.host import Host
from appliance.domain.spec import ModelSpec
from appliance.engines import engine
from appliance.errors import HostError

RECIPE = "1"
"""Changes when the way of building changes, so that everything built before is left alone."""


def release(item: ModelSpec, model: Model, host: Host, catalog: Catalog) -> tuple[Release, Reason]:
    """Return the first release of the catalog that does not refuse; its order is the order of preference."""
    if item.engine != "auto":
        engine(item.engine)
    candidates = [row for row in catalog.releases if item.engine in ("auto", row.engine)]
    if not candidates:
        raise HostError(f"the catalog holds no release of {item.engine}", hint="leave --engine out to choose")
    refused: list[Refusal] = []
    for row in candidates:
        why = engine(row.engine).refuse(model, host, row)
        if why is None:
            subject, chosen = f"engine for {item.name}", f"{row.engine} {row.version} ({row.accelerator})"
            asked = "asked for" if item.engine != "auto" else "the first of the catalog that works here"
            return _resolve(row, host), Reason(subject=subject, chosen=chosen, why=asked, refused=tuple(refused))
        refused.append(Refusal(name=f"{row.engine} {row.version}", why=why))
    raise HostError(
        f"no engine can serve {item.name}: " + "; ".join(f"{one.name}: {one.why}" for one in refused),
        hint="a GGUF file of the same model can be served on the CPU",
    )


def gateway(catalog: Catalog, host: Host) -> Artifact:
    """Return nginx with Lua from this distribution's own packages."""
    subject = (RECIPE, host.os, host.os_version, host.arch, *catalog.gateway_packages)
    return Artifact(name="gateway", kind="debs", ref=" ".join(catalog.gateway_packages), digest=_digest(*subject))


def _resolve(row: Release, host: Host) -> Release:
    """Name each artifact by everything that decides what its bytes will be on this machine."""
    return replace(row, artifacts=tuple(_resolve_artifact(artifact, host) for artifact in row.artifacts))


def _resolve_artifact(artifact: Artifact, host: Host) -> Artifact:
    parts = [RECIPE, artifact.ref, artifact.source_sha256, host.arch, *host.cpu_flags]
    if artifact.kind == "wheels":
        parts += [host.python, requirements(artifact)]
    return replace(artifact, digest=_digest(*parts))


def requirements(artifact: Artifact) -> str:
    """Return the pinned, hashed requirements of a Python environment."""
    name, _, version = artifact.ref.partition("==")
    return (DIRECTORY / "requirements" / f"{name.partition('[')[0]}-{version}.txt").read_text()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
