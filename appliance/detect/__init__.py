"""Looks at the machine and returns a Host; absence is an answer, never an error."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from appliance.detect import cgroup, cuda, docker, gpu, linux, mounts, pci, ports, proxies
from appliance.detect.gpu import Found, Vendor
from appliance.detect.together import Question
from appliance.domain.host import Docker, Driver, Filesystem, Host, Port
from appliance.system.machine import Machine

TOOLS = (
    "apt-get", "dpkg-deb", "c++", "cmake", "ninja", "docker", "nginx", "systemctl", "systemd-analyze",
    "useradd", "journalctl", "ollama",
)  # fmt: skip
"""The vendors name theirs themselves."""

Filesystems = tuple[tuple[Filesystem, ...], tuple[str, ...]]


def detect(
    machine: Machine,
    *,
    state: str,
    vendors: Sequence[Vendor] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Host:
    """Ask every probe; `state` is the directory whose file system will hold weights and engines.

    All programs run at the same time. One that gives no answer is named in `Host.silent`, and the rest is told.
    """
    known = gpu.vendors() if vendors is None else vendors
    present = pci.accelerators(machine, {number: vendor.VENDOR for vendor in known for number in vendor.PCI})
    asked = _Asked(machine, state, known, present)
    host = _seen(machine, known)
    found = asked.found()
    filesystems, away = asked.filesystems.answer()
    return replace(
        host,
        systemd=asked.systemd.answer(),
        disk_free=asked.free.answer(),
        gpus=tuple(sorted((one for each in found for one in each.gpus), key=_order(known))),
        drivers=tuple(each.driver for each in found if each.driver),
        filesystems=filesystems,
        docker=asked.docker.answer(),
        pci=present,
        cuda_toolkit=asked.cuda.answer(),
        proxies=proxies.proxies(os.environ if environ is None else environ),
        ports=asked.ports.answer(),
        silent=tuple(dict.fromkeys((*asked.silent(), *(name for each in found for name in each.silent), *away))),
    )


def _seen(machine: Machine, known: Sequence[Vendor]) -> Host:
    """Return what needs no waiting: files of the kernel and the distribution, and which programs are there."""
    release = linux.os_release(machine)
    cpuinfo = (machine.read("/proc/cpuinfo", 1 << 16) or b"").decode(errors="replace")
    groups = cgroup.limits(machine)
    memory, available = _memory(machine, groups)
    tools = dict.fromkeys((*TOOLS, *(name for vendor in known for name in vendor.TOOLS)))
    modules = {name for vendor in known for name in vendor.MODULES}
    return Host(
        os=release.get("ID", ""),
        os_version=release.get("VERSION_ID", ""),
        arch=os.uname().machine,
        glibc=linux.glibc(),
        kernel=os.uname().release,
        init=linux.text(machine, "/proc/1/comm").strip(),
        systemd=0,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        root=os.geteuid() == 0,
        cpus=_cpus(groups),
        cpu_flags=linux.parse_cpu_flags(cpuinfo),
        memory=memory,
        memory_available=available,
        disk_free=0,
        cpu_name=linux.parse_cpu_name(cpuinfo),
        swap=linux.parse_swap(linux.text(machine, "/proc/meminfo")),
        cgroup=groups.version,
        container=linux.container(machine),
        machine_cpus=len(linux.parse_cpulist(linux.text(machine, "/sys/devices/system/cpu/present"))),
        machine_memory=linux.parse_meminfo(linux.text(machine, "/proc/meminfo"))[0],
        numa=linux.numa(machine),
        security=linux.security(machine),
        groups=linux.parse_groups(linux.text(machine, "/etc/group"), ("render", "video")),
        modules=tuple(sorted(modules & set(linux.parse_modules(linux.text(machine, "/proc/modules"))))),
        tools=tuple((name, path) for name in tools if (path := machine.which(name))),
    )


class _Asked:
    """Everything that may take its time, asked at once."""

    def __init__(self, machine: Machine, state: str, known: Sequence[Vendor], present: tuple[str, ...]) -> None:
        self.vendors = [_question(machine, vendor, vendor.VENDOR in present) for vendor in known]
        self.docker: Question[Docker] = Question(machine, docker.probe, Docker(failure="no answer in time"), "docker")
        self.systemd: Question[int] = Question(machine, linux.systemd_version, 0, "systemctl")
        self.cuda: Question[str] = Question(machine, cuda.toolkit, "", "nvcc")
        self.ports: Question[tuple[Port, ...]] = Question(machine, ports.listening, (), "/proc/net/tcp")
        self.filesystems: Question[Filesystems] = Question(machine, mounts.filesystems, ((), ()), "statvfs")
        self.free: Question[int] = Question(machine, lambda _: mounts.free(state), 0, state)

    def found(self) -> tuple[Found, ...]:
        """Return what each vendor's probe found, in the vendors' order."""
        return tuple(vendor.answer() for vendor in self.vendors)

    def silent(self) -> tuple[str, ...]:
        """Return the programs that gave no answer."""
        every: tuple[Question[Any], ...] = (
            *self.vendors, self.docker, self.systemd, self.cuda, self.ports, self.filesystems, self.free,
        )  # fmt: skip
        return tuple(name for question in every for name in question.silent)


def _question(machine: Machine, vendor: Vendor, present: bool) -> Question[Found]:
    """Ask a vendor's probe. Hardware whose tools never answer is broken, not absent."""
    failure = Driver(vendor=vendor.VENDOR, failure="its tools gave no answer in time", remedy="look at `dmesg`; reboot")
    otherwise = Found(driver=failure if present else None)
    return Question(machine, lambda watched: vendor.probe(watched, present), otherwise, vendor.VENDOR)


def _order(known: Sequence[Vendor]) -> Any:
    rank = {vendor.VENDOR: number for number, vendor in enumerate(known)}
    return lambda one: (rank.get(one.vendor, len(rank)), one.index)


def _cpus(groups: cgroup.Limits) -> int:
    """Return how many processors this process may keep busy."""
    allowed = len(os.sched_getaffinity(0))
    return allowed if groups.cpus is None else max(1, min(allowed, math.ceil(groups.cpus)))


def _memory(machine: Machine, groups: cgroup.Limits) -> tuple[int, int]:
    """Return (total, available) bytes, cut to what the control groups leave."""
    total, available = linux.parse_meminfo(linux.text(machine, "/proc/meminfo"))
    if groups.memory is not None:
        total = min(total, groups.memory)
    if groups.available is not None:
        available = min(available, groups.available)
    return total, min(total, available)
