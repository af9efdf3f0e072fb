"""Hygon DCUs by `hy-smi`, whose tools and driver are made after AMD's."""

import dataclasses
import re
from typing import Final

from appliance.detect.gpu import Found, _kfd, _pci, _rocm
from appliance.detect.gpu._ask import LATE, Remedies, ask, locate, placeless, silent, trouble
from appliance.detect.gpu._text import lines
from appliance.domain.changes import Completed
from appliance.domain.host import Driver, Gpu
from appliance.system.machine import Machine

VENDOR: Final = "hygon"
PCI: Final = ("1d94",)
TOOLS: Final = ("hy-smi",)
MODULES: Final = ("hycu", "hydcu", "hygondrm")
VENDOR_ID: Final = 0x1D94
DIRECTORIES: Final = ("/opt/hyhal/bin", "/usr/local/hyhal/bin", "/opt/dtk/bin")
KIT: Final = tuple(f"/opt/dtk/.info/{name}" for name in ("version", "rocm_version", "version-dev"))
ASKED: Final = ("--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json")
UNNAMED: Final = "Hygon DCU"
ROW: Final = re.compile(r"\s*\|?\s*([0-9]{1,3})\s+(?:[0-9.]+\s*(?:°|º)?C|N/A)\s.*", re.IGNORECASE)
LOAD: Final = "sudo modprobe hycu (hydcu with older kits); if there is none, install Hygon's driver, then reboot"
HAND_IN: Final = "install Hygon's driver; in a container, hand in /opt/hyhal, /dev/kfd, /dev/mkfd and /dev/dri"
GROUPS: Final = "sudo usermod -aG video,render $USER, then log in again"
REMEDIES: Final[Remedies] = (
    ("permission", GROUPS),
    ("unable to open /dev", GROUPS),
    ("not initialized", LOAD),
    ("not loaded", LOAD),
    ("no such file", HAND_IN),
)


def probe(machine: Machine, present: bool) -> Found:
    """Ask hy-smi, and the compute driver's list in sysfs, if there is any sign of a DCU."""
    tool = locate(machine, TOOLS[0], *DIRECTORIES)
    module = _pci.loaded(machine, *MODULES)
    nodes = _kfd.nodes(machine, VENDOR, VENDOR_ID)
    if not (tool or present or module or nodes):
        return Found()
    if tool:
        found = _ask(machine, tool)
    elif nodes:
        found = Found(driver=Driver(vendor=VENDOR))
    else:
        failure = "hy-smi is not installed" if module else "the kernel module hycu is not loaded"
        found = Found(driver=Driver(vendor=VENDOR, failure=failure, remedy=HAND_IN if module else LOAD))
    gpus = _pci.placed(machine, merge(nodes, found.gpus))
    driver = placeless(found.driver or Driver(vendor=VENDOR), bool(present or module or nodes))
    return Found(gpus=gpus, driver=_versions(machine, driver), silent=found.silent)


def parse(done: Completed) -> Found:
    """Read the answer of hy-smi: JSON, or the table, which has memory as a percentage only."""
    found = _rocm.cards(done.stdout)
    named = tuple(dataclasses.replace(gpu, uuid=str(gpu.index), name=gpu.name or UNNAMED)
                  for gpu in _rocm.gpus(VENDOR, found))  # fmt: skip
    gpus = named or parse_table(done.stdout)
    driver = Driver(vendor=VENDOR) if gpus and done.code != LATE else trouble(VENDOR, done, REMEDIES, LOAD)
    version = _rocm.driver_version(done.stdout)
    return Found(gpus=gpus, driver=dataclasses.replace(driver, version=version), silent=silent(done))


def parse_table(text: str) -> tuple[Gpu, ...]:
    """Read the rows of plain `hy-smi`, which begin with the number and the temperature."""
    rows = filter(None, map(ROW.fullmatch, lines(text)))
    return tuple(Gpu(vendor=VENDOR, index=int(row[1]), uuid=row[1], name=UNNAMED, memory=None) for row in rows)


def merge(nodes: tuple[_kfd.Node, ...], told: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """Join what sysfs and the tool say: hy-smi gives no address, so only what all cards share is taken over."""
    if not told:
        return tuple(dataclasses.replace(node.gpu, uuid=str(node.gpu.index)) for node in nodes)
    kinds = {(node.gpu.architecture, node.gpu.memory) for node in nodes}
    if len(nodes) != len(told) or len(kinds) != 1:
        return told
    arch, memory = kinds.pop()
    return tuple(
        dataclasses.replace(gpu, architecture=gpu.architecture or arch, memory=gpu.memory or memory) for gpu in told
    )


def _ask(machine: Machine, tool: str) -> Found:
    found = parse(ask(machine, tool, *ASKED))
    # A release that does not know one of these words may still print its table.
    again = Found() if found.gpus or found.silent else parse(ask(machine, tool))
    return again if again.gpus or again.silent else found


def _versions(machine: Machine, driver: Driver) -> Driver:
    kits = ((machine.read(path, 256) or b"").decode(errors="replace").strip() for path in KIT)
    return dataclasses.replace(
        driver,
        version=_pci.module_version(machine, *MODULES) or driver.version,
        api=next((found[0] for kit in kits if (found := re.match(r"[0-9]+(?:\.[0-9]+)+", kit))), ""),
    )
