"""Docker, or Podman in its place: client, daemon, Compose, and whether it can hand GPUs to containers."""

import json
import posixpath
import re
from dataclasses import dataclass, replace
from typing import Any, Final

from appliance.domain.changes import Command, Completed
from appliance.domain.host import Docker, Podman
from appliance.system.machine import Machine

VERSION: Final = ("version", "--format", "{{json .}}")
INFO: Final = ("info", "--format", "{{json .}}")
COMPOSE: Final = ("compose", "version", "--short")
SOCKET: Final = "/run/podman/podman.sock"
"""Where systemd starts Podman's service once somebody connects, if podman.socket is enabled."""
PODMAN: Final = ("--url", f"unix://{SOCKET}", *VERSION)
PLUGINS: Final = tuple(
    f"{home}/docker/cli-plugins/docker-compose" for home in ("/usr/libexec", "/usr/lib", "/usr/local/lib")
)
"""Compose, which is a program of its own too, where Docker's client looks for it."""
SNAP: Final = ("/snap/bin", "/var/lib/snapd/snap/bin")
"""Not on the fixed path that programs are looked for on."""
CDI: Final = ("/etc/cdi", "/var/run/cdi")
"""Where specs lie that tell a container runtime what a device needs (the CDI specification)."""
LINE: Final = 200
"""Characters of a failure that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What `docker version` says."""

    client: str = ""
    server: str = ""
    podman: bool = False
    """The program, or the daemon that answers it, is Podman's stand-in, which behaves otherwise."""
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What `docker info` says."""

    runtimes: tuple[str, ...] = ()
    rootless: bool = False
    snap: bool = False
    kinds: tuple[str, ...] = ()
    """Kinds of the CDI devices that the daemon found."""
    directories: tuple[str, ...] = ()
    """Where it looks for CDI specs."""
    failure: str = ""


def parse_version(done: Completed) -> Versions:
    """Read `docker version --format '{{json .}}'`; without a daemon it ends with 1 and tells of the client only."""
    data = _object(done.stdout)
    client, server = _inside(data, "Client"), _inside(data, "Server")
    engines = [part for part in _list(server.get("Components")) if isinstance(part, dict)]
    podman = (
        "podman" in done.stderr.lower()
        or ("APIVersion" in client and "ApiVersion" not in client)
        or any("podman" in _text(part.get("Name")).lower() for part in engines)
    )
    version = _text(server.get("Version"))
    return Versions(
        client=_text(client.get("Version")),
        server="" if podman else version,
        podman=podman,
        failure="" if version else _line(done),
    )


def parse_info(done: Completed) -> Info:
    """Read `docker info --format '{{json .}}'`."""
    data = _object(done.stdout)
    devices = (_text(one.get("ID")) for one in _list(data.get("DiscoveredDevices")) if isinstance(one, dict))
    errors = [_text(one) for one in _list(data.get("ServerErrors"))]
    return Info(
        runtimes=tuple(sorted(_inside(data, "Runtimes"))),
        rootless=any("name=rootless" in _text(one) for one in _list(data.get("SecurityOptions"))),
        snap=_text(data.get("DockerRootDir")).startswith("/var/snap/"),
        kinds=tuple(sorted({name.partition("=")[0] for name in devices if name})),
        directories=tuple(path for one in _list(data.get("CDISpecDirs")) if (path := _text(one)).startswith("/")),
        failure=_short(errors[0]) if errors else "",
    )


def parse_compose(content: str) -> str:
    """Return the plugin's version from `docker compose version --short`; version 1 was another program."""
    found = re.fullmatch(r"v?(([0-9]{1,4})\.[0-9][0-9A-Za-z.+~-]{0,60})", content.strip())
    return found[1] if found and int(found[2]) >= 2 else ""


def parse_toolkit(content: str) -> str:
    """Return the version from `nvidia-ctk --version`."""
    found = re.search(r"\bversion:? v?([0-9]{1,4}\.[0-9][0-9A-Za-z.+~-]{0,60})", content)
    return found[1] if found else ""


def parse_cdi(content: str) -> str:
    """Return the kind from a CDI spec, YAML or JSON: `nvidia.com/gpu`."""
    found = re.search(
        r"""(?:^|[{,])\s*["']?kind["']?\s*:\s*["']?([\w.-]{1,100}/[\w.-]{1,100})""", content, re.MULTILINE
    )
    return found[1] if found else ""


def probe(machine: Machine) -> Docker:
    """Ask Docker's daemon, and where none answers, Podman's service."""
    found = _docker(machine)
    program = "" if found.server else machine.which("podman")
    return _podman(machine, program, found) if program else found


def _podman(machine: Machine, program: str, docker: Docker) -> Docker:
    """Ask Podman's service; what is known of Docker stays where that does not answer either."""
    done = machine.run(Command(argv=(program, *PODMAN), timeout=5))
    data = _object(done.stdout)
    server = _text(_inside(data, "Server").get("Version"))
    if not server:
        why = f"Podman's service does not answer (systemctl enable --now podman.socket): {_line(done)}"
        return docker if docker.client else replace(docker, failure=why)
    places = (machine.which("docker-compose"), *(path for path in PLUGINS if machine.which(path)))
    versions = {path: _compose(machine, path, "version", "--short") for path in places if path}
    compose = next((path for path, found in versions.items() if found), "")
    return Docker(
        client=_text(_inside(data, "Client").get("Version")),
        server=server,
        compose=versions.get(compose, ""),
        cdi=docker.cdi,
        toolkit=docker.toolkit,
        podman=Podman(socket=SOCKET, compose=compose),
    )


def _docker(machine: Machine) -> Docker:
    """Ask the client, and the daemon through it."""
    toolkit = _toolkit(machine)
    program = _program(machine)
    if not program:
        return Docker(cdi=_kinds(machine, CDI), toolkit=toolkit)
    # Before the daemon is asked: a client whose daemon does not answer is silent and not asked again.
    compose = _compose(machine, program, *COMPOSE)
    versions = parse_version(machine.run(Command(argv=(program, *VERSION), timeout=5)))
    if versions.podman:
        return Docker(cdi=_kinds(machine, CDI), toolkit=toolkit, failure="Podman answers in Docker's place")
    info = parse_info(machine.run(Command(argv=(program, *INFO), timeout=5))) if versions.server else Info()
    return Docker(
        client=versions.client,
        server=versions.server,
        compose=compose,
        rootless=info.rootless,
        snap=info.snap or program.startswith(("/snap/", "/var/lib/snapd/")),
        runtimes=info.runtimes,
        cdi=tuple(sorted({*info.kinds, *_kinds(machine, (*CDI, *info.directories))})),
        toolkit=toolkit,
        failure=versions.failure or info.failure,
    )


def _compose(machine: Machine, *argv: str) -> str:
    return parse_compose(machine.run(Command(argv=argv, timeout=5)).stdout)


def _program(machine: Machine) -> str:
    snaps = (posixpath.join(directory, "docker") for directory in SNAP if "docker" in machine.names(directory))
    return machine.which("docker") or next(snaps, "")


def _toolkit(machine: Machine) -> str:
    if not machine.which("nvidia-ctk"):
        return ""
    return parse_toolkit(machine.run(Command(argv=("nvidia-ctk", "--version"), timeout=5)).stdout)


def _kinds(machine: Machine, directories: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds of the specs in these directories."""
    paths = {
        posixpath.join(directory, name)
        for directory in directories
        for name in machine.names(directory)
        if name.endswith((".yaml", ".yml", ".json"))
    }
    # Specs name their kind before or after a long list of devices.
    kinds = {parse_cdi((machine.read(path, 8 << 20) or b"").decode(errors="replace")) for path in paths}
    return tuple(sorted(kinds - {""}))


def _line(done: Completed) -> str:
    """Say in one line why the daemon did not answer."""
    if done.code == 124:
        return "no answer in time"
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("WARNING", "DEPRECATED", "time="))]
    said = next(iter(telling or lines), "")
    return _short(said) if said and not said.startswith("{") else f"docker version ends with {done.code}"


def _short(line: str) -> str:
    said = re.sub(r"^(?:ERROR|Error|error)(?: response from daemon)?:\s*|^Got (?=permission denied)", "", line.strip())
    # `…/docker.sock: Get "http://%2Fvar…": dial unix …`: what follows the socket's name says it once more.
    return " ".join(said.partition(': Get "')[0].split())[:LINE]


def _object(content: str) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _inside(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
