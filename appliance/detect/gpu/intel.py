"""Intel GPUs by xpu-smi, or by the SYCL runtime's sycl-ls."""

import csv
import dataclasses
import re
from collections.abc import Iterator
from typing import Final

from appliance.detect.gpu import Found, _pci
from appliance.detect.gpu._ask import LATE, Remedies, ask, best, locate, silent, trouble
from appliance.detect.gpu._text import cells, first_json, inner, lines, objects, size, whole, word
from appliance.domain.changes import Completed
from appliance.domain.host import Driver, Gpu
from appliance.system.machine import Machine

VENDOR: Final = "intel"
PCI: Final = ("8086",)
TOOLS: Final = ("xpu-smi", "sycl-ls")
MODULES: Final = ("xe", "i915")
ONEAPI: Final = "/opt/intel/oneapi/compiler/latest"
DIRECTORIES: Final = ("/usr/local/bin", "/opt/xpum/bin", f"{ONEAPI}/bin")
DUMP: Final = ("discovery", "--dump", "1,2,4,8,11,16")
"""Number, name, UUID, driver, PCI address, memory: the only question that tells the memory of all at once."""
ONBOARD: Final = "0000:00:02.0"
"""Where Intel's processors have their graphics."""
DISCRETE: Final = re.compile(
    r"Arc(\(TM\))?\s+(Pro\s+)?[AB][0-9]{2,3}\b|Data Center GPU|Iris.*\bMAX\b|\[0x0?(20[0-9a-f]|b[6d][0-9a-f]|490[5-9]|"
    r"56[0-9a-f]{2}|e2[0-9a-f]{2})\]",
    re.IGNORECASE,
)
"""Names of cards, and the device ids of those that a driver has no name for: ATS, PVC, DG1, DG2, BMG."""
SYCL: Final = re.compile(r"\[(?:ext_oneapi_)?level_zero:gpu(?::([0-9]{1,3}))?\](?:\[level_zero:([0-9]{1,3})\])?\s*(.*)")
GROUPS: Final = "sudo usermod -aG render,video $USER, then log in again; in a container, hand in /dev/dri"
INSTALL: Final = "install Intel's compute runtime (libze-intel-gpu1, libze1, intel-opencl-icd) and xpu-smi"
LOAD: Final = "sudo modprobe xe (i915 for older cards); a card newer than the kernel needs a newer one"
REMEDIES: Final[Remedies] = (
    ("permission", GROUPS),
    ("no device discovered", GROUPS),
    ("level zero", INSTALL),
    ("level-zero", INSTALL),
    ("ze_result", INSTALL),
)


def probe(machine: Machine, present: bool) -> Found:
    """Ask the tools; without them, look on the bus for cards. A processor's own graphics is no broken accelerator."""
    cards = _cards(machine) if present else ()
    found = best(_answers(machine), parse, INSTALL)
    if found.driver is None and not present:
        return Found()
    driver = found.driver or Driver(vendor=VENDOR)
    if cards:
        driver = _judge(machine, cards, found)
    elif not found.gpus and not found.silent:
        # Nothing that should be listed is missing; and another vendor has an xpu-smi too.
        driver = Driver(vendor=VENDOR)
        if not present:
            return Found()
    driver = dataclasses.replace(driver, version=driver.version or _pci.module_version(machine, *MODULES))
    return Found(gpus=_pci.placed(machine, found.gpus), driver=driver, silent=found.silent)


def parse(done: Completed) -> Found:
    """Read one answer of xpu-smi or sycl-ls, in whichever of their forms."""
    readers = (parse_dump, parse_json, parse_table, parse_sycl)
    told = next(filter(None, (read(done.stdout) for read in readers)), ())
    if not told or done.code == LATE:
        return Found(driver=trouble(VENDOR, done, REMEDIES, INSTALL), silent=silent(done))
    driver = Driver(vendor=VENDOR, version=driver_version(done.stdout), api=level_zero_version(done.stdout))
    return Found(gpus=told, driver=driver, silent=silent(done))


def parse_dump(text: str) -> tuple[Gpu, ...]:
    """Read `xpu-smi discovery --dump …`: CSV, of which the first line names the columns."""
    head: list[str] = []
    found = []
    for row in _csv(text):
        if row and row[0] == "Device ID":
            head = row
        elif head and row and whole(row[0]) is not None:
            found.append(_gpu(_keyed(dict(zip(head, row, strict=False)))))
    return tuple(found)


def parse_json(text: str) -> tuple[Gpu, ...]:
    """Read `xpu-smi discovery -j`, of all devices or of one."""
    data = first_json(text)
    devices = objects(inner(data, "device_list") or inner(data, "devices") or data)
    return tuple(_gpu(device) for device in devices if "device_name" in device or "device_id" in device)


def parse_table(text: str) -> tuple[Gpu, ...]:
    """Read `xpu-smi discovery`: a number, and beside it lines of `Name: value`, the last one perhaps cut."""
    found: list[dict[str, object]] = []
    for row in map(cells, lines(text)):
        if len(row) < 2 or ":" not in row[1]:
            continue
        if whole(row[0]) is not None:
            found.append({"device_id": row[0]})
        if found:
            name, _colon, said = row[1].partition(":")
            found[-1].setdefault(_key(name), said.strip())
    return tuple(_gpu(device) for device in found if "device_name" in device)


def parse_sycl(text: str) -> tuple[Gpu, ...]:
    """Read sycl-ls: only the rows of Level Zero's GPUs, since OpenCL lists them again, and processors too."""
    found: list[Gpu] = []
    for row in filter(None, map(SYCL.match, lines(text))):
        number = int(row[2] or row[1] or len(found))
        index = number if number not in {gpu.index for gpu in found} else max(gpu.index for gpu in found) + 1
        found.append(_gpu({"device_id": str(index), "device_name": _device(row[3])}))
    return tuple(found)


def driver_version(text: str) -> str:
    """Return the kernel driver's version as xpu-smi tells it, of the first device that has one."""
    data = first_json(text)
    devices = objects(inner(data, "device_list") or data)
    rows = [row for row in _csv(text) if row]
    head = next((row for row in rows if row[0] == "Device ID"), [])
    devices += [_keyed(dict(zip(head, row, strict=False))) for row in rows if head and row != head]
    return next(filter(None, (word(device.get("driver_version")) for device in devices)), "")


def level_zero_version(text: str) -> str:
    """Return the version in brackets at the end of a GPU's row of sycl-ls, the compute runtime's."""
    rows = [row[3] for row in map(SYCL.match, lines(text)) if row]
    found = (re.search(r"\[([0-9]+(?:\.[0-9]+)+[^\]\s]{0,20})\]", row) for row in rows)
    return next((match[1] for match in found if match), "")


def _device(text: str) -> str:
    """Return the name: behind the platform's, before the hardware's version and the runtime's, or the cut."""
    name = text.split(", ", 1)[-1].replace("…", "").strip()
    name = re.sub(r"\s*\[[0-9][^\]]*\]?$", "", name) if not re.search(r"\[0x[0-9a-fA-F]*\]$", name) else name
    return re.sub(r"\s+[0-9]+(\.[0-9]+)+$", "", name).strip()


def _gpu(device: dict[str, object]) -> Gpu:
    index = whole(device.get("device_id")) or 0
    name = word(device.get("device_name"))
    bus_id = _pci.address(word(device.get("pci_bdf_address")))
    total = size(device.get("memory_physical_size_byte"), "B") or size(device.get("memory_physical_size"))
    onboard = not DISCRETE.search(name) and bus_id in ("", ONBOARD)
    return Gpu(
        vendor=VENDOR,
        index=index,
        # ZE_AFFINITY_MASK and ONEAPI_DEVICE_SELECTOR take the number; no variable takes the UUID.
        uuid=str(index),
        name=name,
        memory=None if onboard else total,
        bus_id=bus_id,
        unified=onboard,
    )


def _csv(text: str) -> list[list[str]]:
    try:
        return [[cell.strip() for cell in row] for row in csv.reader(lines(text), skipinitialspace=True)]
    except csv.Error:
        return []


def _keyed(row: dict[str, str]) -> dict[str, object]:
    return {_key(name): said for name, said in row.items()}


def _key(name: str) -> str:
    """Return a column's name as the JSON has it."""
    return re.sub(r"\W+", "_", name.strip().lower()).strip("_")


def _cards(machine: Machine) -> tuple[_pci.Device, ...]:
    """Return the displays that are no part of a processor; Intel's other accelerators (QAT, NPU) are not for models."""
    devices = _pci.devices(machine, PCI)
    return tuple(device for device in devices if device.bus_id != ONBOARD and device.kind.startswith("03"))


def _answers(machine: Machine) -> Iterator[Completed]:
    smi, sycl = (locate(machine, tool, *DIRECTORIES) for tool in TOOLS)
    if smi:
        yield ask(machine, smi, *DUMP)
        yield ask(machine, smi, "discovery", "-j")
    if sycl:
        # Its libraries are found by what oneAPI's setvars.sh exports, which we have not.
        yield ask(machine, sycl, env=(("LD_LIBRARY_PATH", f"{ONEAPI}/lib"),))


def _judge(machine: Machine, cards: tuple[_pci.Device, ...], found: Found) -> Driver:
    """Return the driver of the cards on the bus: what no kernel module drives, no tool can list."""
    driver = found.driver or Driver(vendor=VENDOR)
    driven = _pci.bound(machine, *MODULES, "vfio-pci")
    idle = ", ".join(card.bus_id for card in cards if card.bus_id not in driven)
    if idle:
        return dataclasses.replace(driver, failure=f"neither xe nor i915 drives {idle}", remedy=LOAD)
    if found.driver is None:
        failure = f"neither xpu-smi nor sycl-ls is installed, to tell of {len(cards)} card(s) on the PCI bus"
        return dataclasses.replace(driver, failure=failure, remedy=INSTALL)
    return driver
