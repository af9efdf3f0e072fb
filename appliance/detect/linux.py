"""Operating system, processor and memory, from files that the kernel and the distribution keep."""

import os
import re

from appliance.domain.changes import Command
from appliance.system.machine import Machine

CPU_FLAGS = frozenset({
    "ssse3", "sse4_2", "avx", "f16c", "fma", "bmi2", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl",
    "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimddp", "i8mm", "sve", "sve2", "asimdhp",
})  # fmt: skip
"""Instruction sets that change what a native build of an engine contains."""


def text(machine: Machine, path: str) -> str:
    """Return a file's text, "" when absent."""
    return (machine.read(path) or b"").decode(errors="replace")


def parse_os_release(content: str) -> dict[str, str]:
    """Return the keys of /etc/os-release, quotes taken off."""
    pairs = (line.split("=", 1) for line in content.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def parse_cpu_flags(cpuinfo: str) -> tuple[str, ...]:
    """Return the flags of the first processor in /proc/cpuinfo that matter to engines, sorted."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return tuple(sorted(CPU_FLAGS & set(found[1].split()))) if found else ()


def parse_meminfo(content: str) -> tuple[int, int]:
    """Return (total, available) bytes from /proc/meminfo, 0 where it does not say."""
    values = {m[1]: int(m[2]) * 1024 for m in re.finditer(r"^(\w+):\s+(\d+) kB$", content, re.MULTILINE)}
    total = values.get("MemTotal", 0)
    return total, values.get("MemAvailable", total)


def memory(machine: Machine) -> tuple[int, int]:
    """Return (total, available) bytes, cut to the cgroup's limit where one is set."""
    total, available = parse_meminfo(text(machine, "/proc/meminfo"))
    limits = [
        int(value)
        for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
        if (value := text(machine, path).strip()).isdigit()
    ]
    limit = min([total, *limits])
    return limit, min(available, limit)


def glibc() -> str:
    """Return the C library's version (`2.36`), "" on another library."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return ""
    return version if name == "glibc" else ""


def parse_systemctl_version(content: str) -> int:
    """Return 252 from `systemd 252 (252.38-1~deb12u1)`, 0 when it says something else."""
    found = re.match(r"systemd (\d+)", content)
    return int(found[1]) if found else 0


def systemd_version(machine: Machine) -> int:
    """Return systemd's version when it runs this machine, else 0."""
    if text(machine, "/proc/1/comm").strip() != "systemd" or "system" not in machine.names("/run/systemd"):
        return 0
    return parse_systemctl_version(machine.run(Command(argv=("systemctl", "--version"), timeout=5)).stdout)
