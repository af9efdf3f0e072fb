"""Moves models to a newer release of their engine, and to another revision, through the same pipeline as all else."""

from dataclasses import dataclass, replace

from appliance import verify
from appliance.acquire.source import Source
from appliance.apply.rolling import one_by_one, touched
from appliance.domain.deployment import Deployment
from appliance.domain.spec import ApplianceSpec
from appliance.errors import UsageError
from appliance.flows import converge, planning, update
from appliance.flows.converge import Converged
from appliance.flows.planning import Edit, Planned, Terms
from appliance.flows.site import Site, installed, unknown_model
from appliance.plan.standin import with_standins


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be moved, and where to."""

    models: tuple[str, ...] = ()
    """() = all that no version is written down for."""
    version: str = ""
    """Of the engine, kept in the model's file from now on; "" = the newest that works here."""
    moves: tuple[update.Move, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One model's way."""

    model: str
    old: str
    """Engine and version now."""
    new: str
    replicas: int
    restarts: bool
    gap: float | None
    """Seconds that it will not answer, as long as it took to start the last time; 0 = nobody knows, None = no gap."""


def wish(site: Site, model: str, version: str, revision: str) -> Wish:
    """Return what is asked for. Raises SpecError on an unknown model, UsageError on what makes no sense."""
    spec, _ = planning.read_spec(site)
    there = {item.name: item for item in spec.models}
    if model and model not in there:
        raise unknown_model(model, tuple(there))
    if (version or revision) and not model:
        raise UsageError("which model?", hint="llm-appliance upgrade MODEL --engine-version VERSION")
    held = [item.name for item in spec.models if item.version]
    if model in held and not version and not revision:
        raise UsageError(
            f"{model} is held at {there[model].version} by models.d/{model}.yaml",
            hint=f"llm-appliance upgrade {model} --engine-version VERSION, or take `version` out of it",
        )
    for name in held if not model else ():
        site.progress.note(f"{name}: held at {there[name].version} by models.d/{name}.yaml")
    models = (model,) if model else tuple(name for name in there if name not in held)
    moves = update.moves(site, (model,), revision) if revision else ()
    return Wish(models=models, version=version, moves=moves)


def planned(site: Site, wanted: Wish, terms: Terms) -> Planned:
    """Return what would change. Raises what a plan raises."""
    return planning.planned(site, _edit(wanted), replace(terms, renew=wanted.models))


def upgrade(site: Site, wanted: Wish, terms: Terms) -> Converged:
    """Prepare beside what runs, then switch; goes back when a model does not become healthy."""
    return converge.converge(
        site, _edit(wanted), Source(offline=terms.offline), replace(terms, renew=wanted.models)
    )  # fmt: skip


def steps(site: Site, wanted: Wish, plan: Planned) -> tuple[Step, ...]:
    """Return what becomes of each model that is asked for or restarts, and for how long it will not answer."""
    before, after = installed(site).deployment, plan.changes.deployment
    names = touched(before, after, frozenset(plan.pending))
    rolled = one_by_one(before, with_standins(before, after, names, plan.host), names)
    took = {state.name: state.started_in for state in verify.states(before, site.machine)}
    found = []
    for model in after.models:
        replicas = [service.name for service in after.started if service.model == model.name]
        restarts = [name for name in replicas if name in names]
        if not restarts and model.name not in wanted.models:
            continue
        gap = max(took.get(name, 0) for name in restarts) if restarts and set(restarts) - set(rolled) else None
        found.append(
            Step(
                model=model.name, old=_engine(before, model.name), new=_engine(after, model.name),
                replicas=len(replicas), restarts=bool(restarts), gap=gap,
            )
        )  # fmt: skip
    return tuple(found)


def _engine(deployment: Deployment, model: str) -> str:
    return next((f"{one.engine} {one.version}" for one in deployment.services if one.model == model), "")


def _edit(wanted: Wish) -> Edit:
    moved = update.edit(wanted.moves)

    def edit(spec: ApplianceSpec) -> ApplianceSpec:
        models = tuple(
            replace(item, version=wanted.version) if wanted.version and item.name in wanted.models else item
            for item in spec.models
        )
        return moved(replace(spec, models=models))

    return edit
