"""The cells that nvidia-smi prints: a value, or one of its many words for none."""

import re
from dataclasses import dataclass
from typing import Final

ABSENT: Final = frozenset({
    "", "-", "N/A", "UNKNOWN", "NOT SUPPORTED", "NOT AVAILABLE", "NOT FOUND", "INSUFFICIENT PERMISSIONS",
})  # fmt: skip
"""Written with and without brackets, depending on the place and on the driver."""
BROKEN: Final = re.compile(r"requires reset|is lost|fallen off the bus|unknown error|\berr!", re.IGNORECASE)
_QUANTITY: Final = re.compile(r"([0-9]{1,9})(?:\.[0-9]{1,9})?\s*(B|KiB|MiB|GiB|)", re.ASCII)
_SCALE: Final = {"B": 0, "KiB": 10, "MiB": 20, "": 20, "GiB": 30}
_BUS: Final = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", re.IGNORECASE)
_VERSION: Final = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,5}){1,3}")
_COUNT: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one source tells of one GPU; the empty value is what it does not tell."""

    index: int
    uuid: str = ""
    name: str = ""
    memory: int | None = None
    """Bytes."""
    memory_free: int | None = None
    """Bytes."""
    capability: str = ""
    mig: bool = False
    bus_id: str = ""
    driver: str = ""
    failure: str = ""


def told(cell: str) -> str:
    """Return the text of a cell, "" where it holds no value: what stands in brackets is never one."""
    text = cell.strip()
    return "" if text.startswith("[") or text.upper() in ABSENT or BROKEN.search(text) else text


def broken(cell: str) -> str:
    """Return what a cell says of a GPU that does not work any more, `requires reset`, else ""."""
    text = cell.strip().strip("[]")
    return text.removeprefix("GPU ").removeprefix("is ").strip() if BROKEN.search(text) else ""


def size(cell: str) -> int | None:
    """Return the bytes of `81920`, `81920 MiB` or `81920MiB`; a number alone counts MiB."""
    match = _QUANTITY.fullmatch(cell.strip())
    return int(match[1]) << _SCALE[match[2]] if match else None


def count(cell: str) -> int | None:
    """Return a number without a sign or a fraction."""
    text = cell.strip()
    return int(text) if _COUNT.fullmatch(text) else None


def version(cell: str) -> str:
    """Return `550.54.15` or `8.9`, "" where the cell is no such thing."""
    text = cell.strip()
    return text if _VERSION.fullmatch(text) else ""


def bus_id(cell: str) -> str:
    """Return a PCI address as sysfs writes it: `0000000F:01:00.0` -> `000f:01:00.0`; "" where it is none."""
    match = _BUS.fullmatch(cell.strip())
    return f"{int(match[1] or '0', 16):04x}:{match[2].lower()}" if match else ""
