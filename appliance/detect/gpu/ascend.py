"""Huawei's Ascend NPUs by `npu-smi info`: two lines for each chip, and every chip is a device of its own."""

import dataclasses
import re
from typing import Final

from appliance.detect.gpu import Found, _pci
from appliance.detect.gpu._ask import LATE, Remedies, ask, locate, placeless, silent, trouble
from appliance.detect.gpu._text import cells, field, free, lines, used
from appliance.domain.changes import Completed
from appliance.domain.host import Driver, Gpu
from appliance.system.machine import Machine

VENDOR: Final = "ascend"
PCI: Final = ("19e5",)
TOOLS: Final = ("npu-smi",)
MODULES: Final = ("drv_davinci_intf", "drv_davinci_intf_host", "drv_devmng", "drv_devmng_host", "drv_pcie_host")
HOME: Final = "/usr/local/Ascend"
DIRECTORIES: Final = ("/usr/local/sbin", "/usr/local/bin", f"{HOME}/driver/tools", "/usr/sbin")
LIBRARIES: Final = ":".join(f"{HOME}/driver/lib64{part}" for part in ("", "/driver", "/common"))
"""Where the driver's libraries are; in a container nothing else says it."""
TOOLKITS: Final = (f"{HOME}/ascend-toolkit/latest", f"{HOME}/cann", f"{HOME}/cann/latest")

NPU: Final = re.compile(r"([0-9]{1,4})\s+([0-9A-Za-z][\w .-]*)", re.ASCII)
CHIP: Final = re.compile(r"([0-9]{1,4})(?:\s+([0-9]{1,4}|-|NA))?", re.ASCII)
NOWHERE: Final = ("NA", "N/A", "-", "")
"""In the place of a PCI address: the chip is not on that bus."""
WELL: Final = ("OK", "WARNING")
"""Health that lets a chip work: a warning is a note for the operator. Alarm, Critical and Unknown are not."""
CARD: Final = re.compile(r"d[0-9a-f]{3}")
"""PCI device ids of NPUs; 1711, a server's console, has the same vendor and class as a display."""

LOAD: Final = "install or load the Ascend driver, or reboot if it was just installed or its firmware upgraded"
GROUP: Final = "run as root, or sudo usermod -aG HwHiAiUser $USER and log in again"
HAND_IN: Final = (
    f"install the Ascend driver; in a container, hand in {HOME}/driver, /dev/davinci_manager and /dev/davinciN"
)
REMEDIES: Final[Remedies] = (
    ("-8020", "another container without privileges holds this NPU: stop it, or give each one NPUs of its own"),
    ("-8005", f"{LOAD}; in a container, hand in /dev/davinci_manager and /dev/davinciN; else {GROUP}"),
    ("-8002", GROUP),
    ("permission", GROUP),
    ("error while loading shared libraries", HAND_IN),
    ("drvmng", LOAD),
)


def probe(machine: Machine, present: bool) -> Found:
    """Ask npu-smi, if there is any sign of an NPU."""
    tool = locate(machine, TOOLS[0], *DIRECTORIES)
    nodes = tuple(name for name in machine.names("/dev") if name.startswith("davinci"))
    hardware = bool(nodes) or (present and _accelerator(machine))
    installed = _version(machine)
    if not (tool or hardware or installed or _pci.loaded(machine, *MODULES)):
        return Found()
    if not tool:
        failure = "npu-smi is not installed" if nodes else "the Ascend driver is not installed or not loaded"
        found = Found(driver=Driver(vendor=VENDOR, failure=failure, remedy=HAND_IN))
    else:
        found = parse(ask(machine, tool, "info", env=(("LD_LIBRARY_PATH", LIBRARIES),)))
    driver = placeless(found.driver or Driver(vendor=VENDOR), hardware or bool(installed))
    driver = dataclasses.replace(driver, version=driver.version or installed, api=_cann(machine))
    return Found(gpus=_pci.placed(machine, found.gpus), driver=driver, silent=found.silent)


def parse(done: Completed) -> Found:
    """Read the answer of `npu-smi info`."""
    gpus, version = parse_table(done.stdout), parse_version(done.stdout)
    driver = Driver(vendor=VENDOR) if gpus and done.code != LATE else trouble(VENDOR, done, REMEDIES, LOAD)
    return Found(gpus=gpus, driver=dataclasses.replace(driver, version=version), silent=silent(done))


def parse_version(text: str) -> str:
    """Return the driver's version, the second one in `npu-smi 25.2.0   Version: 25.2.0`."""
    head = next((line for line in lines(text) if re.search(r"npu-smi\s+\S+\s+Version", line)), "")
    return field(head, "Version")


def parse_table(text: str) -> tuple[Gpu, ...]:
    """Read the rows of NPUs and chips; the table of processes below has other columns."""
    found: list[Gpu] = []
    npu: re.Match[str] | None = None
    health = ""
    for row in map(cells, lines(text)):
        if len(row) != 3:
            npu = None if row else npu
        elif _pci.address(row[1]) or row[1].upper() in NOWHERE:
            chip = CHIP.fullmatch(row[0])
            if npu and chip:
                found.append(_chip(len(found), npu, health, chip, row))
            npu = None
        else:
            npu, health = NPU.fullmatch(row[0]), row[1]
    return _counted(found)


def _chip(place: int, npu: re.Match[str], health: str, chip: re.Match[str], row: list[str]) -> Gpu:
    # The last pair is HBM where there is such a column; a chip without HBM shows its memory there or in the one before.
    held, total = next((pair for pair in reversed(used(row[2])) if pair[1]), (None, None))
    name, bus_id, device = npu[2].strip(), _pci.address(row[1]), chip[2]
    told = device is not None and device.isdigit()
    return Gpu(
        vendor=VENDOR,
        index=int(device) if told and device else int(npu[1]),
        # ASCEND_RT_VISIBLE_DEVICES counts the chips that are there, whatever the numbers of the boards.
        uuid=str(place),
        name=name,
        memory=total,
        memory_free=free(total, held),
        architecture=name if name.startswith("Ascend") else f"Ascend{name}",
        bus_id=bus_id,
        # A 310B that is not on PCI is the processor itself, and its memory is the machine's.
        unified=not bus_id and name.startswith("310B"),
        failure="" if health.upper() in WELL else f"npu-smi reports health {health}",
    )


def _counted(found: list[Gpu]) -> tuple[Gpu, ...]:
    """Return the chips by number of their own: where boards have two chips and no number for each, by their place."""
    if len({gpu.index for gpu in found}) == len(found):
        return tuple(found)
    return tuple(dataclasses.replace(gpu, index=place) for place, gpu in enumerate(found))


def _accelerator(machine: Machine) -> bool:
    devices = _pci.devices(machine, PCI)
    return not devices or any(device.kind.startswith("12") or CARD.fullmatch(device.model) for device in devices)


def _version(machine: Machine) -> str:
    text = (machine.read(f"{HOME}/driver/version.info", 1 << 14) or b"").decode(errors="replace")
    return field(text, "package_version", "Version")


def _cann(machine: Machine) -> str:
    """Return the version of the CANN toolkit, whose files lie in a directory by architecture."""
    for toolkit in TOOLKITS:
        for part in machine.names(toolkit):
            if part.endswith("-linux"):
                path = f"{toolkit}/{part}/ascend_toolkit_install.info"
                version = field((machine.read(path, 1 << 14) or b"").decode(errors="replace"), "version")
                if version:
                    return version
    return ""
