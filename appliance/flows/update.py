"""Moves models that are pinned to a commit to the newest one of their branch, through the same pipeline as all else."""

from dataclasses import dataclass, replace

from appliance.acquire import hub
from appliance.acquire import models as model_files
from appliance.acquire.hub import Reference
from appliance.acquire.hub.reference import COMMIT
from appliance.acquire.source import Source
from appliance.domain.changes import Record
from appliance.domain.deployment import Model
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.errors import SpecError, UsageError
from appliance.flows import converge, planning
from appliance.flows.converge import Converged
from appliance.flows.planning import Edit, Planned, Terms
from appliance.flows.site import Site, unknown_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One model's way from one commit to another."""

    name: str
    old: str
    """Its source now."""
    new: str
    """Its source then; the same where there is nothing newer."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Names of files."""
    size: int = 0
    """Bytes of those that are added or changed."""

    @property
    def differs(self) -> bool:
        """Some of its files are others; a commit that only touches what no engine reads is no reason to restart."""
        return bool(self.added or self.removed or self.changed)


def moves(site: Site, names: tuple[str, ...], revision: str = "") -> tuple[Move, ...]:
    """Ask the hubs what is newest of these models, of all for (). Raises SpecError, UsageError, ArtifactError."""
    spec, _ = planning.read_spec(site)
    there = {item.name: item for item in spec.models}
    if unknown := next((name for name in names if name not in there), None):
        raise unknown_model(unknown, tuple(there))
    here = planning.access(site, spec)
    record = site.generations.record()
    chosen = [there[name] for name in names] or [item for item in spec.models if _refusal(item) is None]
    for item in chosen:
        if why := _refusal(item):
            raise UsageError(f"{item.name} cannot be moved: {why}", hint=f"its source is {item.source}")
    return tuple(_move(item, record, here, revision) for item in chosen)


def edit(wanted: tuple[Move, ...]) -> Edit:
    """Return the edit that puts the new sources into the spec."""
    sources = {move.name: move.new for move in wanted if move.differs}

    def change(spec: ApplianceSpec) -> ApplianceSpec:
        models = tuple(replace(item, source=sources.get(item.name, item.source)) for item in spec.models)
        return replace(spec, models=models)

    return change


def update(site: Site, wanted: tuple[Move, ...], terms: Terms) -> Converged:
    """Fetch what differs, switch, and go back where a model does not become healthy."""
    return converge.converge(site, edit(wanted), Source(offline=terms.offline), terms)


def preview(site: Site, wanted: tuple[Move, ...], terms: Terms) -> Planned:
    """Return what an update would change."""
    return planning.planned(site, edit(wanted), terms)


def _refusal(item: ModelSpec) -> str | None:
    """Return why a model has no newer commit, None where it may have one."""
    if not hub.is_reference(item.source):
        return "it comes from no hub"
    if hub.parse(item.source).hub == "https":
        return "a file on the web stands for itself: its digest is in its source"
    return None


def _move(item: ModelSpec, record: Record | None, here: hub.Access, revision: str) -> Move:
    wanted = _newest(hub.parse(item.source), revision)
    new = hub.find(str(wanted), here)
    before = {file.name: file.sha256 for file in _before(item, record, here).weights.files}
    after = {file.name: file for file in new.weights.files}
    added = tuple(name for name in after if name not in before)
    changed = tuple(name for name, file in after.items() if name in before and before[name] != file.sha256)
    return Move(
        name=item.name, old=item.source, new=new.source, added=added, changed=changed,
        removed=tuple(name for name in before if name not in after),
        size=sum(after[name].size for name in (*added, *changed)),
    )  # fmt: skip


def _newest(ours: Reference, revision: str) -> Reference:
    """Return what is asked for: the same file in the newest commit of its branch, or in another revision.

    Of one that is pinned to a commit nobody knows the branch any more: it is the repository's own.
    """
    if ours.hub == "ollama":
        return replace(ours, sha256="", revision=revision or ours.revision)
    return replace(ours, revision=revision or ("" if COMMIT.fullmatch(ours.revision) else ours.revision))


def _before(item: ModelSpec, record: Record | None, here: hub.Access) -> Model:
    models = record.deployment.models if record else ()
    known = next((model for model in models if (model.name, model.source) == (item.name, item.source)), None)
    if known is None and not hub.parse(item.source).pinned:
        raise SpecError(
            f"{item.name}: {item.source} names no commit and is not served yet", hint="llm-appliance install pins it"
        )
    return known or model_files.from_hub(item.name, item.source, here)
