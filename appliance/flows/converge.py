"""The verbs that change what runs: each edits a spec, then one pipeline makes the machine match it."""

import difflib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from appliance import acquire, codec, keyring, specfile, verify
from appliance.acquire import hub, store
from appliance.acquire import models as model_files
from appliance.acquire.source import Carried, Source
from appliance.apply import Report, apply, differences
from appliance.apply.edits import edits
from appliance.catalog import load as load_catalog
from appliance.catalog import only, providers
from appliance.detect import detect
from appliance.detect.proxies import proxies
from appliance.domain.changes import Changeset, File, Record
from appliance.domain.deployment import Deployment, Model
from appliance.domain.host import Host
from appliance.domain.spec import SMOKE, ApplianceSpec, ModelSpec, Proxy
from appliance.domain.status import HandEdit
from appliance.errors import ArtifactError, HostError, SpecError
from appliance.flows import certificate, doctor, preflight
from appliance.flows.site import Site, require_rights, unknown_model
from appliance.plan import plan as decide
from appliance.render.pages import render
from appliance.system.lock import lock
from appliance.system.machine import go_out_by


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan and the bytes that it would write."""

    changes: Changeset
    pending: tuple[str, ...]
    """Paths that differ from what is on the machine."""
    diff: str
    host: Host
    """The machine that it is for."""
    edits: tuple[HandEdit, ...] = ()
    """Files of ours that somebody edited by hand."""
    elsewhere: bool = False
    """That machine is another one: nothing can be compared with what is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converged:
    """What a changing verb did."""

    deployment: Deployment
    report: Report
    checks: tuple[verify.Check, ...]


Edit = Callable[[ApplianceSpec], ApplianceSpec]
LARGEST = codec.MAX_BYTES + 1
"""Bytes that are read of an operator's file: one too many, so that a longer one is refused and never cut."""


def read_spec(site: Site) -> tuple[ApplianceSpec, dict[str, bytes]]:
    """Return the operator's spec and the files that it was read from."""
    etc = site.layout.etc
    names = [f"models.d/{name}" for name in site.machine.names(f"{etc}/models.d") if name.endswith(".yaml")]
    paths = [f"{etc}/{name}" for name in ("appliance.yaml", *names) if not name.rpartition("/")[2].startswith(".")]
    files = {path: content for path in paths if (content := site.machine.read(path, LARGEST)) is not None}
    return (specfile.load(files, site.layout) if files else ApplianceSpec()), files


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a plan is made, beside what is wanted."""

    catalog: str | None = None
    """Path of a catalog that replaces the one that holds here."""
    replan: bool = False
    """Plan what runs already anew too: it may get other GPUs, another engine or more context."""
    renew: tuple[str, ...] = ()
    """Models that are planned anew, while all others stay as they are."""
    ignore: tuple[str, ...] | None = None
    """Findings of the doctor that do not stop it; None = it is not asked."""
    offline: bool = False
    """No hub is asked."""
    names: tuple[str, ...] = ()
    """Hosts and addresses that our own certificate is for; () = as before, or what this machine is called."""
    whole: bool = False
    """Read new weights whole for another machine's plan, too."""
    bundle: Carried | None = None
    """Models in it are known, and no engines but those in it and those that are here already are chosen from."""


def planned(site: Site, edit: Edit, terms: Terms = Terms(), host: Host | None = None) -> Planned:
    """Detect, inspect, plan and render: everything that changes nothing.

    With `host`, plan for that other machine, which has nothing of ours yet.
    """
    there, files = read_spec(site)
    record = site.generations.record()
    spec = specfile.check(_with_way_out(edit(there), there))
    if not host:
        specfile.check_guarded(spec, keys=guards(site))
        _require_files(spec, site, record)
    hubs = access(site, spec, offline=terms.offline)
    carried = terms.bundle.models if terms.bundle else ()
    known = (*(record.deployment.models if record else ()), *carried)
    spec = specfile.check(_pinned(spec, there, known, hubs))
    here = host or detect(site.machine, state=site.layout.state)
    if site.layout.prefix == "/":
        here = replace(here, root=True)  # it will be root who puts it in force, whoever asks
    if terms.ignore is not None and not host:
        doctor.require(site, here, spec, doctor.known(terms.ignore))
    before = record.deployment if record and not host else None
    rows = load_catalog(terms.catalog, state=site.layout.state)
    if terms.bundle:
        rows = only(rows, (*terms.bundle.artifacts, *(record.deployment.artifacts if record else ())))

    def deployment_of(*, whole: bool) -> Deployment:
        models = tuple(model_files.resolve(item, record, hubs, whole=whole, carried=carried) for item in spec.models)
        _refuse_dead_links(models, site, terms.bundle)
        return decide(
            spec, models, here, site.layout, rows, python=sys.executable, before=before, anew=terms.replan,
            renew=terms.renew,
        )  # fmt: skip

    # Headers first: nobody should wait for the digests of weights that do not fit.
    deployment = deployment_of(whole=False)
    deployment = deployment if host and not terms.whole else deployment_of(whole=True)
    changes = render(deployment, specfile.files(spec, files, site.layout))
    if host:
        return Planned(changes=changes, pending=(), diff="", host=host, elsewhere=True)
    return _planned(site, changes, record, here)


def guards(site: Site) -> int:
    """Return how many keys there are; 1 where they cannot be seen. Raises SpecError on a broken file."""
    path = site.layout.keys
    content = site.machine.read(path, codec.MAX_BYTES)
    if content is None:
        return int(path.rpartition("/")[2] in site.machine.names(site.layout.etc))
    return len(keyring.load(content, path))


def _require_files(spec: ApplianceSpec, site: Site, record: Record | None) -> None:
    """Raise HostError when a certificate is not there, SpecError when a new one is not valid.

    One that we make ourselves may be missing; and whatever else is to change, one that ended in force is only told of.
    """
    if spec.tls == certificate.kept(site.layout):
        return
    for path in (spec.tls.certificate, spec.tls.key):
        if path and not Path(path).is_file():
            raise HostError(f"tls: {path} is not there", hint="--tls-certificate FILE --tls-key FILE")
    if record is None or spec.tls != record.deployment.spec.tls:
        certificate.require_valid(site, spec.tls)


def _with_way_out(spec: ApplianceSpec, before: ApplianceSpec) -> ApplianceSpec:
    """Keep the proxy of the environment for models of providers: the gateway starts without that environment."""
    new = any(providers.is_remote(item.source) for item in spec.models if item not in before.models)
    way = {name.lower(): value for name, value in reversed(proxies(os.environ))}
    if not new or spec.proxy.https or not way.get("https_proxy"):
        return spec
    return replace(spec, proxy=Proxy(https=way["https_proxy"], none=spec.proxy.none or way.get("no_proxy", "")))


def access(site: Site, spec: ApplianceSpec, *, offline: bool = False) -> hub.Access:
    """Return how hubs are asked from here."""
    go_out_by(spec.proxy.https, spec.proxy.none)
    told = hub.settings(spec.hub, offline=offline)
    return hub.access(told, cache=site.layout.cache, state=site.layout.state, progress=site.progress)


def _pinned(spec: ApplianceSpec, before: ApplianceSpec, known: tuple[Model, ...], hubs: hub.Access) -> ApplianceSpec:
    """Write hub and commit into the sources of models that are new, and of plain ones: they stay what they were.

    A source that somebody wrote by hand without a revision stays as it is; the record holds what it stood for. What is
    `known` is not asked for.
    """
    recorded = {(model.name, model.source) for model in known}

    def one(item: ModelSpec) -> ModelSpec:
        by_hand = item in before.models and ":" in item.source
        return item if by_hand or (item.name, item.source) in recorded else model_files.pinned(item, hubs)

    return replace(spec, models=tuple(one(item) for item in spec.models))


def converge(
    site: Site, edit: Edit, source: Source, terms: Terms = Terms(), *, secret: File | None = None
) -> Converged:
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


def install(site: Site, source: Source, *, edit: Edit, terms: Terms = Terms()) -> Converged:
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


def compared(site: Site, changes: Changeset) -> Planned:
    """Return what a changeset that is there already would change."""
    return _planned(site, changes, site.generations.record(), detect(site.machine, state=site.layout.state))


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

    steward = verify.Steward(site.machine, site.progress)

    def healthy() -> None:
        verify.revive(deployment, site.machine)
        steward.resume(deployment)
        verify.wait(deployment, site.machine)
        checks.extend(verify.completion(deployment, name, site.machine) for name in asked)

    report = apply(changes, site.generations, site.machine, site.progress, healthy, steward)
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


def _planned(site: Site, changes: Changeset, record: Record | None, host: Host) -> Planned:
    pending = tuple(sorted(differences(changes, record, site.machine)))
    wanted = {file.path: file.content for file in changes.files}
    parts: list[str] = []
    for path in pending:
        there = site.machine.read(path if path.startswith("/") else f"{site.layout.current}/{path}", 8 << 20) or b""
        old, new = (text.decode(errors="replace").splitlines(keepends=True) for text in (there, wanted.get(path, b"")))
        parts += difflib.unified_diff(old, new, f"now: {path}", f"then: {path}")
    found = edits(record, site.generations, site.machine) if record else ()
    ours = tuple(one for one in found if not one.yours)
    return Planned(changes=changes, pending=pending, diff="".join(parts), host=host, edits=ours)


def _refuse_dead_links(models: tuple[Model, ...], site: Site, bundle: Carried | None) -> None:
    for model in models:
        if bundle and bundle.has_model(model):
            continue
        gone = [file.path for file in model.weights.files if not file.url and not Path(file.path).exists()]
        if gone and not store.has(model, site.layout.state):
            raise ArtifactError(f"{model.name}: {gone[0]} is gone and no copy is in the store")
