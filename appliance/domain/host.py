"""What the machine is."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A part of a GPU that works as a GPU of its own (a MIG instance)."""

    index: int
    """Counted for each GPU."""
    uuid: str
    profile: str
    """`1g.10gb`."""
    memory: int | None
    """Bytes; None where the tool does not say and the profile's name does not either."""
    memory_free: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A program that holds GPU memory."""

    pid: int
    name: str
    memory: int | None
    """Bytes; None where the driver does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator."""

    vendor: str
    """`nvidia`, `amd`, `intel`, `ascend`, `metax`, `moore-threads` or `hygon`."""
    index: int
    """As the vendor's own tool counts."""
    uuid: str
    """What the vendor's visibility variable takes; "" where the tool tells none."""
    name: str
    memory: int | None
    """Bytes of its own memory; None where it has none (unified memory) or the tool does not say."""
    memory_free: int | None = None
    """Bytes that nothing holds now; None where the tool does not say."""
    compute_capability: str = ""
    """NVIDIA's, `8.9`."""
    architecture: str = ""
    """The compiler's name of it for other vendors: `gfx942`."""
    bus_id: str = ""
    """PCI address in sysfs' form, `0000:07:00.0`."""
    numa_node: int | None = None
    unified: bool = False
    """It shares the machine's memory (GB10, Jetson, integrated graphics)."""
    partitioned: bool = False
    """MIG is on: only its slices can be used."""
    slices: tuple[Slice, ...] = ()
    links: tuple[str, ...] = ()
    """How it reaches each GPU of this vendor, by index, in NVIDIA's words: X, NV18, PIX, PXB, PHB, NODE, SYS."""
    processes: tuple[GpuProcess, ...] = ()
    failure: str = ""
    """Why this one cannot be used although it is listed: `requires reset`."""
    slice: int | None = None
    """Its number among the slices of GPU `index`, where it is one that a plan uses as a GPU of its own."""

    @property
    def device(self) -> str:
        """Return the name that plans use, `nvidia:0`, or `nvidia:0.1` for its second slice."""
        return f"{self.vendor}:{self.index}" + ("" if self.slice is None else f".{self.slice}")

    @property
    def visible(self) -> str:
        """Return what the vendor's visibility variable takes for it."""
        return self.uuid or str(self.index)

    @property
    def pool(self) -> str:
        """Return the memory that it uses: its own, or the machine's."""
        return "ram" if self.unified else self.device


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A GPU vendor's driver, working or broken."""

    vendor: str
    version: str = ""
    """Kernel driver; "" where it cannot be told."""
    api: str = ""
    """Newest API version that it supports: CUDA `12.4`, ROCm `7.2.1`, MACA …; "" where it is broken."""
    module: str = ""
    """NVIDIA's kernel module: `open` or `proprietary`."""
    failure: str = ""
    """What is broken, in one line; "" = it works. A driver that is broken is never `no GPU`."""
    remedy: str = ""
    """What mends it, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Podman:
    """Podman's service, where it answers in Docker's place."""

    socket: str
    """Absolute path of the socket at which it speaks Docker's API."""
    compose: str = ""
    """Absolute path of Compose as a program of its own; "" = there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """A Docker daemon, or the client alone."""

    client: str = ""
    """Version; "" = there is none."""
    server: str = ""
    """Version; "" = no daemon answers."""
    compose: str = ""
    """Version of the Compose plugin, 2 or later."""
    rootless: bool = False
    snap: bool = False
    """Installed from snap, which cannot hand GPUs to containers."""
    runtimes: tuple[str, ...] = ()
    """Names the daemon knows: runc, nvidia …"""
    cdi: tuple[str, ...] = ()
    """Kinds of the CDI specs found: nvidia.com/gpu …"""
    toolkit: str = ""
    """Version of NVIDIA's container toolkit."""
    failure: str = ""
    """Why the daemon does not answer."""
    podman: Podman | None = None
    """What the daemon is instead; client and server are its versions then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filesystem:
    """A mounted file system that could hold weights."""

    path: str
    """Where it is mounted."""
    kind: str
    """`ext4`, `xfs`, `nfs4` …"""
    total: int
    free: int
    """Bytes that we may write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaNode:
    """Processors and memory that are near each other."""

    index: int
    cpus: tuple[int, ...]
    memory: int
    """Bytes."""


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
    """Processors that this process may use: affinity and the cgroup's quota, rounded up."""
    cpu_flags: tuple[str, ...]
    memory: int
    """Bytes of RAM, or of the cgroup's limit when that is smaller."""
    memory_available: int
    disk_free: int
    """Bytes free where the state directory is, or would be."""
    gpus: tuple[Gpu, ...] = ()
    drivers: tuple[Driver, ...] = ()
    """One for each vendor whose hardware, module or tool is here."""
    cpu_name: str = ""
    swap: int = 0
    """Bytes."""
    cgroup: int = 0
    """1 or 2; 0 = none is mounted."""
    container: str = ""
    """docker, podman, kubernetes, systemd-nspawn, lxc, wsl … where this is not the whole machine, else ""."""
    machine_cpus: int = 0
    """Processors of the whole machine, whatever this process may use; 0 = not told."""
    machine_memory: int = 0
    """Bytes of RAM of the whole machine."""
    numa: tuple[NumaNode, ...] = ()
    filesystems: tuple[Filesystem, ...] = ()
    docker: Docker = Docker()
    security: str = ""
    """Mandatory access control: `selinux enforcing`, `selinux permissive`, `apparmor`, or ""."""
    modules: tuple[str, ...] = ()
    """Loaded kernel modules that concern GPUs: nvidia, nvidia_uvm, nouveau, amdgpu …"""
    pci: tuple[str, ...] = ()
    """Vendors with a display or accelerator device on the PCI bus, whether a driver is there or not."""
    cuda_toolkit: str = ""
    """Version of the CUDA compiler that is installed, `12.8`; "" = none."""
    proxies: tuple[tuple[str, str], ...] = ()
    """Proxy variables of the environment; user names and passwords taken out."""
    tools: tuple[tuple[str, str], ...] = ()
    """(name, absolute path) of the programs found: apt-get, dpkg-deb, c++, cmake, …"""
    ports: tuple[Port, ...] = ()
    groups: tuple[tuple[str, int], ...] = ()
    """(name, number) of the groups that GPUs' devices are open to: render, video."""
    silent: tuple[str, ...] = ()
    """Programs and file systems that were asked and gave no answer in time: what they would have told is missing."""

    def driver(self, vendor: str) -> Driver | None:
        """Return that vendor's driver."""
        return next((driver for driver in self.drivers if driver.vendor == vendor), None)

    @property
    def devices(self) -> tuple[Gpu, ...]:
        """Every GPU that programs can be given: those in parts are their parts."""
        found: list[Gpu] = []
        for gpu in self.gpus:
            if not gpu.partitioned:
                found.append(gpu)
            found += [_part(gpu, part) for part in gpu.slices] if gpu.partitioned else []
        return tuple(found)


def _part(gpu: Gpu, part: Slice) -> Gpu:
    return replace(
        gpu, uuid=part.uuid, name=f"{gpu.name} MIG {part.profile}", memory=part.memory, memory_free=part.memory_free,
        slice=part.index, partitioned=False, slices=(), links=(), processes=(),
    )  # fmt: skip
