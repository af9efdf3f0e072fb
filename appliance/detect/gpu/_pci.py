"""What sysfs tells of a PCI device: which there are, who drives them, how near they are."""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from appliance.domain.host import Gpu
from appliance.system.machine import Machine

DEVICES: Final = "/sys/bus/pci/devices"
DRIVERS: Final = "/sys/bus/pci/drivers"
ADDRESS: Final = re.compile(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])")
CLASSES: Final = ("03", "0b40", "12")
"""Display controllers, co-processors, processing accelerators: the first digits of PCI's class code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One PCI function."""

    bus_id: str
    model: str
    """Device id, four lower-case hexadecimal digits."""
    kind: str
    """Class code, six digits."""


def address(text: str) -> str:
    """Return a PCI address as sysfs writes it, `0000:07:00.0`, whatever the tool makes of it; "" if it is none."""
    found = ADDRESS.fullmatch(text.strip())
    if not found:
        return ""
    domain, bus, slot, function = found.groups()
    return f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(slot, 16):02x}.{function}"


def devices(machine: Machine, vendors: Iterable[str]) -> tuple[Device, ...]:
    """Return the displays and accelerators of these vendor ids, in the bus's order."""
    known = {f"0x{vendor}" for vendor in vendors}
    found = []
    for bus_id in machine.names(DEVICES):
        if _value(machine, f"{DEVICES}/{bus_id}/vendor") not in known:
            continue
        kind = _value(machine, f"{DEVICES}/{bus_id}/class").removeprefix("0x")
        if kind.startswith(CLASSES):
            model = _value(machine, f"{DEVICES}/{bus_id}/device").removeprefix("0x")
            found.append(Device(bus_id=bus_id, model=model, kind=kind))
    return tuple(found)


def bound(machine: Machine, *modules: str) -> set[str]:
    """Return the addresses of the devices that these kernel modules drive."""
    return {name for module in modules for name in machine.names(f"{DRIVERS}/{module}") if ADDRESS.fullmatch(name)}


def loaded(machine: Machine, *modules: str) -> str:
    """Return the first of these kernel modules that is loaded or built in, "" if none is."""
    return next((module for module in modules if machine.names(f"/sys/module/{module}")), "")


def module_version(machine: Machine, *modules: str) -> str:
    """Return the version of the first of these kernel modules that says one; those of the kernel itself do not."""
    versions = (_value(machine, f"/sys/module/{module}/version") for module in modules)
    return next((version for version in versions if version), "")


def placed(machine: Machine, gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """Return the GPUs with the NUMA node that each one is at."""
    return tuple(dataclasses.replace(gpu, numa_node=_numa(machine, gpu)) for gpu in gpus)


def _numa(machine: Machine, gpu: Gpu) -> int | None:
    node = _value(machine, f"{DEVICES}/{gpu.bus_id}/numa_node") if gpu.bus_id else ""
    # -1 is the kernel's word for a machine that has no such thing, or a firmware that does not say.
    return int(node) if re.fullmatch(r"[0-9]{1,4}", node) else gpu.numa_node


def _value(machine: Machine, path: str) -> str:
    return (machine.read(path, 256) or b"").decode(errors="replace").strip().lower()
