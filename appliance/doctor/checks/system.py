"""The operating system: C library, Python, kernel, systemd, memory, clock."""

from collections.abc import Iterator
from typing import Final

from appliance.doctor.check import error, info, looks_for, size, warning
from appliance.doctor.facts import Facts, under_systemd
from appliance.doctor.remedy import as_root, packages
from appliance.domain.finding import Finding
from appliance.domain.host import Host
from appliance.domain.version import version
from appliance.gateway import TRIPLETS
from appliance.runtimes.systemd import OLDEST as SYSTEMD

GLIBC: Final = "2.28"
"""Oldest that current wheels of torch and vLLM load with: manylinux_2_28."""
PYTHON: Final = "3.11"
KERNEL: Final = "4.15"
"""Oldest that vLLM's documentation names for CUDA 13."""
GIB: Final = 1 << 30
LITTLE: Final = 0.5
"""Part of the machine: who is given less may not know of it."""
DAY: Final = 86400
LUA: Final = {"ubuntu": "24.04"}
"""Distribution -> its first release whose nginx has Lua again."""


@looks_for("libc-old", "the C library is too old for engine builds, or is not glibc")
def libc(host: Host, facts: Facts) -> Iterator[Finding]:
    """Only engines that come as wheels need it so new; those that are compiled here take what there is."""
    floors = [item.glibc for item in facts.releases if version(item.glibc)]
    lowest = max(min(floors, key=version), GLIBC, key=version) if floors else GLIBC
    move = "install on a newer distribution: Debian 12, Ubuntu 24.04, RHEL 9 or later"
    if not host.glibc:
        message = "the C library is not glibc (musl?): neither engines nor gateway packages run on it"
        yield error(host.os or "system", message, move, prevents=True)
    elif version(host.glibc) < version(lowest):
        message = f"glibc {host.glibc} is older than {lowest}, which engine wheels are built for"
        yield error(host.os or "system", message, move, prevents=bool(facts.wants_gpu))


@looks_for("python-old", "Python is older than the appliance and its engines need")
def python(host: Host, facts: Facts) -> Iterator[Finding]:
    """Engine environments are made with the interpreter that runs us."""
    if version(host.python) < version(PYTHON):
        remedy = packages(
            host, f"Python {PYTHON} or newer", apt="python3 python3-venv", dnf="python3.12", zypper="python312",
            pacman="python",
        )  # fmt: skip
        yield error("python", f"Python {host.python} is older than {PYTHON}", *remedy, prevents=True)


@looks_for("kernel-old", "the kernel is too old for GPU engines")
def kernel(host: Host, facts: Facts) -> Iterator[Finding]:
    """CPU engines would still run."""
    found = version(host.kernel)
    if found and found < version(KERNEL):
        yield warning("kernel", f"kernel {host.kernel} is older than {KERNEL}", "upgrade the distribution")


@looks_for("architecture", "there are no packages for this processor")
def architecture(host: Host, facts: Facts) -> Iterator[Finding]:
    """The gateway decides: every engine needs it."""
    if host.arch not in TRIPLETS:
        message = f"{host.arch}: packages are known for {', '.join(sorted(TRIPLETS))} only"
        yield error("processor", message, "use another machine", prevents=True)


@looks_for("systemd-old", "systemd is too old for the units that are written")
def systemd(host: Host, facts: Facts) -> Iterator[Finding]:
    """Its `systemd-analyze verify` must be able to refuse what it does not know; supervisord is taken instead."""
    if 0 < host.systemd < SYSTEMD:
        message = f"systemd {host.systemd} is older than {SYSTEMD}"
        if facts.spec.runtime == "systemd":
            yield error("systemd", message, "llm-appliance install --runtime supervisord", prevents=True)
        else:
            yield warning("systemd", f"{message}: supervisord runs the services instead", "upgrade the distribution")


@looks_for("memory-low", "little memory is available")
def memory(host: Host, facts: Facts) -> Iterator[Finding]:
    """Once installed, it may be our own models that have it."""
    if host.memory_available >= GIB:
        return
    message = f"{size(host.memory_available)} of {size(host.memory)} are available, {size(GIB)} is little already"
    remedy = "ps -eo pid,rss,comm --sort=-rss | head"
    yield warning("memory", message, remedy) if facts.record else error("memory", message, remedy)


@looks_for("swap-none", "there is no swap")
def swap(host: Host, facts: Facts) -> Iterator[Finding]:
    """A model that grows past the memory is then killed at once."""
    if not host.swap and not host.container:
        message = "no swap: a program that asks for more memory than there is, is killed at once"
        make = ("fallocate -l 4G /swapfile", "chmod 600 /swapfile", "mkswap /swapfile", "swapon /swapfile")
        yield info("memory", message, *(as_root(host, command) for command in make))


@looks_for("cgroup-limit", "a cgroup allows much less than the machine has")
def cgroup(host: Host, facts: Facts) -> Iterator[Finding]:
    """Plans are made for what is allowed; the operator may have meant otherwise."""
    if facts.memory and host.memory < LITTLE * facts.memory:
        message = f"{size(host.memory)} of {size(facts.memory)} memory are allowed here"
        yield info("cgroup", message, "raise the limit of the container or unit that runs this: --memory, MemoryMax=")
    if facts.cpus and host.cpus < LITTLE * facts.cpus:
        message = f"{host.cpus} of {facts.cpus} processors are allowed here"
        yield info("cgroup", message, "raise the limit of the container or unit that runs this: --cpus, CPUQuota=")


@looks_for("selinux", "SELinux is enforcing and does not know our programs")
def selinux(host: Host, facts: Facts) -> Iterator[Finding]:
    """Below /var/lib nothing is labelled as a program, and systemd starts only what is."""
    if host.security != "selinux enforcing" or not under_systemd(host, facts):
        return
    state = facts.layout.state
    yield warning(
        "selinux",
        f"enforcing: systemd may be kept from starting programs below {state} (203/EXEC)",
        *packages(host, "semanage", apt="policycoreutils-python-utils", dnf="policycoreutils-python-utils",
                  zypper="policycoreutils-python-utils"),
        as_root(host, f"semanage fcontext -a -t bin_t '{state}/(engines|gateway)/.*/s?bin(/.*)?'"),
        as_root(host, f"restorecon -R {state}"),
    )  # fmt: skip


@looks_for("clock-behind", "the clock is behind: certificates are not valid yet")
def clock(host: Host, facts: Facts) -> Iterator[Finding]:
    """Nothing can have been written in the future; a day is left for time zones."""
    behind = facts.newest - facts.now
    if behind > DAY:
        message = f"the clock is {behind / DAY:.0f} days behind files that are here: TLS will refuse certificates"
        yield error("clock", message, as_root(host, "timedatectl set-ntp true"), "or: date -s 'YYYY-MM-DD HH:MM'")


@looks_for("probe-silent", "a program gave no answer, so that something may be missing here")
def probes(host: Host, facts: Facts) -> Iterator[Finding]:
    """What it would have told is not known, which is not the same as not there."""
    for program in host.silent:
        message = f"{program} gave no answer in time: what it tells is missing here"
        yield warning(program, message, f"time {program}")


@looks_for("packages-missing", "the distribution's packages that the gateway comes from cannot be had")
def gateway_packages(host: Host, facts: Facts) -> Iterator[Finding]:
    """Once it is unpacked they are not needed any more."""
    absent = [name for name in ("apt-get", "dpkg-deb") if name not in dict(host.tools)]
    if absent and not facts.record:
        message = f"{' and '.join(absent)} are not here: nginx is taken from Debian's or Ubuntu's packages"
        yield error(host.os or "system", message, "install on Debian 12, Ubuntu 24.04 or newer", prevents=True)
    oldest = LUA.get(host.os, "")
    if oldest and version(host.os_version) < version(oldest) and not facts.record and facts.spec.runtime != "compose":
        message = f"{host.os} {host.os_version} packages no Lua for nginx, which the gateway needs"
        remedy = ("llm-appliance install --runtime compose", f"or: install on {host.os} {oldest} or newer")
        # Where Docker is, containers may be chosen without a word.
        yield error(f"{host.os} {host.os_version}", message, *remedy, prevents=not host.docker.server)
