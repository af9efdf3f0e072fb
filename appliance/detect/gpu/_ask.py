"""How a vendor's tool is looked for and asked, and what is said when it does not answer well."""

import dataclasses
import posixpath
import re
from collections.abc import Callable, Iterable
from typing import Final

from appliance.detect.gpu import Found
from appliance.detect.gpu._text import lines
from appliance.domain.changes import Command, Completed
from appliance.domain.host import Driver
from appliance.system.machine import Machine

TIMEOUT: Final = 5
"""Seconds for one question. A driver that hangs takes its tools with it."""
LONGEST: Final = 200
"""Characters of a tool's complaint that are kept."""
ABSENT: Final = 127
LATE: Final = 124
COMPLAINTS: Final = re.compile(
    r"error|fail|unable|cannot|can't|denied|not permitted|missing|not found|no such|no device|not loaded|invalid|"
    r"unrecognized|exception|usage:",
    re.IGNORECASE,
)
DECORATION: Final = re.compile(r"[-=+|*\s]*")
HANGS: Final = "its driver hangs: look into `dmesg`, then reset the device or reboot"
LIBRARIES: Final = "its libraries are not found: install the driver, or hand it into this container"

Remedies = tuple[tuple[str, str], ...]
"""(what the tool says, in lower case; what mends it), the first that fits counts."""


def locate(machine: Machine, program: str, *directories: str) -> str:
    """Return how to call a program: by its name on PATH, by its path in one of `directories`; "" = it is not there."""
    if machine.which(program):
        return program
    return next((f"{place}/{program}" for place in directories if program in machine.names(place)), "")


def ask(machine: Machine, *argv: str, env: tuple[tuple[str, str], ...] = ()) -> Completed:
    """Run a tool; it has `TIMEOUT` seconds."""
    return machine.run(Command(argv=argv, timeout=TIMEOUT, env=env))


def best(answers: Iterable[Completed], parse: Callable[[Completed], Found], unclear: str) -> Found:
    """Ask on until an answer lists GPUs, or comes late, or tells what is wrong: anything but the remedy `unclear`.

    Where none does, the first complaint counts; no driver = there was nobody to ask.
    """
    first: Found | None = None
    for done in answers:
        found = parse(done)
        if found.gpus or found.silent or (found.driver and found.driver.remedy != unclear):
            return found
        first = first or found
    return first or Found()


def silent(*asked: Completed) -> tuple[str, ...]:
    """Return the programs that gave no answer in time."""
    return tuple(dict.fromkeys(posixpath.basename(done.argv[0]) for done in asked if done.code == LATE))


def complaint(done: Completed) -> str:
    """Return the lines, two at most, in which a tool says what is wrong, else its first line, or ""."""
    said = [line.strip() for line in lines(f"{done.stderr}\n{done.stdout}") if not DECORATION.fullmatch(line)]
    telling = list(dict.fromkeys(line for line in said if COMPLAINTS.search(line)))
    return "; ".join(telling[:2] or said[:1])[:LONGEST]


def why(done: Completed) -> str:
    """Return in one line why a tool's answer is no good."""
    program = posixpath.basename(done.argv[0]) if done.argv else "the tool"
    if done.code == LATE:
        return f"{program} gave no answer in {TIMEOUT} s"
    said = complaint(done)
    if done.code == 0:
        return f"{program} lists no device: {said}" if said else f"{program} prints nothing"
    return f"{program} ends with {done.code}: {said}" if said else f"{program} ends with {done.code} and says nothing"


def trouble(vendor: str, done: Completed, remedies: Remedies, otherwise: str) -> Driver:
    """Return the driver that such an answer tells of."""
    text = f"{done.stdout}\n{done.stderr}".lower()
    known = (*remedies, ("error while loading shared libraries", LIBRARIES))
    remedy = next((mends for says, mends in known if says in text), otherwise)
    return Driver(vendor=vendor, failure=why(done), remedy=HANGS if done.code == LATE else remedy)


def placeless(driver: Driver, sign: bool) -> Driver:
    """Return the driver with another remedy where there is a tool that fails, and no other sign of its vendor."""
    if sign or not driver.failure or driver.remedy == HANGS:
        return driver
    remedy = "no such device is on the PCI bus: check its slot or its pass-through, or remove the tool"
    return dataclasses.replace(driver, remedy=remedy)


def root(machine: Machine) -> bool:
    """Tell whether we run as root, whom no group keeps from a device file."""
    status = (machine.read("/proc/self/status") or b"").decode(errors="replace")
    return bool(re.search(r"^Uid:\s+0\s", status, re.MULTILINE))
