"""supervisord: the embedded default where systemd is not PID 1, as root or as an ordinary user under a prefix."""

import xmlrpc.client
from typing import Final
from xml.parsers.expat import ExpatError

from appliance.domain.changes import Call, Command, Completed, Page, ServiceState, Unit
from appliance.domain.deployment import Deployment
from appliance.domain.host import Host
from appliance.errors import UsageError

NAME: Final = "supervisord"
PREFERENCE: Final = 10
STATES: Final = {
    "RUNNING": "running", "STARTING": "starting", "BACKOFF": "failed", "FATAL": "failed", "EXITED": "failed",
    "STOPPED": "stopped", "STOPPING": "stopped", "UNKNOWN": "failed",
}  # fmt: skip


def refuse(host: Host, prefix: str) -> str | None:
    """It comes with the appliance and runs anywhere."""
    return None


def program(service: str) -> str:
    """Return supervisord's name of a service."""
    return "gateway" if service == "gateway" else f"model-{service}"


def pages(deployment: Deployment, units: tuple[Unit, ...]) -> tuple[Page, ...]:
    """Return its one configuration file."""
    return (
        Page(
            path="supervisord.conf",
            template="supervisord/supervisord.conf.j2",
            names={
                "units": tuple((program(item.service.name), item) for item in units),
                "gateway": deployment.gateway.program_only,
                "listen": deployment.spec.listen,
                "inside": deployment.layout.inside,
                "layout": deployment.layout,
                "user": deployment.user,
                "gateway_user": deployment.gateway_user,
            },
        ),
    )


def check(deployment: Deployment, generation: str) -> tuple[Command, ...]:
    """Let supervisord's own reader read the file; it has no flag for that."""
    script = "import sys; from supervisor.options import ServerOptions as O; o = O(); o.realize(['-c', sys.argv[1]])"
    return (Command(argv=(deployment.python, "-c", script, f"{generation}/supervisord.conf"), timeout=30),)


def activate(deployment: Deployment, changed: frozenset[str]) -> tuple[Command, ...]:
    """Start supervisord, or let the running one take over what differs."""
    commands = [_ensure(deployment)]
    if "supervisord.conf" in changed:
        commands.append(_control(deployment, "update", timeout=120))
    if any(path.startswith("nginx/nginx.conf") or path.endswith(".lua") for path in changed):
        commands.append(_control(deployment, "signal", "HUP", "gateway", ok=(0, 1)))
    # What somebody stopped by hand: bringing in line means that everything runs, as under systemd.
    commands.append(_control(deployment, "start", "all", ok=(0, 7), timeout=120))
    return tuple(commands)


def start(deployment: Deployment, model: str) -> tuple[Command, ...]:
    """Start supervisord and with it everything, or one model."""
    ensure = _ensure(deployment)
    return (ensure, _control(deployment, "start", *(_programs(deployment, model) or ("all",)), ok=(0, 7), timeout=120))


def stop(deployment: Deployment, model: str) -> tuple[Command, ...]:
    """Stop one model, or supervisord and with it everything."""
    if model:
        return (_control(deployment, "stop", *_programs(deployment, model), timeout=120),)
    return (
        _control(deployment, "stop", "all", ok=(0, 4, 7), timeout=120),
        _control(deployment, "shutdown", ok=(0, 4, 7)),
    )


def restart(deployment: Deployment, model: str) -> tuple[Command, ...]:
    """Restart one model, or everything."""
    ensure = _ensure(deployment)
    return (ensure, _control(deployment, "restart", *(_programs(deployment, model) or ("all",)), timeout=120))


def revive(deployment: Deployment, services: tuple[str, ...]) -> tuple[Command, ...]:
    """Nothing: whatever does not run is started by `activate`."""
    return ()


def retire(deployment: Deployment, services: tuple[str, ...]) -> tuple[Command, ...]:
    """Stop what is no longer wanted; supervisord itself goes with the last one."""
    if set(services) >= {"gateway", *(service.name for service in deployment.started)}:
        return stop(deployment, "")
    names = [program(name) for name in services]
    return (_control(deployment, "stop", *names, ok=(0, 1, 2, 4, 7), timeout=120),)


def files(service: str) -> tuple[str, ...]:
    """All programs stand in one file."""
    return ()


def begin(deployment: Deployment, service: str) -> tuple[Command, ...]:
    """Take over its part of the file, which starts it; one whose part is as it was is started."""
    name = program(service)
    return (
        _control(deployment, "update", name, timeout=120),
        _control(deployment, "start", name, ok=(0, 1, 7), timeout=60),
    )


def settle(deployment: Deployment) -> tuple[Command, ...]:
    """Nothing is left behind."""
    return ()


def status(deployment: Deployment) -> Call:
    """Ask over its socket: `supervisorctl` would take longer than all the rest of `status`."""
    body = xmlrpc.client.dumps((), "supervisor.getAllProcessInfo").encode()
    return Call(socket=f"{deployment.layout.run}/supervisor.sock", path="/RPC2", body=body)


def read_status(deployment: Deployment, done: Completed) -> tuple[ServiceState, ...]:
    """Read the list of programs; no answer means that supervisord is not running."""
    services = ("gateway", *(service.name for service in deployment.started))
    try:
        rows: list[dict[str, object]] = xmlrpc.client.loads(done.stdout)[0][0]  # type: ignore[assignment]
        by_name = {str(row["name"]): row for row in rows}
        return tuple(_state(name, by_name.get(program(name), {})) for name in services)
    except xmlrpc.client.Fault as fault:
        why = f"supervisord says {fault.faultString}"
    except (ExpatError, xmlrpc.client.Error):
        why = "supervisord is not running" if done.code else "supervisord gives no answer that can be read"
    return tuple(ServiceState(name=name, state="stopped", detail=why) for name in services)


def logs(deployment: Deployment, services: tuple[str, ...], *, follow: bool, lines: int, since: int = 0) -> Command:
    """Read the files that supervisord writes and rotates; it puts no time before a line."""
    if since:
        raise UsageError("what supervisord writes has no times of its own", hint="-n LINES tells the last ones")
    names = services or ("gateway", *(item.name for item in deployment.started))
    files = [f"{deployment.layout.log}/{program(name)}.log" for name in names]
    return Command(argv=("tail", f"--lines={lines or '+1'}", *(("--follow=name", "--retry") if follow else ()), *files))


def _state(name: str, row: dict[str, object]) -> ServiceState:
    state = STATES.get(str(row.get("statename", "STOPPED")), "failed")
    now, began = int(str(row.get("now", 0))), int(str(row.get("start", 0)))
    return ServiceState(
        name=name,
        state=state,
        pid=int(str(row.get("pid", 0))),
        since=-float(now - began) if began else 0,
        detail=str(row.get("spawnerr") or row.get("description") or "") if state == "failed" else "",
    )


def _programs(deployment: Deployment, model: str) -> tuple[str, ...]:
    return tuple(program(service.name) for service in deployment.started if service.model == model)


def _ensure(deployment: Deployment) -> Command:
    """Start supervisord unless it answers: `supervisorctl pid` asks, a started one refuses a second."""
    script = (
        "import os, subprocess, sys\n"
        "conf, ctl, daemon = sys.argv[1:]\n"
        "alive = subprocess.run([ctl, '-c', conf, 'pid'], capture_output=True).returncode == 0\n"
        "alive or os.execv(daemon, [daemon, '-c', conf])\n"
    )
    binaries = deployment.python.rpartition("/")[0]
    return Command(
        argv=(
            deployment.python, "-c", script, _conf(deployment), f"{binaries}/supervisorctl", f"{binaries}/supervisord",
        ),
        timeout=60,
    )  # fmt: skip


def _control(deployment: Deployment, *words: str, ok: tuple[int, ...] = (0,), timeout: float = 60) -> Command:
    binaries = deployment.python.rpartition("/")[0]
    return Command(argv=(f"{binaries}/supervisorctl", "-c", _conf(deployment), *words), ok_codes=ok, timeout=timeout)


def _conf(deployment: Deployment) -> str:
    return f"{deployment.layout.current}/supervisord.conf"
