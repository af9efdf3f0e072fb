"""What the kernel tells of NVIDIA hardware without any tool: /proc, /sys, /dev, a Jetson's device tree."""

import re
from dataclasses import dataclass, replace
from typing import Final

from appliance.detect.gpu.nvidia.cells import Seen, bus_id, told
from appliance.detect.gpu.nvidia.models import CHIPS
from appliance.system.machine import Machine

VERSION: Final = "/proc/driver/nvidia/version"
GPUS: Final = "/proc/driver/nvidia/gpus"
DEVICES: Final = "/sys/bus/pci/devices"
DRIVERS: Final = "/sys/bus/pci/drivers"
SECURE_BOOT: Final = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""Four bytes of attributes, then 1 where it is on (UEFI specification, 8.2 and 3.3)."""
LIBRARIES: Final = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
WSL: Final = "/usr/lib/wsl/lib"

_NVRM: Final = re.compile(r"NVRM version:[^\n]*?\s([0-9]{2,4}\.[0-9]{1,4}(?:\.[0-9]{1,4})?)(?!\S)")
_LIBRARY: Final = re.compile(r"libnvidia-ml\.so\.([0-9]{2,4}\.[0-9]{1,4}(?:\.[0-9]{1,4})?)")
_JETSON: Final = re.compile(r"R([0-9]{1,3}) \(release\), REVISION: ([0-9]{1,3}(?:\.[0-9]{1,3})*)")
_NODE: Final = re.compile(r"nvidia(?:[0-9]+|ctl)")
_RUNTIME: Final = re.compile(r"docker|kubepods|containerd|libpod|/lxc|crio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What is there of a driver, or in its stead."""

    version: str = ""
    """Of the module that is loaded."""
    module: str = ""
    """`open` or `proprietary`."""
    gpus: tuple[Seen, ...] = ()
    """What the module drives, in order of their PCI addresses."""
    modules: frozenset[str] = frozenset()
    """All that are loaded."""
    nodes: bool = False
    """There are /dev/nvidia* to open."""
    container: bool = False
    wsl: bool = False
    """Windows passes an NVIDIA GPU on (WSL2)."""
    jetson: str = ""
    """Release of Jetson Linux, `36.4.3`; "" = this is no Jetson."""
    chip: str = ""
    """`tegra234`."""
    board: str = ""
    release: str = ""
    """Of the kernel."""
    nvml: str = ""
    """Version of the NVML library that is installed; looked for only where something is broken."""
    built: bool = False
    """There is a module for this kernel; likewise."""
    secure_boot: bool = False
    """Likewise."""
    passed_on: bool = False
    """vfio-pci holds an NVIDIA device for a virtual machine; likewise."""


def look(machine: Machine) -> Kernel:
    """Read what tells of the driver."""
    version, module = parse_version(_text(machine, VERSION))
    board = _text(machine, "/proc/device-tree/model").strip("\0 \n")
    modules = parse_modules(_text(machine, "/proc/modules"))
    nodes = machine.names("/dev")
    return Kernel(
        version=version,
        module=module,
        gpus=_gpus(machine),
        modules=modules,
        nodes=any(map(_NODE.fullmatch, nodes)),
        container=_container(machine),
        wsl="dxg" in nodes and any(name.startswith("libcuda.so") for name in machine.names(WSL)),
        jetson=parse_jetson(_text(machine, "/etc/nv_tegra_release")),
        chip=parse_chip(_text(machine, "/proc/device-tree/compatible"), board),
        board=board,
        release=_text(machine, "/proc/sys/kernel/osrelease").strip(),
    )


def look_closer(machine: Machine, kernel: Kernel) -> Kernel:
    """Read what tells why the driver does not work."""
    names = (name for directory in LIBRARIES for name in machine.names(directory))
    library = next((match[1] for name in names if (match := _LIBRARY.fullmatch(name))), "")
    built = "/nvidia.ko" in _text(machine, f"/lib/modules/{kernel.release}/modules.dep", 8 << 20)
    flag = machine.read(SECURE_BOOT) or b""
    held = [name for name in machine.names(f"{DRIVERS}/vfio-pci") if bus_id(name)]
    passed_on = any(_text(machine, f"{DEVICES}/{name}/vendor").strip() == "0x10de" for name in held)
    return replace(kernel, nvml=library, built=built, secure_boot=flag[4:5] == b"\1", passed_on=passed_on)


def numa_node(machine: Machine, address: str) -> int | None:
    """Return the NUMA node that a PCI device hangs on; the kernel's -1 is None."""
    text = _text(machine, f"{DEVICES}/{address}/numa_node").strip() if address else ""
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else None


def parse_version(text: str) -> tuple[str, str]:
    """Return (version, `open` or `proprietary`) from /proc/driver/nvidia/version."""
    match = _NVRM.search(text)
    if not match:
        return "", ""
    return match[1], "open" if "Open Kernel Module" in match[0] else "proprietary"


def parse_modules(text: str) -> frozenset[str]:
    """Return the names in /proc/modules."""
    return frozenset(line.split()[0] for line in text.splitlines() if line.strip())


def parse_information(text: str, index: int, address: str = "") -> Seen:
    """Read /proc/driver/nvidia/gpus/<address>/information; the UUID has question marks until the GPU was first used."""
    pairs = (line.partition(":") for line in text.splitlines())
    facts = {key.strip(): told(value) for key, _, value in pairs}
    uuid = facts.get("GPU UUID", "")
    return Seen(
        index=index,
        uuid="" if "?" in uuid else uuid,
        name=facts.get("Model", ""),
        bus_id=bus_id(facts.get("Bus Location", "")) or bus_id(address),
    )


def parse_jetson(text: str) -> str:
    """Return `36.4.3` from `# R36 (release), REVISION: 4.3, GCID: …` in /etc/nv_tegra_release."""
    match = _JETSON.search(text)
    return f"{match[1]}.{match[2]}" if match else ""


def parse_chip(compatible: str, model: str) -> str:
    """Return the Tegra chip of a device tree, "" where it has another; words end with a zero byte."""
    chips = [word.removeprefix("nvidia,") for word in compatible.split("\0")]
    named = [chip for chip, (name, _) in CHIPS.items() if name in model and "NVIDIA" in model]
    return next((chip for chip in (*chips, *named) if chip in CHIPS), "")


def _gpus(machine: Machine) -> tuple[Seen, ...]:
    addresses = sorted(name for name in machine.names(GPUS) if bus_id(name))
    return tuple(
        parse_information(_text(machine, f"{GPUS}/{address}/information"), index, address)
        for index, address in enumerate(addresses)
    )


def _container(machine: Machine) -> bool:
    marked = ".dockerenv" in machine.names("/") or ".containerenv" in machine.names("/run")
    return (
        marked
        or bool(_text(machine, "/run/systemd/container").strip())
        or _RUNTIME.search(_text(machine, "/proc/1/cgroup")) is not None
    )


def _text(machine: Machine, path: str, limit: int = 1 << 20) -> str:
    return (machine.read(path, limit) or b"").decode(errors="replace")
