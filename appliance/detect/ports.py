"""TCP ports in use and who holds them, from /proc."""

import os

from appliance.domain.host import Port
from appliance.system.machine import Machine

LISTEN = "0A"
"""State column of /proc/net/tcp: a socket that listens."""


def parse(content: str) -> dict[int, str]:
    """Return port -> inode of each listening socket in /proc/net/tcp or tcp6."""
    rows = (line.split() for line in content.splitlines()[1:])
    return {int(row[1].rpartition(":")[2], 16): row[9] for row in rows if len(row) > 9 and row[3] == LISTEN}


def listening(machine: Machine) -> tuple[Port, ...]:
    """Return the ports that are taken; the holder stays empty where we may not look."""
    ports: dict[int, str] = {}
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        ports |= parse((machine.read(path, 8 << 20) or b"").decode(errors="replace"))
    return tuple(Port(port=port) for port in sorted(ports))


def holder(machine: Machine, port: int) -> str:
    """Return `name (pid N)` of the process that listens on `port`, "" where we may not look."""
    inodes: dict[int, str] = {}
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        inodes |= parse((machine.read(path, 8 << 20) or b"").decode(errors="replace"))
    wanted = f"socket:[{inodes.get(port)}]"
    for pid in (name for name in machine.names("/proc") if name.isdigit()):
        if any(_target(f"/proc/{pid}/fd/{fd}") == wanted for fd in machine.names(f"/proc/{pid}/fd")):
            name = (machine.read(f"/proc/{pid}/comm") or b"").decode(errors="replace").strip()
            return f"{name} (pid {pid})"
    return ""


def _target(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - called for every descriptor of every process
    except OSError:
        return ""
