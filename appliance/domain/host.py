"""What the machine is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator."""

    vendor: str
    index: int
    uuid: str
    name: str
    memory: int | None
    """Bytes; None where the driver reports none (unified memory)."""
    compute_capability: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A TCP port that somebody listens on."""

    port: int
    holder: str = ""
    """Process name and pid, as far as we may see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One machine, as far as a plan needs to know it."""

    os: str
    """`ID` of /etc/os-release: debian, ubuntu, …"""
    os_version: str
    arch: str
    glibc: str
    kernel: str
    init: str
    """Name of PID 1."""
    systemd: int
    """systemd's version where it is the init system, else 0."""
    python: str
    """`3.11`: the interpreter that runs the appliance, and that engine environments are made with."""
    root: bool
    cpus: int
    """Processors that this process may use."""
    cpu_flags: tuple[str, ...]
    memory: int
    """Bytes of RAM, or of the cgroup's limit when that is smaller."""
    memory_available: int
    disk_free: int
    """Bytes free where the state directory is, or would be."""
    gpus: tuple[Gpu, ...]
    driver: str = ""
    """NVIDIA driver version."""
    gpu_failure: str = ""
    """Why the GPU tool failed, when it is there and fails."""
    docker: str = ""
    tools: tuple[tuple[str, str], ...] = ()
    """(name, absolute path) of the programs found: apt-get, dpkg-deb, c++, cmake, …"""
    ports: tuple[Port, ...] = ()
