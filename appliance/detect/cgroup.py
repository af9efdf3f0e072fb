"""What the control groups of this process leave to it: processors and memory, cgroup v1 and v2 (cgroups(7))."""

import posixpath
import re
from dataclasses import dataclass

from appliance.detect.mounts import Mount, mounted
from appliance.system.machine import Machine

CONTROLLERS = ("memory", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds for this process, the tightest of every group that it is in."""

    version: int = 0
    """1 where the controllers are v1's (the hybrid layout too), 2 where there is only v2, 0 = none is mounted."""
    cpus: float | None = None
    """Processors' worth of time; None = no quota."""
    memory: int | None = None
    """Bytes; None = no limit. v1 says a number near 2^63 for that."""
    available: int | None = None
    """Bytes that can still be had below the limits: caches that the kernel would drop count as free."""


def parse_membership(content: str) -> dict[str, str]:
    """Return controller -> path from /proc/self/cgroup; v2's one group under ""."""
    groups: dict[str, str] = {}
    for line in content.splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def parse_cpu_max(content: str) -> float | None:
    """Return processors from v2's cpu.max: `150000 100000` is 1.5, `max 100000` no limit."""
    return _quota(*content.split()[:2]) if len(content.split()) >= 2 else None


def parse_inactive(stat: str) -> int:
    """Return the bytes of memory.stat that the kernel drops first; v1's total counts the groups below too."""
    found = re.search(r"^(?:total_inactive_file) ([0-9]{1,20})$", stat, re.MULTILINE)
    found = found or re.search(r"^inactive_file ([0-9]{1,20})$", stat, re.MULTILINE)
    return int(found[1]) if found else 0


def limits(machine: Machine) -> Limits:
    """Return what the groups of this process allow."""
    mounts = mounted(machine)
    groups = parse_membership(_text(machine, "/proc/self/cgroup"))
    first = {name: _hierarchy(mounts, name) for name in CONTROLLERS}
    second = next((mount for mount in mounts if mount.kind == "cgroup2"), None)
    quotas = [_cpus(machine, path) for path in _levels(first["cpu"] or second, groups)]
    memory = [found for path in _levels(first["memory"] or second, groups) if (found := _memory(machine, path))]
    return Limits(
        version=1 if any(first.values()) else 2 if second else 0,
        cpus=min((quota for quota in quotas if quota is not None), default=None),
        memory=min((limit for limit, _ in memory), default=None),
        available=min((left for _, left in memory), default=None),
    )


def _hierarchy(mounts: tuple[Mount, ...], controller: str) -> Mount | None:
    return next((mount for mount in mounts if mount.kind == "cgroup" and controller in mount.options), None)


def _levels(mount: Mount | None, groups: dict[str, str]) -> tuple[str, ...]:
    """Return the directories of this process's group and all above it, as far as they are mounted.

    In a container /proc/self/cgroup may tell the path on the host, of which only the end is mounted here
    (the mount's root says from where), or `/`, or `/../..` for what lies outside of its namespace.
    """
    if mount is None:
        return ()
    names = mount.options if mount.kind == "cgroup" else ("",)
    path = next((groups[name] for name in names if name in groups), "/")
    root = mount.root.rstrip("/")
    inside = path == root or path.startswith(f"{root}/")
    below = path[len(root) :].strip("/") if inside and ".." not in path.split("/") else ""
    parts = [part for part in below.split("/") if part]
    return tuple(posixpath.join(mount.path, *parts[:count]) for count in range(len(parts), -1, -1))


def _cpus(machine: Machine, path: str) -> float | None:
    if content := _text(machine, f"{path}/cpu.max"):
        return parse_cpu_max(content)
    return _quota(_text(machine, f"{path}/cpu.cfs_quota_us"), _text(machine, f"{path}/cpu.cfs_period_us"))


def _quota(quota: str, period: str) -> float | None:
    """Divide microseconds; `max` and -1 say that there is no limit."""
    time, each = _number(quota), _number(period)
    return time / each if time and each else None


def _memory(machine: Machine, path: str) -> tuple[int, int] | None:
    """Return (limit, what is left of it), None where there is no limit."""
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit = _number(_text(machine, f"{path}/{limit_name}"))
        if limit is not None and limit < 1 << 60:
            used = _number(_text(machine, f"{path}/{used_name}")) or 0
            held = max(0, used - parse_inactive(_text(machine, f"{path}/memory.stat")))
            return limit, max(0, limit - held)
    return None


def _number(content: str) -> int | None:
    found = re.fullmatch(r"[0-9]{1,20}", content.strip())
    return int(found[0]) if found else None


def _text(machine: Machine, path: str) -> str:
    return (machine.read(path) or b"").decode(errors="replace")
