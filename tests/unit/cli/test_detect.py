"""What `detect` tells people: everything that is there, and at the end what does not work and what mends it."""

from dataclasses import replace

from appliance.cli.detect import describe
from appliance.domain.host import (
    Docker,
    Driver,
    Filesystem,
    Gpu,
    GpuProcess,
    Host,
    NumaNode,
    Podman,
    Port,
    Slice,
)

GIB = 1 << 30
PLAIN = Host(
    os="debian", os_version="12", arch="x86_64", glibc="2.36", kernel="6.1.0-18-amd64", init="systemd", systemd=252,
    python="3.11", root=True, cpus=8, cpu_flags=("avx2", "f16c"), memory=64 * GIB, memory_available=60 * GIB,
    disk_free=500 * GIB,
)  # fmt: skip
L4 = Gpu(
    vendor="nvidia", index=0, uuid="GPU-1", name="NVIDIA L4", memory=24 * GIB, memory_free=23 * GIB,
    compute_capability="8.9", bus_id="0000:07:00.0", numa_node=1, links=("X", "PHB"),
)  # fmt: skip


def told(host: Host) -> str:
    return describe(host, "/var/lib/llm-appliance")


def line(host: Host, label: str) -> str:
    return next(line for line in told(host).splitlines() if line.startswith(label)).removeprefix(label).strip()


def test_a_small_server() -> None:
    assert told(PLAIN) == (
        "system      debian 12, x86_64, kernel 6.1.0-18-amd64, glibc 2.36\n"
        "init        systemd 252\n"
        "processor   8 CPUs\n"
        "            avx2\n"
        "memory      60.0 GiB available of 64.0 GiB, no swap\n"
        "            500.0 GiB free for /var/lib/llm-appliance\n"
        "gpus        none\n"
        "docker      none\n"
        "tools       none"
    )


def test_columns_are_aligned_by_blanks() -> None:
    disks = (
        Filesystem(path="/", kind="ext4", total=100 * GIB, free=GIB),
        Filesystem(path="/srv/models", kind="nfs4", total=2 << 40, free=1 << 40),
    )
    ports = (Port(port=22, holder="sshd (pid 812)"), Port(port=8080))
    text = told(replace(PLAIN, filesystems=disks, ports=ports))
    assert "disks       /            ext4  1.0 GiB free of 100.0 GiB\n            /srv/models  nfs4  1.0 TiB" in text
    assert text.endswith(
        "ports       22    sshd (pid 812)\n            8080  held by a process that is not shown to us"
    )


def test_what_a_container_may_use_of_its_machine() -> None:
    host = replace(
        PLAIN, cpus=2, cpu_name="AMD EPYC 9655", container="docker", machine_cpus=96, machine_memory=768 * GIB
    )
    assert line(host, "container") == "docker"
    assert line(host, "processor") == "AMD EPYC 9655, 2 CPUs of the machine's 96 (affinity or quota)"
    assert line(host, "memory").endswith("no swap; limited by the cgroup, the machine has 768.0 GiB")
    whole = replace(
        PLAIN, machine_cpus=8, machine_memory=64 * GIB,
        numa=(NumaNode(index=0, cpus=tuple(range(8)), memory=64 * GIB),),
    )  # fmt: skip
    assert "machine" not in told(whole)
    assert "numa" not in told(whole), "one node is no news"


def test_several_nodes() -> None:
    nodes = (
        NumaNode(index=0, cpus=(0, 1, 2, 8), memory=GIB),
        NumaNode(index=1, cpus=(), memory=96 * GIB),
    )
    text = told(replace(PLAIN, numa=nodes))
    assert "numa        node 0: 4 CPUs (0-2,8), 1.0 GiB\n            node 1: 0 CPUs (none), 96.0 GiB" in text


def test_gpus_with_what_uses_them_and_how_they_are_linked() -> None:
    busy = replace(
        L4, processes=(GpuProcess(pid=7, name="python", memory=GIB), GpuProcess(pid=8, name="x", memory=None))
    )
    other = replace(L4, index=1, bus_id="0000:08:00.0", links=("PHB", "X"))
    driver = Driver(vendor="nvidia", version="550.54.15", api="12.4", module="open")
    text = told(replace(PLAIN, gpus=(busy, other), drivers=(driver,)))
    assert (
        "gpus        nvidia 0  NVIDIA L4  23.0 GiB free of 24.0 GiB  cc 8.9  0000:07:00.0 numa 1\n"
        "              python (pid 7) holds 1.0 GiB\n"
        "              x (pid 8)\n"
        "            nvidia 1  NVIDIA L4  23.0 GiB free of 24.0 GiB  cc 8.9  0000:08:00.0 numa 1\n"
        "links       nvidia 0  X    PHB\n"
        "            nvidia 1  PHB  X\n"
        "drivers     nvidia 550.54.15, up to CUDA 12.4, open module\n"
    ) in text


def test_slices_and_unified_memory() -> None:
    part = Slice(index=0, uuid="MIG-1", profile="1g.10gb", memory=10 * GIB)
    text = told(replace(PLAIN, gpus=(replace(L4, partitioned=True, slices=(part,)),)))
    assert "              MIG is on, its slices are:\n              slice 0  1g.10gb  10.0 GiB  MIG-1\n" in text
    assert "MIG is on, and no slice is made" in told(replace(PLAIN, gpus=(replace(L4, partitioned=True),)))
    gb10 = replace(L4, name="NVIDIA GB10", memory=None, memory_free=None, unified=True)
    assert "NVIDIA GB10  unified memory  cc 8.9" in told(replace(PLAIN, gpus=(gb10,)))
    unknown = Gpu(vendor="amd", index=0, uuid="", name="x", memory=None, architecture="gfx942")
    assert "amd 0  x  memory unknown  gfx942" in told(replace(PLAIN, gpus=(unknown,)))


def test_what_is_broken_stands_at_the_end_with_its_remedy() -> None:
    host = replace(
        PLAIN,
        gpus=(replace(L4, failure="requires reset"),),
        drivers=(Driver(vendor="nvidia", failure="Driver/library version mismatch", remedy="reboot"),),
        docker=Docker(client="28.2.2", failure="permission denied"),
        silent=("nvidia-smi",),
        pci=("amd", "nvidia"),
    )
    assert line(host, "drivers") == "nvidia (version unknown), NOT WORKING"
    assert told(host).partition("\n\n")[2].splitlines() == [
        "not working:",
        "  nvidia driver: Driver/library version mismatch",
        "    to mend it: reboot",
        "  nvidia 0 (NVIDIA L4): requires reset",
        "  amd: a device is on the PCI bus, and no driver tells of it",
        "  docker: permission denied",
        "  no answer in time from nvidia-smi; what it would have told is missing above",
    ]


def test_hardware_without_a_driver_is_not_none() -> None:
    assert line(replace(PLAIN, pci=("nvidia",)), "gpus") == "none that can be used; on the PCI bus: nvidia"


def test_docker() -> None:
    full = Docker(
        client="28.2.2", server="28.1.1", compose="2.24.5", rootless=True, snap=True, runtimes=("nvidia", "runc"),
        cdi=("nvidia.com/gpu",), toolkit="1.17.4",
    )  # fmt: skip
    assert line(replace(PLAIN, docker=full), "docker") == (
        "28.1.1, client 28.2.2, Compose 2.24.5, rootless, from snap, which cannot hand out GPUs, "
        "runtimes nvidia runc, CDI nvidia.com/gpu, NVIDIA container toolkit 1.17.4"
    )
    assert line(replace(PLAIN, docker=Docker(client="28.2.2")), "docker") == (
        "no daemon answers, client 28.2.2, no Compose plugin"
    )
    assert line(replace(PLAIN, docker=Docker(failure="Podman answers")), "docker") == "none that works"
    podman = Docker(client="4.3.1", server="4.3.1", compose="2.26.1", podman=Podman(socket="/run/podman/podman.sock"))
    assert line(replace(PLAIN, docker=podman), "docker") == "Podman 4.3.1, Compose 2.26.1"


def test_the_rest() -> None:
    host = replace(
        PLAIN, swap=GIB, security="selinux enforcing", cuda_toolkit="12.8", modules=("nvidia", "nvidia_uvm"),
        proxies=(("http_proxy", "http://proxy"),), tools=(("cmake", "/usr/bin/cmake"), ("c++", "/usr/bin/c++")),
    )  # fmt: skip
    assert line(host, "system").endswith("glibc 2.36, selinux enforcing")
    assert "1.0 GiB swap" in line(host, "memory")
    assert line(host, "cuda") == "compiler 12.8"
    assert line(host, "modules") == "nvidia, nvidia_uvm"
    assert line(host, "proxies") == "http_proxy=http://proxy"
    assert line(host, "tools") == "cmake, c++"
    assert "no glibc" in told(replace(PLAIN, glibc=""))
    assert line(replace(PLAIN, systemd=0, init=""), "init") == "unknown"


def test_no_escape_sequence_of_a_name_reaches_the_terminal() -> None:
    host = replace(PLAIN, ports=(Port(port=1, holder="\x1b[31mred\n (pid 1)"),))
    assert told(host).endswith("1  ?[31mred? (pid 1)")
