"""Whose accelerators are on the PCI bus, driver or not, from sysfs."""

import re
from collections.abc import Mapping
from typing import Final

from appliance.system.machine import Machine

DEVICES: Final = "/sys/bus/pci/devices"
CLASSES: Final = frozenset({"0300", "0302", "0380", "0b40", "1200"})
"""VGA and 3D controllers, other displays, co-processors, processing accelerators (pci.ids, class and subclass).
A vendor's id alone proves nothing: bridges and network cards carry the same."""
CONSOLES: Final = frozenset({"19e5:1711", "1002:4752", "1002:515e", "1002:5969"})
"""Displays of servers' management processors, by vendors that make accelerators too: iBMC, RAGE XL, ES1000."""


def parse_class(content: str) -> str:
    """Return `0302` from sysfs' `0x030200`: class and subclass."""
    found = re.match(r"0x([0-9a-f]{4})", content.strip().lower())
    return found[1] if found else ""


def parse_vendor(content: str) -> str:
    """Return `10de` from sysfs' `0x10de`; devices' ids are written the same."""
    found = re.fullmatch(r"0x([0-9a-f]{4})", content.strip().lower())
    return found[1] if found else ""


def accelerators(machine: Machine, vendors: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the vendors found; `vendors` maps PCI ids to them. Others (a server's BMC) do not count."""
    found = set()
    for device in machine.names(DEVICES):
        vendor = parse_vendor(_text(machine, device, "vendor"))
        console = f"{vendor}:{parse_vendor(_text(machine, device, 'device'))}" in CONSOLES
        if parse_class(_text(machine, device, "class")) in CLASSES and not console:
            found.add(vendors.get(vendor, ""))
    return tuple(sorted(found - {""}))


def _text(machine: Machine, device: str, name: str) -> str:
    return (machine.read(f"{DEVICES}/{device}/{name}", 64) or b"").decode(errors="replace")
