"""Docker Compose: one compose.yaml with the gateway and each replica in containers, started at boot by one unit."""

import hashlib
import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from appliance.catalog import providers
from appliance.domain.changes import Command, Completed, Page, ServiceState, Unit
from appliance.domain.deployment import Deployment
from appliance.domain.host import Host
from appliance.domain.layout import Layout
from appliance.domain.service import Container, Service
from appliance.domain.version import version

NAME: Final = "compose"
PREFERENCE: Final = 15
FILE: Final = "compose.yaml"
UMBRELLA: Final = "llm-appliance.service"
UNIT: Final = f"/etc/systemd/system/{UMBRELLA}"
GATEWAY: Final = "gateway"
RELAY: Final = "{}_relay"
"""Name of what passes on to an engine's port what comes to its socket; no model's name has a `_`."""
OLDEST: Final = "2.20"
"""The first Compose that was looked at; Debian 13 has 2.26."""
OLDEST_PODMAN: Final = "4.3"
"""The first Podman that was looked at, Debian 12's."""
GATEWAY_MEMORY: Final = 2 << 30
"""Bytes."""
START: Final = 'umask 007; rm -f "$1"; shift; exec "$@"'
"""An engine that was killed leaves its socket behind, and some do not start over an old one."""
PROBE: Final = 'command -v curl >/dev/null || exit 0; exec curl -fsS -m 4 -o /dev/null "$@"'
"""Not every image has curl; whether the engine answers, the gateway knows anyway."""
STATES: Final = {
    "running": "running", "created": "starting", "restarting": "failed", "removing": "stopped", "paused": "stopped",
    "exited": "stopped", "dead": "failed",
    # Podman's own.
    "configured": "starting", "initialized": "starting", "stopping": "stopped", "stopped": "stopped",
}  # fmt: skip
LOOP: Final = 10
"""Seconds that a container must have run for Docker to begin counting its restarts anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One engine's part of the file."""

    service: Service
    home: str
    container: Container
    entrypoint: tuple[str, ...]
    probe: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    network: str
    socket_source: str
    """Directory of the socket on this machine; "" = a relay has it."""
    socket_target: str
    relay: tuple[str, ...] = ()
    relay_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """What leads to a provider behind a proxy."""

    name: str
    words: tuple[str, ...]


def refuse(host: Host, prefix: str) -> str | None:
    """Refuse where neither Docker's daemon nor Podman's service answers root, or Compose is missing."""
    docker = host.docker
    if not docker.server:
        return docker.failure or ("no Docker daemon answers" if docker.client else "Docker is not installed")
    if docker.podman and version(docker.server) < version(OLDEST_PODMAN):
        return f"Podman {docker.server} is too old, {OLDEST_PODMAN} is needed"
    if docker.podman and not docker.podman.compose:
        return "Podman needs docker-compose, a program of its own, of version 2"
    if not docker.compose:
        return "Docker's Compose plugin is not installed"
    if version(docker.compose) < version(OLDEST):
        return f"Compose {docker.compose} is too old, {OLDEST} is needed"
    if docker.snap:
        return "Docker from snap sees no files of the system"
    if docker.rootless:
        return "Docker runs rootless: its containers cannot be given files of numbered users"
    return None if host.root else "needs root"


def pages(deployment: Deployment, units: tuple[Unit, ...]) -> tuple[Page, ...]:
    """Return the Compose file, and the unit that starts it where systemd is there."""
    layout, gateway = deployment.layout, deployment.gateway
    names: dict[str, object] = {
        "project": project(layout),
        "gateway_image": gateway.image,
        "nginx": ("/bin/sh", "-c", START, "start", layout.inside, *_nginx(deployment, layout.current)),
        "host": gateway.host,
        "port": str(gateway.port),
        "inside": gateway.inside,
        "layout": layout,
        "user": f"{deployment.user}:{deployment.group}",
        "gateway_user": f"{deployment.gateway_user}:{deployment.group}",
        "gateway_memory": GATEWAY_MEMORY,
        "gateway_probe": _probe("--unix-socket", layout.inside, "http://gateway/health"),
        "keys": _outside(deployment),
        "entries": tuple(_entry(unit, layout) for unit in units if unit.service.container),
        "tunnels": tuple(_tunnel(unit.service) for unit in units if unit.service.remote),
    }
    # It holds the engines' environment: for root only, who alone asks Compose for anything.
    page = Page(path=FILE, template="compose/compose.yaml.j2", names=names, mode=0o600)
    if not deployment.runtime_version:
        return (page,)
    unit = Page(
        path=UNIT,
        template="systemd/compose.service.j2",
        names={"compose": _compose(deployment), "python": deployment.python, "podman": deployment.podman},
    )
    return page, unit


def check(deployment: Deployment, generation: str) -> tuple[Command, ...]:
    """Let Compose read its file, systemd its unit, and the image's own nginx the gateway's configuration."""
    layout = deployment.layout
    # What it reads besides: certificates, and keys of providers.
    read = (
        word for home in (layout.state, layout.etc, *_outside(deployment)) for word in ("--volume", f"{home}:{home}:ro")
    )
    nginx = (
        _program(deployment), "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", "--user", f"{deployment.gateway_user}:{deployment.group}",
        "--tmpfs", f"{layout.run}/gateway:mode=1777", *read,
        "--entrypoint", "nginx", deployment.gateway.image, *_nginx(deployment, generation)[1:-2], "-t",
    )  # fmt: skip
    strict = ("--recursive-errors=no",) if deployment.runtime_version >= 250 else ()
    unit = Command(argv=("systemd-analyze", "verify", *strict, f"{generation}/root{UNIT}"), timeout=60)
    return (
        Command(argv=(*_compose(deployment, generation), "config", "--quiet"), timeout=60),
        Command(argv=nginx, timeout=60),
        *((unit,) if deployment.runtime_version else ()),
    )


def activate(deployment: Deployment, changed: frozenset[str]) -> tuple[Command, ...]:
    """Let nginx reread what differs, then let Compose make anew what differs in its file, and nothing else."""
    commands = [_systemctl("daemon-reload")] if UNIT in changed else []
    if any(path.startswith("nginx/nginx.conf") or path.endswith(".lua") for path in changed):
        # Before the rest, for a container that has just begun would die of it.
        commands.append(_run(deployment, "kill", "--signal", "HUP", GATEWAY, ok=(0, 1)))
    commands.append(_run(deployment, "up", "--detach", "--remove-orphans", timeout=300))
    if deployment.runtime_version:
        commands += [_systemctl("enable", "--quiet", UMBRELLA), _systemctl("start", "--no-block", UMBRELLA)]
    return tuple(commands)


def start(deployment: Deployment, model: str) -> tuple[Command, ...]:
    """Start and wait until it is healthy."""
    up = _run(deployment, "up", "--detach", "--wait", *_targets(deployment, model), timeout=_patience(deployment))
    return (up,) if model or not deployment.runtime_version else (_umbrella("start", deployment), up)


def stop(deployment: Deployment, model: str) -> tuple[Command, ...]:
    """Stop and wait until it is gone."""
    if not model and deployment.runtime_version:
        return (_umbrella("stop", deployment),)
    return (_run(deployment, "stop", *_targets(deployment, model), timeout=120),)


def restart(deployment: Deployment, model: str) -> tuple[Command, ...]:
    """Restart and wait until it is healthy."""
    return (_run(deployment, "restart", *_targets(deployment, model), timeout=120), *start(deployment, model))


def revive(deployment: Deployment, services: tuple[str, ...]) -> tuple[Command, ...]:
    """Nothing: whatever does not run is started by `activate`."""
    return ()


def retire(deployment: Deployment, services: tuple[str, ...]) -> tuple[Command, ...]:
    """Remove containers that are no longer wanted; with the last one goes everything that Compose made."""
    if not set(services) >= {GATEWAY, *(service.name for service in deployment.started)}:
        relays = [RELAY.format(one.name) for one in deployment.started if one.name in services and one.port]
        names = [name for name in services if name in {one.name for one in deployment.started}]
        return (_run(deployment, "rm", "--stop", "--force", *names, *relays, timeout=120),) if names else ()
    down = _run(deployment, "down", "--remove-orphans", "--volumes", "--timeout", "15", timeout=180)
    if not deployment.runtime_version:
        return (down,)
    return _systemctl("disable", "--quiet", UMBRELLA, ok=(0, 1)), _systemctl("stop", UMBRELLA, ok=(0, 5)), down


def files(service: str) -> tuple[str, ...]:
    """All containers stand in one file."""
    return ()


def begin(deployment: Deployment, service: str) -> tuple[Command, ...]:
    """Make its container anew, and its relay's."""
    relays = [RELAY.format(one.name) for one in deployment.started if one.name == service and one.port]
    return (_run(deployment, "up", "--detach", "--no-deps", service, *relays, timeout=300),)


def settle(deployment: Deployment) -> tuple[Command, ...]:
    """Make systemd forget the unit whose file is gone."""
    return (_systemctl("daemon-reload"),) if deployment.runtime_version else ()


def status(deployment: Deployment) -> Command:
    """Ask for all containers at once; those that are missing are left out of the answer."""
    names = [f"{project(deployment.layout)}-{name}-1" for name in _services(deployment)]
    return Command(argv=(_program(deployment), "container", "inspect", *names), timeout=10)


def read_status(deployment: Deployment, done: Completed) -> tuple[ServiceState, ...]:
    """Read the list of containers; no list means that no daemon answers."""
    try:
        rows: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError:
        why = (done.stderr.strip().splitlines() or ["no answer that can be read"])[-1]
        return tuple(ServiceState(name=name, state="stopped", detail=why) for name in _services(deployment))
    by_name = {str(row["Name"]).removeprefix("/"): row["State"] | {"Restarts": row["RestartCount"]} for row in rows}
    home = project(deployment.layout)
    return tuple(_state(name, by_name.get(f"{home}-{name}-1", {})) for name in _services(deployment))


def logs(deployment: Deployment, services: tuple[str, ...], *, follow: bool, lines: int, since: int = 0) -> Command:
    """Read what Docker keeps and rotates; several services, and what comes, by a program of ours."""
    home = project(deployment.layout)
    if len(services) == 1 and not follow:
        words = (f"--tail={lines or 'all'}", *((f"--since={since}",) if since else ()))
        return Command(argv=(_program(deployment), "logs", *words, f"{home}-{services[0]}-1"))
    podman = ("--podman", deployment.podman.socket) if deployment.podman else ()
    return Command(
        argv=(
            deployment.python, "-m", "appliance.system.tail", "--project", home, *podman,
            "--lines", str(lines), "--since", str(since), *(("--follow",) if follow else ()),
            *(services or _services(deployment)),
        )
    )  # fmt: skip


def project(layout: Layout) -> str:
    """Return Compose's name for all that belongs together: another one for each prefix."""
    own = f"-{hashlib.sha256(layout.prefix.encode()).hexdigest()[:8]}"
    return f"llm-appliance{own if layout.prefix != '/' else ''}"


def _entry(unit: Unit, layout: Layout) -> Entry:
    service = unit.service
    assert service.container
    home = service.home or f"{layout.cache}/{service.name}"
    # Nobody has that number as a name, and PyTorch asks for one.
    names = (("HOME", home), ("USER", "llm-engine"), ("LOGNAME", "llm-engine"))
    relay = RELAY.format(service.name) if service.port else ""
    where = ("--unix-socket", service.socket, f"http://engine{unit.health}")
    return Entry(
        service=service,
        home=home,
        container=service.container,
        entrypoint=unit.launch.argv if relay else ("/bin/sh", "-c", START, "start", service.socket, *unit.launch.argv),
        probe=_probe(f"http://127.0.0.1:{service.port}{unit.health}") if relay else _probe(*where),
        env=(*names, *unit.launch.env, *service.container.env),
        network=f"service:{relay}" if relay else "none",
        socket_source="" if relay else f"{layout.sockets}/{service.name}",
        socket_target=f"{layout.run}/{service.name}",
        relay_name=relay,
        relay=(
            "socat", f"UNIX-LISTEN:{service.socket},fork,unlink-early,mode=660,backlog=512",
            f"TCP4:127.0.0.1:{service.port}",
        ) if relay else (),
    )  # fmt: skip


def _tunnel(service: Service) -> Tunnel:
    """Lead to a provider through a proxy; what goes through is encrypted, and no key is known there."""
    assert service.remote
    proxy, _, port = service.remote.proxy.rpartition(":")
    listen = f"UNIX-LISTEN:{service.socket},fork,unlink-early,mode=660,backlog=512"
    return Tunnel(
        name=service.name, words=("socat", listen, f"PROXY:{proxy}:{providers.host(service.remote)},proxyport={port}")
    )


def _outside(deployment: Deployment) -> tuple[str, ...]:
    """Return the directories of keys and certificates outside of `etc`: of a mounted file no new one is seen."""
    tls = deployment.gateway.tls
    files = [one.remote.key_file for one in deployment.services if one.remote]
    files += [tls.certificate, tls.key] if tls else []
    homes = dict.fromkeys(file.rpartition("/")[0] for file in files if file)
    return tuple(home for home in homes if not f"{home}/".startswith(f"{deployment.layout.etc}/"))


def _probe(*words: str) -> tuple[str, ...]:
    return ("CMD", "/bin/sh", "-c", PROBE, "probe", *words)


def _nginx(deployment: Deployment, home: str) -> tuple[str, ...]:
    return ("nginx", "-e", "stderr", "-p", f"{home}/nginx/", "-c", "nginx.conf", "-g", "daemon off;")


def _state(name: str, state: dict[str, Any]) -> ServiceState:
    found = STATES.get(str(state.get("Status", "exited")), "failed")
    since = _ago(str(state.get("StartedAt") if found == "running" else state.get("FinishedAt")))
    restarts, code, detail = int(state.get("Restarts") or 0), int(state.get("ExitCode") or 0), ""
    if found == "running" and restarts > 2 and since > -LOOP:
        found, detail = "failed", f"crash loop, restarted {restarts} times"
    elif found == "failed" or (found == "stopped" and state.get("OOMKilled")):
        memory = "out of memory, " if state.get("OOMKilled") else ""
        detail = f"{memory}exit code {code}, restarted {restarts} times {state.get('Error') or ''}".strip()
    return ServiceState(
        name=name, state=found, pid=int(state.get("Pid") or 0), since=since, detail=detail, restarts=restarts
    )


def _ago(stamp: str) -> float:
    """Return how long ago that was as a negative number, 0 where nothing is known."""
    try:
        return min(-0.001, datetime.fromisoformat(stamp).timestamp() - time.time())
    except ValueError:
        return 0


def _services(deployment: Deployment) -> tuple[str, ...]:
    return (GATEWAY, *(service.name for service in deployment.started))


def _targets(deployment: Deployment, model: str) -> tuple[str, ...]:
    return tuple(service.name for service in deployment.started if service.model == model)


def _patience(deployment: Deployment) -> float:
    return 30 + max([30, *(service.start_timeout for service in deployment.started)])


def _program(deployment: Deployment) -> str:
    return "podman" if deployment.podman else "docker"


def _compose(deployment: Deployment, home: str = "") -> tuple[str, ...]:
    """Return the beginning of a command of Compose; Podman's own client has none of that."""
    layout, podman = deployment.layout, deployment.podman
    program = (podman.compose, "--host", f"unix://{podman.socket}") if podman else ("docker", "compose")
    file = f"--file={home or layout.current}/{FILE}"
    return (*program, "--ansi=never", f"--project-name={project(layout)}", file)


def _run(deployment: Deployment, *words: str, ok: tuple[int, ...] = (0,), timeout: float = 60) -> Command:
    return Command(argv=(*_compose(deployment), *words), ok_codes=ok, timeout=timeout)


def _umbrella(verb: str, deployment: Deployment) -> Command:
    return _systemctl(verb, UMBRELLA, timeout=_patience(deployment))


def _systemctl(*words: str, ok: tuple[int, ...] = (0,), timeout: float = 60) -> Command:
    return Command(argv=("systemctl", *words), ok_codes=ok, timeout=timeout)
