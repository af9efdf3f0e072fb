"""Moore Threads GPUs by `mthreads-gmi`."""

import dataclasses
import re
from typing import Final

from appliance.detect.gpu import Found, _pci
from appliance.detect.gpu._ask import LATE, Remedies, ask, locate, placeless, silent, trouble
from appliance.detect.gpu._text import cells, field, free, lines, size
from appliance.domain.changes import Completed
from appliance.domain.host import Driver, Gpu
from appliance.system.machine import Machine

VENDOR: Final = "moore-threads"
PCI: Final = ("1ed5",)
TOOLS: Final = ("mthreads-gmi",)
MODULES: Final = ("mtgpu",)
DIRECTORIES: Final = ("/usr/local/musa/bin", "/usr/local/bin", "/opt/mthreads/bin")
CARD: Final = re.compile(r"([0-9]{1,3})\s+(\S.*)")
MEMORY: Final = re.compile(r"([0-9][0-9,.]{0,23}\s*[KMGT]i?B)?\s{0,8}\(\s*([0-9][0-9,.]{0,23}\s*[KMGT]i?B)\s*\)")
"""Used, then the total in brackets: `0MiB(81920MiB)`."""
LOAD: Final = "sudo modprobe mtgpu; if there is no such module, install the musa driver package, then reboot"
GROUPS: Final = "sudo usermod -aG render,video $USER, log in again; just after the module was loaded, ask once more"
REMEDIES: Final[Remedies] = (
    ("no mt gpu device", "turn the IOMMU on in the firmware and on the kernel's command line, then reboot"),
    ("failed to initialize mtml", GROUPS),
    ("permission", GROUPS),
)


def probe(machine: Machine, present: bool) -> Found:
    """Ask mthreads-gmi, if there is any sign of Moore Threads."""
    tool = locate(machine, TOOLS[0], *DIRECTORIES)
    module = _pci.loaded(machine, *MODULES)
    if not (tool or present or module):
        return Found()
    if not tool:
        failure = "mthreads-gmi is not installed" if module else "the kernel module mtgpu is not loaded"
        remedy = "install the musa driver package; in a container, set up mt-container-toolkit" if module else LOAD
        found = Found(driver=Driver(vendor=VENDOR, failure=failure, remedy=remedy))
    else:
        found = parse(ask(machine, tool))
    driver = placeless(found.driver or Driver(vendor=VENDOR), bool(present or module))
    driver = dataclasses.replace(
        driver,
        version=driver.version or _pci.module_version(machine, *MODULES),
        api=driver.api or _musa(machine),
    )
    return Found(gpus=_pci.placed(machine, found.gpus), driver=driver, silent=found.silent)


def parse(done: Completed) -> Found:
    """Read the answer of plain `mthreads-gmi`, 1.x or 2.x."""
    gpus = parse_table(done.stdout)
    driver = Driver(vendor=VENDOR) if gpus and done.code != LATE else trouble(VENDOR, done, REMEDIES, LOAD)
    driver = dataclasses.replace(
        driver, version=field(done.stdout, "Driver Version"), api=field(done.stdout, "MUSA Version")
    )
    return Found(gpus=gpus, driver=driver, silent=silent(done))


def parse_table(text: str) -> tuple[Gpu, ...]:
    """Read the first of the rows of each GPU: number and name, address, load and memory."""
    found = []
    for row in map(cells, lines(text)):
        card = CARD.fullmatch(row[0]) if len(row) > 1 else None
        if card and _pci.address(row[1]):
            found.append(_gpu(int(card[1]), card[2].strip(), row))
    return tuple(found)


def _gpu(index: int, name: str, row: list[str]) -> Gpu:
    memory = MEMORY.search(" ".join(row[2:]))
    total = size(memory[2]) if memory else None
    return Gpu(
        vendor=VENDOR,
        index=index,
        uuid=str(index),
        name=name,
        memory=total,
        memory_free=free(total, size(memory[1]) if memory and memory[1] else None),
        bus_id=_pci.address(row[1]),
    )


def _musa(machine: Machine) -> str:
    """Return the version of the MUSA kit, the first one in its list of parts."""
    text = (machine.read("/usr/local/musa/version.json", 1 << 16) or b"").decode(errors="replace")
    found = re.search(r'"version"\s*:\s*"v?([0-9][0-9A-Za-z.+-]{0,40})"', text)
    return found[1] if found else ""
