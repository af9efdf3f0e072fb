"""Plans what would run and what would change for it, and changes nothing."""

import difflib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from appliance import certbot, codec, keyring, specfile
from appliance.acquire import hub, store
from appliance.acquire import models as model_files
from appliance.acquire.source import Carried
from appliance.apply import differences
from appliance.apply.edits import edits
from appliance.catalog import load as load_catalog
from appliance.catalog import only, providers
from appliance.detect import detect
from appliance.detect.proxies import proxies
from appliance.domain.changes import Changeset, Record
from appliance.domain.deployment import Deployment, Model
from appliance.domain.host import Host
from appliance.domain.spec import ApplianceSpec, ModelSpec, Proxy
from appliance.domain.status import HandEdit
from appliance.errors import ArtifactError, HostError
from appliance.flows import certificate, doctor
from appliance.flows.site import Site
from appliance.plan import plan as decide
from appliance.render.pages import render
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


PLAIN: Final = Terms()
"""Where nothing else is said."""


def planned(site: Site, edit: Edit, terms: Terms = PLAIN, host: Host | None = None) -> Planned:
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

    One that we keep ourselves may be missing still; and whatever else changes, one that ended in force is only told of.
    """
    if spec.tls in (certificate.kept(site.layout), certbot.kept(site.layout)):
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


def compared(site: Site, changes: Changeset) -> Planned:
    """Return what a changeset that is there already would change."""
    return _planned(site, changes, site.generations.record(), detect(site.machine, state=site.layout.state))


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
