"""systemd: one umbrella unit, one unit for the gateway, one for each replica, all PartOf the umbrella."""

from typing import Final

from appliance.domain.changes import Command, Completed, Page, ServiceState, Unit
from appliance.domain.deployment import Deployment
from appliance.domain.host import Host

NAME: Final = "systemd"
PREFERENCE: Final = 20
UNITS: Final = "/etc/systemd/system"
UMBRELLA: Final = "llm-appliance.service"
GATEWAY: Final = "llm-appliance-gateway.service"
DEVICES: Final = {
    "nvidia": ("char-nvidia*",),
    "amd": ("char-kfd", "char-drm"),
    "intel": ("char-drm",),
    "ascend": ("char-davinci*", "char-devdrv-cdev", "char-hisi_hdc"),
    "metax": ("char-mxcd*", "char-drm"),
    "moore-threads": ("char-mtgpu*", "char-drm"),
    "hygon": ("char-kfd", "char-mkfd", "char-drm"),
}
"""Vendor -> its devices, as /proc/devices calls them."""
GROUPS: Final = ("render", "video")
BY_GROUP: Final = ("amd", "intel", "hygon", "metax", "moore-threads")
"""Vendors whose devices are open to those groups; NVIDIA's are to everybody."""
PROPERTIES: Final = (
    "Id,ActiveState,SubState,Result,MainPID,NRestarts,StateChangeTimestampMonotonic,ActiveEnterTimestampMonotonic,"
    "ExecMainStartTimestampMonotonic,ExecMainStatus,DropInPaths"
)
LOOP: Final = 3
"""Restarts from which on a service that starts is in a loop; one that has never been up is at the first."""
OLDEST: Final = 247
"""The first that knows ProtectProc=, without which an engine sees everybody's processes."""


def refuse(host: Host, prefix: str) -> str | None:
    """Refuse where systemd does not run the machine, or we may not tell it anything."""
    if not host.systemd:
        return f"PID 1 is {host.init or 'unknown'}, not systemd"
    if host.systemd < OLDEST:
        return f"systemd {host.systemd} is too old, {OLDEST} is needed"
    if not host.root:
        return "needs root"
    if prefix != "/":
        return f"its units live outside the prefix {prefix}"
    return None


def unit(service: str) -> str:
    """Return the unit's name of a service; "gateway" is the gateway's."""
    return GATEWAY if service == "gateway" else f"llm-appliance-model@{service}.service"


def pages(deployment: Deployment, units: tuple[Unit, ...]) -> tuple[Page, ...]:
    """Return the unit files, and the rotation of the access log."""
    names = tuple(unit(item.service.name) for item in units)
    layout = deployment.layout
    return (
        Page(
            path=f"{UNITS}/{UMBRELLA}",
            template="systemd/llm-appliance.service.j2",
            names={"units": (GATEWAY, *names), "python": deployment.python},
        ),
        Page(
            path=f"{UNITS}/{GATEWAY}",
            template="systemd/gateway.service.j2",
            names={
                # Without its routes: nginx rereads them, and another model must not restart the gateway.
                "gateway": deployment.gateway.program_only,
                "layout": layout,
                "user": deployment.gateway_user,
                "group": deployment.group,
                "privileged": deployment.gateway.port < 1024,
            },
        ),
        Page(path="/etc/logrotate.d/llm-appliance", template="systemd/logrotate.j2", names={"layout": layout}),
        *(
            Page(
                path=f"{UNITS}/{unit(item.service.name)}",
                template="systemd/model.service.j2",
                names={
                    "service": item.service,
                    "launch": item.launch,
                    "layout": layout,
                    "user": deployment.user,
                    "group": deployment.group,
                    "python": deployment.python,
                    "health": item.health,
                    "devices": DEVICES.get(item.service.vendor, ()),
                    "groups": GROUPS if item.service.vendor in BY_GROUP else (),
                    # Where it listens, or its processes on several GPUs meet.
                    "loopback": bool(item.service.port or item.service.gpus),
                    "outside": item.service.remote is not None,
                },
            )
            for item in units
        ),
    )


def check(deployment: Deployment, generation: str) -> tuple[Command, ...]:
    """Unknown keys are only errors with `--recursive-errors=no`, which is there from 250 on."""
    files = [f"{generation}/root{UNITS}/{unit(name)}" for name in _services(deployment)]
    umbrella = f"{generation}/root{UNITS}/{UMBRELLA}"
    strict = ("--recursive-errors=no",) if deployment.runtime_version >= 250 else ()
    return (Command(argv=("systemd-analyze", "verify", *strict, *files, umbrella), timeout=60),)


def activate(deployment: Deployment, changed: frozenset[str]) -> tuple[Command, ...]:
    """Reload systemd when a unit changed, then restart only the services whose own unit did."""
    commands = [_systemctl("daemon-reload")] if any(path.startswith(UNITS) for path in changed) else []
    restart = [unit(name) for name in _services(deployment) if f"{UNITS}/{unit(name)}" in changed]
    commands.append(_systemctl("enable", "--quiet", UMBRELLA))
    if restart:
        commands.append(_systemctl("reset-failed", *restart, ok=(0, 1)))
        commands.append(_systemctl("restart", "--no-block", *restart))
    if GATEWAY not in restart and any(path.startswith("nginx/nginx.conf") or path.endswith(".lua") for path in changed):
        commands.append(_systemctl("reload-or-restart", GATEWAY))
    commands.append(_systemctl("start", "--no-block", UMBRELLA))
    return tuple(commands)


def start(deployment: Deployment, model: str) -> tuple[Command, ...]:
    """Start and wait until it is healthy."""
    return (_systemctl("start", *_targets(deployment, model), timeout=_patience(deployment)),)


def stop(deployment: Deployment, model: str) -> tuple[Command, ...]:
    """Stop and wait until it is gone."""
    return (_systemctl("stop", *_targets(deployment, model), timeout=_patience(deployment)),)


def restart(deployment: Deployment, model: str) -> tuple[Command, ...]:
    """Restart and wait until it is healthy."""
    return (_systemctl("restart", *_targets(deployment, model), timeout=_patience(deployment)),)


def revive(deployment: Deployment, services: tuple[str, ...]) -> tuple[Command, ...]:
    """Forget the count of restarts, which makes a unit that starts look like one in a crash loop."""
    units = tuple(unit(name) for name in services)
    return (_systemctl("reset-failed", *units, ok=(0, 1)), _systemctl("restart", "--no-block", *units))


def retire(deployment: Deployment, services: tuple[str, ...]) -> tuple[Command, ...]:
    """Stop the units and forget that they failed; the umbrella goes with the last one."""
    everything = set(services) >= {*_services(deployment)}
    units = [unit(name) for name in services] + ([UMBRELLA] if everything else [])
    commands = [_systemctl("disable", "--quiet", UMBRELLA, ok=(0, 1))] if everything else []
    return (
        *commands,
        _systemctl("stop", *units, ok=(0, 5), timeout=120),
        _systemctl("reset-failed", *units, ok=(0, 1)),
    )


def files(service: str) -> tuple[str, ...]:
    """Return the path of its unit."""
    return (f"{UNITS}/{unit(service)}",)


def begin(deployment: Deployment, service: str) -> tuple[Command, ...]:
    """Take over its new unit, then start it."""
    return _systemctl("daemon-reload"), _systemctl("start", "--no-block", unit(service))


def settle(deployment: Deployment) -> tuple[Command, ...]:
    """Make systemd forget the units whose files are gone."""
    return (_systemctl("daemon-reload"),)


def status(deployment: Deployment) -> Command:
    """Ask for all units at once: one D-Bus round trip, one process."""
    units = [unit(name) for name in _services(deployment)]
    return Command(argv=("systemctl", "show", f"--property={PROPERTIES}", *units), timeout=10)


def read_status(deployment: Deployment, done: Completed) -> tuple[ServiceState, ...]:
    """Read the blocks of `key=value` lines, one for each unit; one that is missing is stopped."""
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in done.stdout.split("\n\n")
    ]
    by_unit = {block.get("Id"): block for block in blocks}
    return tuple(_state(name, by_unit.get(unit(name), {})) for name in _services(deployment))


def logs(deployment: Deployment, services: tuple[str, ...], *, follow: bool, lines: int, since: int = 0) -> Command:
    """Read the journal."""
    units = [unit(name) for name in services] or [UMBRELLA, *(unit(name) for name in _services(deployment))]
    chosen = [word for name in units for word in ("--unit", name)]
    return Command(
        argv=(
            "journalctl",
            "--no-pager",
            "--output=short-iso",
            f"--lines={lines or 'all'}",
            *((f"--since=@{since}",) if since else ()),
            *chosen,
            *(("-f",) if follow else ()),
        )
    )


def _state(name: str, block: dict[str, str]) -> ServiceState:
    active, sub = block.get("ActiveState", ""), block.get("SubState", "")
    restarts, detail = int(block.get("NRestarts") or 0), ""
    if sub == "auto-restart" or active == "failed":
        state, detail = "failed", f"{_end(block)}, restarted {restarts} times"
    elif active == "active":
        state = "running"
    elif active in {"activating", "reloading"}:
        state = "starting"
    else:
        state = "stopped"
    if state == "starting" and restarts:
        again = int(block.get("ActiveEnterTimestampMonotonic") or 0) and restarts < LOOP
        state, detail = ("starting", "") if again else ("failed", f"crash loop, restarted {restarts} times")
    return ServiceState(
        name=name,
        state=state,
        pid=int(block.get("MainPID") or 0),
        since=_seconds(block, "StateChange"),
        detail=detail,
        restarts=restarts,
        started_in=max(0.0, _seconds(block, "ActiveEnter") - _seconds(block, "ExecMainStart")),
        dropins=tuple(block.get("DropInPaths", "").split()),
    )


def _seconds(block: dict[str, str], what: str) -> float:
    """Return when that was, in seconds of the monotonic clock."""
    return float(block.get(f"{what}TimestampMonotonic") or 0) / 1e6


def _end(block: dict[str, str]) -> str:
    """Return how its main process ended."""
    result, status = block.get("Result", ""), int(block.get("ExecMainStatus") or 0)
    if result == "exit-code" and status:
        return f"exit status {status}"
    if result in {"signal", "core-dump"} and status:
        return f"killed by signal {status}"
    return {"oom-kill": "out of RAM: the kernel killed it", "timeout": "not ready in time"}.get(result, result)


def _services(deployment: Deployment) -> tuple[str, ...]:
    return ("gateway", *(service.name for service in deployment.started))


def _targets(deployment: Deployment, model: str) -> tuple[str, ...]:
    if not model:
        return (UMBRELLA,)
    return tuple(unit(service.name) for service in deployment.started if service.model == model)


def _patience(deployment: Deployment) -> float:
    return 30 + max([30, *(service.start_timeout for service in deployment.started)])


def _systemctl(*words: str, ok: tuple[int, ...] = (0,), timeout: float = 60) -> Command:
    return Command(argv=("systemctl", *words), ok_codes=ok, timeout=timeout)
