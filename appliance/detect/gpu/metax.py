"""MetaX GPUs by `mx-smi`."""

import dataclasses
import re
from typing import Final

from appliance.detect.gpu import Found, _pci
from appliance.detect.gpu._ask import LATE, Remedies, ask, locate, placeless, silent, trouble
from appliance.detect.gpu._text import cells, field, free, lines, used
from appliance.domain.changes import Completed
from appliance.domain.host import Driver, Gpu
from appliance.system.machine import Machine

VENDOR: Final = "metax"
PCI: Final = ("9999",)
TOOLS: Final = ("mx-smi",)
MODULES: Final = ("metax",)
DIRECTORIES: Final = (
    "/opt/mxdriver/bin", "/usr/local/metax/mxdriver/bin", "/opt/maca/bin", "/opt/mxn100/bin",
)  # fmt: skip
BOARD: Final = re.compile(r"(?:([0-9]{1,3})\s+)?(\S.*?)?(?:\s{2,}(?:On|Off|N/A))?")
"""Number, name, and from 2.2.6 on the persistence mode. From 2.2.9 on the number is the board's."""
NUMBER: Final = re.compile(r"([0-9]{1,3})\b.*")
LOAD: Final = "sudo modprobe metax; if there is no such module, install MetaX' driver package, then reboot"
HAND_IN: Final = "install MetaX' driver package; in a container, hand in /opt/mxdriver, /dev/mxcd and /dev/dri"
GROUPS: Final = "sudo usermod -aG video,render $USER, then log in again"
REMEDIES: Final[Remedies] = (("permission", GROUPS), ("not permitted", GROUPS), ("no such file", HAND_IN))


def probe(machine: Machine, present: bool) -> Found:
    """Ask mx-smi, if there is any sign of MetaX."""
    tool = locate(machine, TOOLS[0], *DIRECTORIES)
    module = _pci.loaded(machine, *MODULES)
    if not (tool or present or module or "mxcd" in machine.names("/dev")):
        return Found()
    if not tool:
        failure = "mx-smi is not installed" if module else "the kernel module metax is not loaded"
        found = Found(driver=Driver(vendor=VENDOR, failure=failure, remedy=HAND_IN if module else LOAD))
    else:
        found = parse(ask(machine, tool))
    driver = placeless(found.driver or Driver(vendor=VENDOR), bool(present or module))
    version = driver.version or _pci.module_version(machine, *MODULES)
    return Found(
        gpus=_pci.placed(machine, found.gpus),
        driver=dataclasses.replace(driver, version=version),
        silent=found.silent,
    )


def parse(done: Completed) -> Found:
    """Read the answer of plain `mx-smi`."""
    text = done.stdout
    gpus = parse_table(text)
    driver = Driver(vendor=VENDOR) if gpus and done.code != LATE else trouble(VENDOR, done, REMEDIES, LOAD)
    driver = dataclasses.replace(
        driver,
        version=field(text, "Kernel Mode Driver Version", "KMD Version", "Driver Version"),
        # `unknown` where the kit is not installed: the driver works without.
        api=field(text, "MACA Version"),
    )
    return Found(gpus=gpus, driver=driver, silent=silent(done))


def parse_table(text: str) -> tuple[Gpu, ...]:
    """Read two rows for each GPU: one has the address, the next one the memory."""
    found: list[Gpu] = []
    below = False
    for row in map(cells, lines(text)):
        place = next((place for place, cell in enumerate(row) if _pci.address(cell)), 0)
        if place:
            found.append(_board(row, place, found))
            below = True
        elif below and row:
            found[-1] = _second_row(found[-1], row)
            below = False
    return tuple(found)


def _board(row: list[str], place: int, before: list[Gpu]) -> Gpu:
    board = BOARD.fullmatch(row[0])
    number = NUMBER.fullmatch(row[place - 1]) if place > 1 else board
    index = int(number[1]) if number and number[1] else len(before)
    # A board with two GPUs is named once.
    name = (board[2] if board else "") or (before[-1].name if before else "")
    return Gpu(
        vendor=VENDOR,
        index=index,
        uuid=str(index),
        name=name,
        memory=None,
        bus_id=_pci.address(row[place]),
    )


def _second_row(gpu: Gpu, row: list[str]) -> Gpu:
    pairs = [pair for cell in row if re.search(r"[0-9]\s*[KMGT]i?B", cell) for pair in used(cell)]
    held, total = next((pair for pair in pairs if pair[1]), (None, None))
    state = row[3] if len(row) > 3 else row[2] if len(row) > 2 else ""
    failure = (
        f"mx-smi reports state {state}" if re.search(r"unavailable|not |error|fault", state, re.IGNORECASE) else ""
    )
    return dataclasses.replace(gpu, memory=total, memory_free=free(total, held), failure=failure)
