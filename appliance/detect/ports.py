"""TCP ports in use and who holds them, from /proc."""

import os
import re
from collections.abc import Callable

from appliance.domain.host import Port
from appliance.system.machine import Machine

ROW = re.compile(r"^\s*[0-9]+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} 0A (?:\S+ +){5}([0-9]+)", re.MULTILINE)
"""A line of /proc/net/tcp: local port, state 0A (it listens), and the tenth column, the inode."""


def parse(content: str) -> tuple[tuple[int, str], ...]:
    """Return (port, inode) of each listening socket in /proc/net/tcp or tcp6; a port may have several."""
    return tuple((int(row[1], 16), row[2]) for row in ROW.finditer(content))


def link_target(link: str) -> str:
    """Return where a link leads, "" where we may not look."""
    try:
        return os.readlink(link)  # noqa: PTH115 - called for every descriptor of every process
    except (OSError, ValueError):
        return ""


def listening(machine: Machine, target: Callable[[str], str] = link_target) -> tuple[Port, ...]:
    """Return the ports that are taken, with those who hold them as far as we may look."""
    sockets = [
        socket
        for path in ("/proc/net/tcp", "/proc/net/tcp6")
        for socket in parse((machine.read(path, 8 << 20) or b"").decode(errors="replace"))
    ]
    held = _holders(machine, {inode for _, inode in sockets}, target)
    names: dict[int, dict[str, None]] = {}
    for port, inode in sockets:
        names.setdefault(port, {}).update({held[inode]: None} if inode in held else {})
    return tuple(Port(port=port, holder=", ".join(names[port])) for port in sorted(names))


def holder(machine: Machine, port: int) -> str:
    """Return `name (pid N)` of the process that listens on `port`, "" where we may not look."""
    return next((one.holder for one in listening(machine) if one.port == port), "")


def _holders(machine: Machine, inodes: set[str], target: Callable[[str], str]) -> dict[str, str]:
    """Return inode -> `name (pid N)`: the oldest process that has the socket open, which is a server's first."""
    found: dict[str, str] = {}
    for pid in sorted(int(name) for name in machine.names("/proc") if re.fullmatch(r"[0-9]{1,10}", name)):
        if len(found) == len(inodes):
            break
        opened = {target(f"/proc/{pid}/fd/{fd}") for fd in machine.names(f"/proc/{pid}/fd")}
        for inode in {name[8:-1] for name in opened if name.startswith("socket:[")} & inodes - found.keys():
            comm = (machine.read(f"/proc/{pid}/comm") or b"").decode(errors="replace").strip()
            found[inode] = f"{comm} (pid {pid})"
    return found
