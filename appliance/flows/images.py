"""The verbs on container images: which are wanted, here or not; build, pull, save and load them."""

from dataclasses import dataclass, replace
from pathlib import Path

from appliance import resources
from appliance.acquire import images
from appliance.acquire.source import Source
from appliance.domain.deployment import Deployment
from appliance.domain.release import Artifact
from appliance.domain.spec import ApplianceSpec
from appliance.errors import ArtifactError, UsageError
from appliance.flows import converge, planning, store
from appliance.flows.site import Site, daemon, require_rights
from appliance.plan import containers
from appliance.report import work
from appliance.system.docker import Daemon, Image
from appliance.system.lock import lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image that the configuration wants, or that was built here."""

    ref: str
    name: str
    """What it is for: the gateway, an engine; "" = nothing that is configured wants it."""
    recipe: str
    """Directory below images/ that it can be built from; "" = it comes from a registry."""
    size: int
    """Bytes; 0 = it is not here."""


def wanted(site: Site) -> Deployment:
    """Return the plan that `--runtime compose` would make of the configuration."""

    def edit(spec: ApplianceSpec) -> ApplianceSpec:
        return converge.with_smoke(replace(spec, runtime="compose"))

    return planning.planned(site, edit).changes.deployment


def recipes() -> tuple[str, ...]:
    """Return the names of the images that can be built."""
    return tuple(sorted(path.parent.name for path in resources.data("images").glob("*/Dockerfile")))


def entries(site: Site) -> tuple[Entry, ...]:
    """Return every image that is wanted, then those of ours that are here besides."""
    plan = wanted(site)
    here, found = Daemon(plan.podman), {}
    for artifact in _images(plan):
        image = here.image(artifact.ref)
        found[artifact.ref] = Entry(
            ref=artifact.ref, name=artifact.name, recipe=artifact.recipe, size=image.size if image else 0
        )
    for image in here.images():
        for tag in image.tags:
            recipe = image.labels.get("org.llm-appliance.recipe", "")
            found.setdefault(tag, Entry(ref=tag, name="", recipe=recipe, size=image.size))
    return tuple(found.values())


def build(site: Site, name: str, args: tuple[str, ...], tag: str) -> tuple[str, ...]:
    """Build one image, or for "" all that the configuration wants and that are not here; return their names.

    `args` are build arguments NAME=VALUE. What is built as the configuration wants it gets the name that it looks for.
    """
    if name and name not in recipes():
        raise UsageError(f"there is no recipe {name!r}", hint=f"one of {', '.join(recipes())}")
    plan = wanted(site)
    asked = [one for one in _images(plan) if one.recipe and name in ("", one.recipe)]
    if name and (args or tag or not asked):
        spec = plan.spec.images
        own = (*args, *((f"BASE_IMAGE={spec.base}",) if spec.base and "BASE_IMAGE" not in str(args) else ()))
        ref = tag or f"{containers.OURS}/{name}:local"
        asked = [Artifact(name=name, kind="image", ref=ref, digest="", recipe=name, pins=own)]
    here, built = Daemon(plan.podman), []
    for artifact in asked:
        if name or not here.image(artifact.ref):
            images.build(artifact, here, Path(site.layout.cache), site.machine, site.progress)
            built.append(artifact.ref)
    return tuple(built)


def pull(site: Site, refs: tuple[str, ...]) -> tuple[str, ...]:
    """Pull images, or for () all that the configuration wants and that are not here; return their names."""
    plan = wanted(site)
    here = Daemon(plan.podman)
    asked = [Artifact(name=ref, kind="image", ref=ref, digest="") for ref in refs] or [
        one for one in _images(plan) if not one.recipe and not here.image(one.ref)
    ]
    for artifact in asked:
        images.image(artifact, plan, site.machine, Source(), site.progress)
    return tuple(one.ref for one in asked)


def save(site: Site, file: Path, refs: tuple[str, ...]) -> tuple[str, ...]:
    """Write images, or for () all that the configuration wants, into one file; return their names."""
    plan = wanted(site)
    here = Daemon(plan.podman)
    chosen = refs or tuple(one.ref for one in _images(plan))
    found: dict[str, Image | None] = {ref: here.image(ref) for ref in chosen}
    missing = [ref for ref, image in found.items() if image is None]
    if missing:
        raise ArtifactError(f"not here: {', '.join(missing)}", hint="llm-appliance image build, or image pull")
    if not file.parent.is_dir():
        raise UsageError(f"{file.parent}: no such directory")
    with work(site.progress, f"writing {file.name}", sum(image.size for image in found.values() if image)) as bar:
        here.save(chosen, file, lambda more, total: bar.advance(more, total=total))
    return chosen


def load(site: Site, file: Path) -> tuple[str, ...]:
    """Bring images in from a file that `save` wrote; return their names."""
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    site.progress.step("load", str(file))
    refs = daemon(site).load(file)
    for ref in refs:
        images.remember(ref, Path(site.layout.state), site.machine)
    return refs


def prune(site: Site) -> tuple[str, ...]:
    """Remove the images that the appliance brought and no generation on the disk needs; return their names."""
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        needed = {one.ref for plan in store.deployments(site).values() for one in _images(plan)}
        return images.remove_made(daemon(site), Path(site.layout.state), site.machine, keep=needed)


def _images(deployment: Deployment) -> tuple[Artifact, ...]:
    return tuple(one for one in deployment.artifacts if one.kind == "image")
