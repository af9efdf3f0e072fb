"""The verbs, a few lines each: edit a spec, then let one pipeline make the machine match it."""

import difflib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from appliance import acquire, codec, specfile, verify
from appliance.acquire import models as model_files
from appliance.acquire.source import Source
from appliance.apply import Generations, Report, apply, remove_everything
from appliance.catalog import catalog
from appliance.detect import detect, ports
from appliance.domain.changes import Changeset, Command, Record, ServiceState
from appliance.domain.deployment import Deployment, Layout, Model
from appliance.domain.host import Host
from appliance.domain.spec import SMOKE, ApplianceSpec, ModelSpec
from appliance.errors import ArtifactError, HostError, SpecError, UsageError
from appliance.plan import plan as decide
from appliance.render.pages import render
from appliance.report import Progress, amount_text
from appliance.runtimes import runtime
from appliance.system.http import port_is_free
from appliance.system.lock import lock
from appliance.system.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a verb works: the layout, the machine, and who is told."""

    layout: Layout
    machine: Machine
    progress: Progress
    command: str
    """The command line as typed, for the lock's holder."""

    @property
    def generations(self) -> Generations:
        """The generations of this layout."""
        return Generations(self.layout, self.machine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan and the bytes that it would write."""

    changes: Changeset
    pending: tuple[str, ...]
    """Paths that differ from what is on the machine."""
    diff: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Converged:
    """What a changing verb did."""

    deployment: Deployment
    report: Report
    checks: tuple[verify.Check, ...]


Edit = Callable[[ApplianceSpec], ApplianceSpec]


def read_spec(site: Site) -> tuple[ApplianceSpec, dict[str, bytes]]:
    """Return the operator's spec and the files that it was read from."""
    etc = site.layout.etc
    names = [f"models.d/{name}" for name in site.machine.names(f"{etc}/models.d") if name.endswith(".yaml")]
    paths = [f"{etc}/{name}" for name in ("appliance.yaml", *names) if not name.rpartition("/")[2].startswith(".")]
    files = {path: content for path in paths if (content := site.machine.read(path)) is not None}
    return (specfile.load(files, site.layout) if files else ApplianceSpec()), files


def planned(site: Site, edit: Edit, host: Host | None = None) -> Planned:
    """Detect, inspect, plan and render: everything that changes nothing."""
    spec, files = read_spec(site)
    spec = specfile.check(edit(spec))
    record = site.generations.record()
    host = host or detect(site.machine, state=site.layout.state)
    models = tuple(model_files.resolve(item, record, site.progress) for item in spec.models)
    _refuse_dead_links(models, site)
    deployment = decide(spec, models, host, site.layout, catalog(), python=sys.executable)
    return _planned(site, render(deployment, specfile.files(spec, files, site.layout)), record)


def converge(site: Site, edit: Edit, source: Source) -> Converged:
    """Make the machine match the edited spec."""
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        site.progress.step("detect")
        plan = planned(site, edit)
        return _bring_about(site, plan.changes, source)


def install(site: Site, source: Source, *, edit: Edit) -> Converged:
    """Install or bring up to date; a first install serves the built-in model."""
    return converge(site, lambda spec: with_smoke(edit(spec)), source)


def with_smoke(spec: ApplianceSpec) -> ApplianceSpec:
    """Add the built-in model where there is none at all."""
    return spec if spec.models else replace(spec, models=(ModelSpec(name="smoke", source=SMOKE),))


def add(model: ModelSpec) -> Edit:
    """Return the edit that adds a model; the same one again changes nothing."""
    specfile.check_model(model)

    def edit(spec: ApplianceSpec) -> ApplianceSpec:
        there = next((item for item in spec.models if item.name == model.name), None)
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
        specfile.check(deployment.spec)
        return _bring_about(site, render(deployment, specfile.files(deployment.spec, files, site.layout)), source)


def preview_plan(site: Site, deployment: Deployment) -> Planned:
    """Return what a plan from a file would change."""
    _, files = read_spec(site)
    changes = render(deployment, specfile.files(deployment.spec, files, site.layout))
    return _planned(site, changes, site.generations.record())


def installed(site: Site) -> Record:
    """Return the record. Raises HostError when nothing is installed."""
    record = site.generations.record()
    if record is None:
        raise HostError("nothing is installed here", hint=f"{_sudo(site)}llm-appliance install")
    return record


def states(site: Site, record: Record) -> tuple[ServiceState, ...]:
    """Return what the runtime says of each service."""
    return verify.states(record.deployment, site.machine)


def check(site: Site, record: Record) -> tuple[verify.Check, ...]:
    """Wait until all is up, then ask each model once."""
    verify.wait(record.deployment, site.machine)
    return tuple(verify.completion(record.deployment, item.name) for item in record.deployment.models)


def control(site: Site, verb: str, model: str) -> Record:
    """Start, stop or restart one model or, for "", everything."""
    record = installed(site)
    names = tuple(item.name for item in record.deployment.models)
    if model and model not in names:
        raise unknown_model(model, names)
    module = runtime(record.deployment.runtime)
    require_rights(site)
    actions = {"start": module.start, "stop": module.stop, "restart": module.restart}
    with lock(Path(site.layout.state, "lock"), site.command):
        if verb != "stop":
            apply_directories(record)
        for command in actions[verb](record.deployment, model):
            done = site.machine.run(command)
            if done.code not in command.ok_codes:
                raise HostError(f"{verb} failed: {(done.stderr or done.stdout).strip()}", hint="llm-appliance logs")
    return record


def apply_directories(record: Record) -> None:
    """Make the directories of sockets again: they are gone after a reboot where /run is in memory."""
    from appliance.apply import accounts

    accounts.directories(record.deployment)


def log_command(site: Site, model: str, *, follow: bool, lines: int) -> Command:
    """Return the command that shows the log of one model, of the gateway, or of all for ""."""
    deployment = installed(site).deployment
    names = ["gateway", *(service.name for service in deployment.services)]
    replicas = [service.name for service in deployment.services if service.model == model]
    if model and model not in names and not replicas:
        raise unknown_model(model, ("gateway", *(item.name for item in deployment.models)))
    service = model if model in names else (replicas[0] if replicas else "")
    return runtime(deployment.runtime).logs(deployment, service, follow=follow, lines=lines)


def uninstall(site: Site, *, purge_models: bool) -> tuple[str, ...]:
    """Take everything away that we wrote; weights stay unless told otherwise. Return what is left behind."""
    layout = site.layout
    require_rights(site)
    with lock(Path(layout.state, "lock"), site.command):
        record = site.generations.record()
        site.progress.step("stop", "and remove what was written")
        left = remove_everything(record, site.generations, site.machine) if record else ()
        doomed = [layout.cache, layout.log, layout.run, f"{layout.state}/generations"]
        doomed += [f"{layout.state}/engines", f"{layout.state}/gateway"]
        doomed += [f"{layout.state}/store"] if purge_models else []
        for path in doomed:
            shutil.rmtree(path, ignore_errors=True)
        Path(layout.state, "lock").unlink(missing_ok=True)
    for path in (f"{layout.etc}/models.d", layout.etc, layout.state):
        if Path(path).is_dir() and not any(Path(path).iterdir()):
            Path(path).rmdir()
    return left


def unknown_model(name: str, names: tuple[str, ...]) -> SpecError:
    """Return the error for a name that no model has."""
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"models: {', '.join(names) or 'none'}"
    return SpecError(f"no model is called {name!r}", hint=hint)


def _bring_about(site: Site, changes: Changeset, source: Source) -> Converged:
    deployment = changes.deployment
    _preflight(site, deployment)
    site.progress.step("acquire", "engine, gateway and weights")
    acquire.acquire(deployment, site.machine, source, site.progress)
    checks: list[verify.Check] = []

    def healthy() -> None:
        verify.wait(deployment, site.machine)
        checks.extend(verify.completion(deployment, item.name) for item in deployment.models)

    report = apply(changes, site.generations, site.machine, site.progress, healthy)
    return Converged(deployment=deployment, report=report, checks=tuple(checks))


def _planned(site: Site, changes: Changeset, record: Record | None) -> Planned:
    from appliance.apply.converge import differences

    pending = tuple(sorted(differences(changes, record, site.machine)))
    wanted = {file.path: file.content for file in changes.files}
    parts: list[str] = []
    for path in pending:
        there = site.machine.read(path if path.startswith("/") else f"{site.layout.current}/{path}", 8 << 20) or b""
        old, new = (text.decode(errors="replace").splitlines(keepends=True) for text in (there, wanted.get(path, b"")))
        parts += difflib.unified_diff(old, new, f"now: {path}", f"then: {path}")
    return Planned(changes=changes, pending=pending, diff="".join(parts))


def require_rights(site: Site) -> None:
    """Raise HostError when this user may not change this appliance."""
    layout = site.layout
    if layout.prefix == "/" and os.geteuid() != 0:
        raise HostError("only root may change a system-wide appliance", hint=f"sudo {site.command}, or --prefix DIR")
    nearest = next(path for path in (Path(layout.state), *Path(layout.state).parents) if path.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise HostError(f"{nearest} cannot be written to", hint="choose a --prefix of your own")


def _preflight(site: Site, deployment: Deployment) -> None:
    """Refuse what would fail later, with the numbers. Raises HostError."""
    spec = deployment.spec
    record = site.generations.record()
    ours = record is not None and (record.deployment.spec.host, record.deployment.spec.port) == (spec.host, spec.port)
    if spec.port < 1024 and os.geteuid() != 0:
        raise HostError(f"port {spec.port} needs root", hint="choose one above 1023, for example 8080")
    if not port_is_free(spec.host, spec.port) and not (ours and _gateway_runs(site, deployment)):
        holder = ports.holder(site.machine, spec.port)
        raise HostError(
            f"port {spec.port} is taken{f' by {holder}' if holder else ''}",
            hint=f"stop it, or choose another: --listen {spec.host}:{spec.port + 1}",
        )
    _refuse_small_disk(deployment)


def _gateway_runs(site: Site, deployment: Deployment) -> bool:
    record = site.generations.record()
    return record is not None and any(
        state.name == "gateway" and state.state in ("running", "starting") for state in states(site, record)
    )


def _refuse_small_disk(deployment: Deployment) -> None:
    engines, weights = acquire.missing(deployment)
    path = Path(deployment.layout.state)
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if engines + weights > free:
        raise HostError(
            f"{path}: {amount_text(free)} free, {amount_text(engines + weights)} needed "
            f"(engines {amount_text(engines)}, weights {amount_text(weights)})",
            hint="make room there, or mount a larger disk",
        )


def _refuse_dead_links(models: tuple[Model, ...], site: Site) -> None:
    from appliance.acquire import store

    for model in models:
        gone = [file.path for file in model.weights.files if not Path(file.path).exists()]
        if gone and not store.has(model, site.layout.state):
            raise ArtifactError(f"{model.name}: {gone[0]} is gone and no copy is in the store")


def _sudo(site: Site) -> str:
    return "sudo " if site.layout.prefix == "/" and os.geteuid() != 0 else ""


def load_plan(path: str) -> Deployment:
    """Read a plan that `plan --json` wrote: the envelope, or the bare deployment."""
    import json

    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
        document = json.loads(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"{path}: not JSON: {error}", hint="llm-appliance plan --json > plan.json") from error
    data = document.get("data", document) if isinstance(document, dict) else document
    if isinstance(data, dict) and "deployment" in data:
        data = data["deployment"]
    return codec.from_data(Deployment, data, source=path)
