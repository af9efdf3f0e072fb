"""Which processes belong to which service, and the memory that they hold: from /proc, whatever the runtime is."""

import os
from collections.abc import Iterable

from appliance.system.machine import Machine

PAGE = os.sysconf("SC_PAGE_SIZE")


def parents(machine: Machine) -> dict[int, int]:
    """Return each process's parent."""
    found = {}
    for name in machine.names("/proc"):
        if name.isdigit():
            # A program's name may hold spaces and brackets; what follows its last bracket is: state, parent.
            fields = (machine.read(f"/proc/{name}/stat", 512) or b"").rpartition(b")")[2].split()
            if len(fields) > 1:
                found[int(name)] = int(fields[1])
    return found


def owners(roots: Iterable[int], parents: dict[int, int]) -> dict[int, int]:
    """Return each process that one of the roots has started, directly or not -> that root."""
    found = {root: root for root in roots if root in parents}
    for pid in parents:
        way: list[int] = []
        at = pid
        while at and at not in found and at in parents and len(way) < 64:
            way.append(at)
            at = parents[at]
        if at in found:
            found.update(dict.fromkeys(way, found[at]))
    return found


def resident(machine: Machine, pids: Iterable[int]) -> int:
    """Return the bytes of RAM that processes hold, files that they map included."""
    fields = ((machine.read(f"/proc/{pid}/statm", 128) or b"").split() for pid in pids)
    return sum(int(one[1]) * PAGE for one in fields if len(one) > 1)
