"""The verbs that change what runs: each edits a spec, then one pipeline makes the machine match it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from appliance import acquire, specfile, verify
from appliance.acquire import hub
from appliance.acquire.source import Source
from appliance.apply import Report, apply
from appliance.domain.changes import Changeset, File
from appliance.domain.deployment import Deployment
from appliance.domain.spec import SMOKE, ApplianceSpec, ModelSpec
from appliance.errors import SpecError
from appliance.flows import certificate, preflight, standins
from appliance.flows.planning import PLAIN, Edit, Planned, Terms, compared, guards, planned, read_spec
from appliance.flows.site import Site, require_rights, unknown_model
from appliance.flows.steward import Steward
from appliance.render.pages import render
from appliance.system.lock import lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Converged:
    """What a changing verb did."""

    deployment: Deployment
    report: Report
    checks: tuple[verify.Check, ...]


def converge(site: Site, edit: Edit, source: Source, terms: Terms = PLAIN, *, secret: File | None = None) -> Converged:
    """Make the machine match the edited spec; `secret` is a file that the new state reads and no plan holds."""
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        site.progress.step("detect")
        plan = planned(site, edit, replace(terms, offline=terms.offline or source.offline))
        with _kept(site, secret) as new:
            certificate.ensure(site, plan.changes.deployment.spec, terms.names)
            return bring_about(site, plan.changes, source, doubted=new)


@contextmanager
def _kept(site: Site, secret: File | None) -> Iterator[str]:
    """Write a secret, and yield its path if it is another one than before.

    What was there comes back when what needs it does not come into force.
    """
    before = site.machine.read(secret.path) if secret else None
    if secret is None or before == secret.content:
        yield ""
        return
    site.machine.write(secret)
    try:
        yield secret.path
    except BaseException:
        if before is None:
            site.machine.remove(secret.path)
        else:
            site.machine.write(replace(secret, content=before))
        raise


def install(site: Site, source: Source, *, edit: Edit, terms: Terms = PLAIN) -> Converged:
    """Install or bring up to date; a first install serves the built-in model."""
    return converge(site, lambda spec: with_smoke(edit(spec)), source, terms)


def with_smoke(spec: ApplianceSpec) -> ApplianceSpec:
    """Add the built-in model where there is none at all; on the CPU, whatever else is here: it proves the rest."""
    return spec if spec.models else replace(spec, models=(ModelSpec(name="smoke", source=SMOKE, gpus=0),))


def add(model: ModelSpec) -> Edit:
    """Return the edit that adds a model; the same one again changes nothing."""
    specfile.check_model(model)

    def edit(spec: ApplianceSpec) -> ApplianceSpec:
        there = next((item for item in spec.models if item.name == model.name), None)
        if there and there == replace(model, source=there.source) and hub.same(there.source, model.source):
            return spec
        if there and there != model:
            raise SpecError(
                f"a model {model.name} is there already, from {there.source}",
                hint=f"llm-appliance remove-model {model.name}, or edit models.d/{model.name}.yaml and run install",
            )
        others = tuple(item for item in spec.models if item.name != model.name)
        return replace(spec, models=tuple(sorted((*others, model), key=lambda item: item.name)))

    return edit


def without(name: str) -> Edit:
    """Return the edit that takes a model away. Raises SpecError with near names."""

    def edit(spec: ApplianceSpec) -> ApplianceSpec:
        if name not in {item.name for item in spec.models}:
            raise unknown_model(name, tuple(item.name for item in spec.models))
        return replace(spec, models=tuple(item for item in spec.models if item.name != name))

    return edit


def apply_plan(site: Site, deployment: Deployment, source: Source) -> Converged:
    """Put a plan from a file in force, exactly as it stands."""
    if deployment.layout != site.layout:
        raise SpecError(
            f"the plan is for {deployment.layout.prefix}, this appliance is at {site.layout.prefix}",
            hint="plan with the same --prefix",
        )
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        _, files = read_spec(site)
        specfile.check_guarded(specfile.check(deployment.spec), keys=guards(site))
        certificate.ensure(site, deployment.spec)
        return bring_about(site, render(deployment, specfile.files(deployment.spec, files, site.layout)), source)


def preview_plan(site: Site, deployment: Deployment) -> Planned:
    """Return what a plan from a file would change."""
    _, files = read_spec(site)
    return compared(site, render(deployment, specfile.files(deployment.spec, files, site.layout)))


def bring_about(site: Site, changes: Changeset, source: Source, *, doubted: str = "") -> Converged:
    """Acquire, apply and verify, under the lock; `doubted`: the path of a key that was not in force before."""
    deployment = changes.deployment
    preflight.require(site, deployment, source)
    site.progress.step("acquire", "engine, gateway and weights")
    source = replace(source, state=site.layout.state)
    acquire.acquire(deployment, site.machine, source, site.progress)
    preflight.refuse_conflicts(site, deployment)
    checks: list[verify.Check] = []
    asked = _asked(site, deployment, doubted, offline=source.offline)

    steward = Steward(site.machine, site.progress)

    def bring(changes: Changeset, asked: tuple[str, ...]) -> Report:
        def healthy() -> None:
            verify.revive(changes.deployment, site.machine)
            steward.resume(changes.deployment)
            verify.wait(changes.deployment, site.machine)
            checks.extend(verify.completion(changes.deployment, name, site.machine) for name in asked)

        return apply(changes, site.generations, site.machine, site.progress, healthy, steward)

    bridge = standins.bridge(site, changes)
    if bridge is None:
        report = bring(changes, asked)
    else:
        try:
            first, last = bring(bridge, asked), bring(changes, ())
        finally:
            standins.tidy(site, bridge)
        report = replace(
            last, changed=standins.lasting(first.changed + last.changed, bridge, changes),
            kept=first.kept + last.kept, edits=first.edits + last.edits,
        )  # fmt: skip
    return Converged(deployment=deployment, report=report, checks=tuple(checks))


def _asked(site: Site, deployment: Deployment, doubted: str, *, offline: bool) -> tuple[str, ...]:
    """Return the models that must give an answer: of a provider's only a new one, for it may be down at any time."""
    record = site.generations.record()
    before = {service.model: service.remote for service in record.deployment.services} if record else {}
    remote = {service.model: service.remote for service in deployment.services if service.remote}
    known = {
        name for name, place in remote.items() if offline or (before.get(name) == place and place.key_file != doubted)
    }
    return tuple(item.name for item in deployment.models if item.name not in known)
