"""The verbs that operate what is installed, and the one that takes it away."""

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from appliance import certbot, verify
from appliance.acquire import images, store
from appliance.apply import accounts, remove_everything, rolling
from appliance.domain.changes import Command, Record, ServiceState
from appliance.domain.deployment import Deployment
from appliance.errors import ApplianceError, ArtifactError, HostError
from appliance.flows.site import Site, daemon, installed, require_rights, unknown_model
from appliance.flows.steward import Steward
from appliance.runtimes import runtime
from appliance.system.docker import Daemon
from appliance.system.lock import lock


def states(site: Site, record: Record) -> tuple[ServiceState, ...]:
    """Return what the runtime says of each service."""
    return verify.states(record.deployment, site.machine)


def check(site: Site, record: Record) -> tuple[verify.Check, ...]:
    """Wait until all is up, then ask each model once."""
    verify.wait(record.deployment, site.machine)
    deployment = record.deployment
    return tuple(verify.completion(deployment, item.name, site.machine) for item in deployment.models)


def require_intact(site: Site, record: Record) -> int:
    """Read all weights in the store; return their bytes. Raises ArtifactError with each file that is damaged."""
    models = record.deployment.models
    bad = [path for item in models for path in store.damaged(item, site.layout.state, site.progress)]
    if bad:
        # Whole directories: what is left of a model is of no use without the rest.
        homes = " ".join(sorted({str(path.parent) for path in bad}))
        names = ", ".join(str(path) for path in bad)
        raise ArtifactError(f"damaged: {names}", hint=f"rm -r {homes} && llm-appliance install")
    return sum(item.weights.size for item in models)


def commands(site: Site, verb: str, model: str, *, now: bool = False) -> tuple[Command, ...]:
    """Return what starts, stops or restarts one model or, for "", everything. Raises SpecError on an unknown one."""
    deployment = installed(site).deployment
    names = tuple(item.name for item in deployment.models)
    if model and model not in names:
        raise unknown_model(model, names)
    module = runtime(deployment.runtime)
    if turns := () if now else _turns(deployment, verb, model):
        return tuple(
            one for name in turns for one in (*module.retire(deployment, (name,)), *module.begin(deployment, name))
        )
    return {"start": module.start, "stop": module.stop, "restart": module.restart}[verb](deployment, model)


def control(site: Site, verb: str, model: str, *, now: bool = False) -> Record:
    """Start, stop or restart one model or, for "", everything; what stops ends its requests first, but for `now`.

    Replicas of one model restart one after the other, so that another answers meanwhile.
    """
    wanted = commands(site, verb, model, now=now)
    record = installed(site)
    require_rights(site, writing=False)
    deployment, steward = record.deployment, Steward(site.machine, site.progress)
    names = tuple(one.name for one in deployment.started if model in ("", one.model)) if verb != "start" else ()
    with lock(Path(site.layout.state, "lock"), site.command):
        if verb != "stop":
            # Sockets' directories are gone after a reboot where /run is in memory.
            accounts.directories(deployment)
        if turns := () if now else _turns(deployment, verb, model):
            rolling.roll(deployment, deployment, turns, site.machine, steward, [])
            return record
        try:
            if not now:
                steward.drain(deployment, names)
            for command in wanted:
                done = site.machine.run(command)
                if done.code not in command.ok_codes:
                    raise HostError(f"{verb} failed: {(done.stderr or done.stdout).strip()}", hint="llm-appliance logs")
        finally:
            steward.release(deployment, names)
    return record


def _turns(deployment: Deployment, verb: str, model: str) -> tuple[str, ...]:
    """Return the replicas that restart one after the other; () where there is one, or no model is named."""
    replicas = tuple(one.name for one in deployment.started if one.model == model)
    return replicas if verb == "restart" and len(replicas) > 1 else ()


def log_command(site: Site, name: str, *, follow: bool, lines: int, since: int = 0) -> Command:
    """Return the command that shows the log of one model, of one replica, of the gateway, or of all for ""."""
    deployment = installed(site).deployment
    names = ("gateway", *(service.name for service in deployment.started))
    replicas = tuple(service.name for service in deployment.started if service.model == name)
    if name and name not in names and not replicas:
        raise unknown_model(name, ("gateway", *(item.name for item in deployment.models)))
    services = replicas or ((name,) if name else ())
    return runtime(deployment.runtime).logs(deployment, services, follow=follow, lines=lines, since=since)


def uninstall(
    site: Site, *, purge_models: bool, purge_keys: bool = False, keep_configuration: bool = False
) -> tuple[str, ...]:
    """Take everything away that we wrote; weights and keys stay unless told otherwise. Return what is left behind."""
    layout = site.layout
    require_rights(site)
    with lock(Path(layout.state, "lock"), site.command):
        record = site.generations.record()
        there = daemon(site) if images.made(Path(layout.state)) else None
        site.progress.step("stop", "and remove what was written")
        kept: tuple[str, ...] = ()
        if record and keep_configuration:
            kept = tuple(item.path for item in record.files if item.path.startswith(f"{layout.etc}/"))
            record = replace(record, files=tuple(item for item in record.files if item.path not in kept))
        left = kept + (remove_everything(record, site.generations, site.machine) if record else ())
        left += _remove_images(site, there) if there else ()
        left += _certbots(site, record) if record else ()
        doomed = [layout.cache, layout.log, layout.run, f"{layout.state}/generations"]
        doomed += [f"{layout.state}/{name}" for name in ("engines", "gateway", "bundles")] + [layout.sockets]
        doomed += [f"{layout.state}/store"] if purge_models else []
        keys = [path for path in (layout.keys, f"{layout.etc}/secrets", f"{layout.etc}/tls") if Path(path).exists()]
        if purge_keys:
            Path(layout.keys).unlink(missing_ok=True)
            doomed += [f"{layout.etc}/secrets", f"{layout.etc}/tls"]
        else:
            # Nobody can make them again: clients have what belongs to them.
            left += tuple(keys)
        for path in doomed:
            shutil.rmtree(path, ignore_errors=True)
        for name in ("catalog.json", "lock"):
            Path(layout.state, name).unlink(missing_ok=True)
    for path in (f"{layout.etc}/models.d", layout.etc, layout.state):
        if Path(path).is_dir() and not any(Path(path).iterdir()):
            Path(path).rmdir()
    return left


def _certbots(site: Site, record: Record) -> tuple[str, ...]:
    """Return where certbot keeps our certificate, which is certbot's own and goes on being renewed."""
    path = certbot.lineage(site.layout)
    return (path,) if record.deployment.spec.tls == certbot.kept(site.layout) and Path(path).exists() else ()


def _remove_images(site: Site, there: Daemon) -> tuple[str, ...]:
    """Remove the container images that we brought; return those that stay, for somebody uses them or nobody answers."""
    state = Path(site.layout.state)
    brought = images.made(state)
    gone: tuple[str, ...] = ()
    with suppress(ApplianceError):
        gone = images.remove_made(there, state, site.machine)
    site.machine.remove(str(state / images.MADE))
    return tuple(f"image {ref}" for ref in brought if ref not in gone)
