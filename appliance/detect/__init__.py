"""Looks at the machine and returns a Host; absence is an answer, never an error."""

import os
import shutil
import sys
from pathlib import Path

from appliance.detect import linux, nvidia, ports
from appliance.domain.host import Host
from appliance.system.machine import Machine

TOOLS = (
    "apt-get", "dpkg-deb", "c++", "cmake", "ninja", "docker", "nginx", "systemctl", "systemd-analyze",
    "nvidia-smi", "useradd", "journalctl",
)  # fmt: skip


def detect(machine: Machine, *, state: str) -> Host:
    """Ask every probe; `state` is the directory whose file system will hold weights and engines."""
    release = linux.parse_os_release(linux.text(machine, "/etc/os-release"))
    memory, available = linux.memory(machine)
    tools = tuple((name, path) for name in TOOLS if (path := machine.which(name)))
    gpus = nvidia.probe(machine) if "nvidia-smi" in dict(tools) else nvidia.Found()
    return Host(
        os=release.get("ID", ""),
        os_version=release.get("VERSION_ID", ""),
        arch=os.uname().machine,
        glibc=linux.glibc(),
        kernel=os.uname().release,
        init=linux.text(machine, "/proc/1/comm").strip(),
        systemd=linux.systemd_version(machine),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        root=os.geteuid() == 0,
        cpus=len(os.sched_getaffinity(0)),
        cpu_flags=linux.parse_cpu_flags(linux.text(machine, "/proc/cpuinfo")),
        memory=memory,
        memory_available=available,
        disk_free=shutil.disk_usage(_existing(state)).free,
        gpus=gpus.gpus,
        driver=gpus.driver,
        gpu_failure=gpus.failure,
        tools=tools,
        ports=ports.listening(machine),
    )


def _existing(path: str) -> Path:
    """Return the nearest parent that is there already."""
    candidate = Path(path)
    while not candidate.exists():
        candidate = candidate.parent
    return candidate
