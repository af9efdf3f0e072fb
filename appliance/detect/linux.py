"""Operating system, processor, memory and what surrounds them, from files that the kernel and the distribution keep."""

import os
import re
from typing import Final

from appliance.domain.changes import Command
from appliance.domain.host import NumaNode
from appliance.system.machine import Machine

CPU_FLAGS = frozenset({
    "ssse3", "sse4_2", "avx", "f16c", "fma", "bmi2", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl",
    "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimddp", "i8mm", "sve", "sve2", "asimdhp",
})  # fmt: skip
"""Instruction sets that change what a native build of an engine contains."""
MOST_CPUS: Final = 1 << 16
"""No kernel is built for more; a list that names more is none."""


def text(machine: Machine, path: str) -> str:
    """Return a file's text, "" when absent."""
    return (machine.read(path) or b"").decode(errors="replace")


def parse_os_release(content: str) -> dict[str, str]:
    """Return the keys of /etc/os-release, quotes taken off."""
    pairs = (line.split("=", 1) for line in content.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def os_release(machine: Machine) -> dict[str, str]:
    """Return the keys of the file that names the distribution, from either of its places (os-release(5))."""
    return parse_os_release(text(machine, "/etc/os-release") or text(machine, "/usr/lib/os-release"))


def parse_cpu_flags(cpuinfo: str) -> tuple[str, ...]:
    """Return the flags of the first processor in /proc/cpuinfo that matter to engines, sorted."""
    found = re.search(r"^(?:flags|Features)[ \t]*:[ \t]*(.*)$", cpuinfo, re.MULTILINE)
    return tuple(sorted(CPU_FLAGS & set(found[1].split()))) if found else ()


def parse_cpu_name(cpuinfo: str) -> str:
    """Return the first processor's name, "" where the kernel tells numbers only (ARM)."""
    found = re.search(r"^model name[ \t]*:[ \t]*(.*)$", cpuinfo, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def parse_meminfo(content: str) -> tuple[int, int]:
    """Return (total, available) bytes from /proc/meminfo, 0 where it does not say."""
    values = _kilobytes(content)
    total = values.get("MemTotal", 0)
    return total, values.get("MemAvailable", total)


def parse_swap(meminfo: str) -> int:
    """Return the bytes of swap from /proc/meminfo."""
    return _kilobytes(meminfo).get("SwapTotal", 0)


def _kilobytes(meminfo: str) -> dict[str, int]:
    """Return the bytes of each line in kB; a node's own meminfo begins its lines with `Node 0`."""
    lines = re.finditer(r"^(?:Node [0-9]+ )?(\w+):[ \t]+([0-9]{1,15}) kB$", meminfo, re.MULTILINE)
    return {line[1]: int(line[2]) * 1024 for line in lines}


def parse_cpulist(content: str) -> tuple[int, ...]:
    """Return the processors that `0-3,8` names; () where it names none, or cannot be."""
    ranges = [re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part) for part in content.strip().split(",")]
    cpus = {cpu for found in ranges if found for cpu in range(int(found[1]), int(found[2] or found[1]) + 1)}
    return tuple(sorted(cpus)) if all(ranges) and len(cpus) <= MOST_CPUS else ()


def numa(machine: Machine) -> tuple[NumaNode, ...]:
    """Return the nodes; memory without processors (a GPU's, on GH200) is one too."""
    base = "/sys/devices/system/node"
    numbers = sorted(int(name[4:]) for name in machine.names(base) if re.fullmatch(r"node[0-9]{1,5}", name))
    return tuple(
        NumaNode(
            index=number,
            cpus=parse_cpulist(text(machine, f"{base}/node{number}/cpulist")),
            memory=parse_meminfo(text(machine, f"{base}/node{number}/meminfo"))[0],
        )
        for number in numbers
    )


def parse_modules(content: str) -> tuple[str, ...]:
    """Return the names in /proc/modules."""
    return tuple(line.split(" ", 1)[0] for line in content.splitlines() if line.strip())


def security(machine: Machine) -> str:
    """Return which mandatory access control is in force."""
    enforce = text(machine, "/sys/fs/selinux/enforce").strip()
    if enforce in ("0", "1"):
        return "selinux enforcing" if enforce == "1" else "selinux permissive"
    return "apparmor" if text(machine, "/sys/module/apparmor/parameters/enabled").strip() == "Y" else ""


def container(machine: Machine) -> str:
    """Return what kind of container this is, "" on a whole machine.

    What the container's maker tells PID 1 comes first (systemd's CONTAINER_INTERFACE), WSL last, whose kernel
    containers have too.
    """
    told = text(machine, "/run/systemd/container") or _variable(text(machine, "/proc/1/environ"), "container")
    if named := re.fullmatch(r"[a-z][a-z0-9.-]{0,30}", told.strip()):
        return named[0]
    # Every one of them mounts these files of its own, so that a marker left in a copied image is told from a true one.
    mounted = re.search(r" /etc/(?:hosts|hostname|resolv\.conf) ", text(machine, "/proc/self/mountinfo"))
    for kind, marker in (("podman", "/run/.containerenv"), ("docker", "/.dockerenv")):
        if mounted and machine.read(marker, 1) is not None:
            return kind
    groups = text(machine, "/proc/1/cgroup")
    if "kubepods" in groups or machine.names("/run/secrets/kubernetes.io"):
        return "kubernetes"
    for kind in ("docker", "lxc"):
        if re.search(rf":/(?:[^\n]*/)?{kind}(?:[/.-]|$)", groups, re.MULTILINE):
            return kind
    return "wsl" if "microsoft" in text(machine, "/proc/sys/kernel/osrelease").lower() else ""


def _variable(environ: str, name: str) -> str:
    words = (word.partition("=") for word in environ.split("\0"))
    return next((value for key, _, value in words if key == name), "")


def glibc() -> str:
    """Return the C library's version (`2.36`), "" on another library."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return ""
    return version if name == "glibc" else ""


def parse_systemctl_version(content: str) -> int:
    """Return 252 from `systemd 252 (252.38-1~deb12u1)`, 0 when it says something else."""
    found = re.match(r"systemd ([0-9]{1,9})", content)
    return int(found[1]) if found else 0


def systemd_version(machine: Machine) -> int:
    """Return systemd's version when it runs this machine, else 0."""
    if text(machine, "/proc/1/comm").strip() != "systemd" or "system" not in machine.names("/run/systemd"):
        return 0
    return parse_systemctl_version(machine.run(Command(argv=("systemctl", "--version"), timeout=5)).stdout)


def parse_groups(text: str, names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Return (name, number) of those groups that /etc/group has."""
    rows = [line.split(":") for line in text.splitlines()]
    there = {row[0]: int(row[2]) for row in rows if len(row) >= 3 and row[2].isdigit()}
    return tuple((name, there[name]) for name in names if name in there)
