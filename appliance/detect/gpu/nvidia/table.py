"""The table that nvidia-smi prints without arguments: versions, GPUs, MIG devices, processes.

The widths of its columns change from driver to driver, so only the bars between cells and the words in them count.
A GPU takes two lines, three since MIG; MIG devices and processes begin with a GPU's index, too, and are no GPUs.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.detect.gpu.nvidia.cells import BROKEN, Seen, broken, bus_id, size, told, version
from appliance.domain.host import GpuProcess

_DRIVER: Final = re.compile(r"\b(?:Driver|KMD) Version:\s*([0-9.]+)")
_CUDA: Final = re.compile(r"\bCUDA (?:UMD )?Version:\s*([0-9.]+)")
"""`KMD Version` and `CUDA UMD Version` since driver 610."""
_NAME: Final = re.compile(r"([0-9]{1,3})\s+(\S.*)")
_MODE: Final = re.compile(r"\s+(On|Off|N/A|WDDM|TCC|MCDM|Enabled|Disabled|ERR!)$")
"""Persistence mode, or what Windows drives the card with."""
_STATUS: Final = re.compile(
    r"(N/A|[0-9]+\s?%|ERR!|Unknown)\s+(N/A|-?[0-9]+\s?C|ERR!|Unknown)\s+(N/A|P[0-9]+|ERR!|Unknown)(?!\S)",
)
"""Fan, temperature, performance state."""
_USAGE: Final = re.compile(r"([0-9]{1,9}\s*MiB)\s*/\s*([0-9]{1,9}\s*MiB)")
_MIG: Final = re.compile(r"([0-9]{1,3})\s+[0-9]{1,3}\s+[0-9]{1,3}\s+([0-9]{1,3})")
_PROCESS: Final = re.compile(
    r"([0-9]{1,3})\s+(?:(?:[0-9]+|N/A)\s+(?:[0-9]+|N/A)\s+)?([0-9]{1,9})\s+[CGM](?:\+[CGM])*\s+(\S.*)",
)
"""GPU, instances (since MIG), pid, type, name and memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What the table tells."""

    driver: str = ""
    api: str = ""
    """Newest CUDA that the driver can do."""
    gpus: tuple[Seen, ...] = ()
    slices: tuple[tuple[int, int, int, int], ...] = ()
    """(GPU, number of the MIG device on it, bytes of memory, bytes of it in use)."""
    processes: tuple[tuple[int, GpuProcess], ...] = ()
    """(GPU, process)."""


def parse(text: str) -> Table:
    """Read a table, or as much of it as there is."""
    parts: dict[str, list[str]] = {"gpus": [], "mig": [], "processes": []}
    part = "gpus"
    for line in text.splitlines():
        part = "mig" if "MIG devices:" in line else "processes" if "Processes:" in line else part
        parts[part].append(line)
    driver, cuda = _DRIVER.search(text), _CUDA.search(text)
    return Table(
        driver=version(driver[1]) if driver else "",
        api=version(cuda[1]) if cuda else "",
        gpus=_gpus(parts["gpus"]),
        slices=tuple(_slices(parts["mig"])),
        processes=tuple(_processes(parts["processes"])),
    )


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def _gpus(lines: Sequence[str]) -> tuple[Seen, ...]:
    gpus: list[Seen] = []
    complete = True
    """The last GPU has its second line, so that another such line is a GPU whose first is cut off."""
    for line in lines:
        cells = _cells(line)
        if named := _named(cells):
            gpus.append(named)
            complete = False
        elif _STATUS.match(cells[0]):
            gpus = [*gpus, Seen(index=len(gpus))] if complete else gpus
            gpus[-1] = _status(gpus[-1], line)
            complete = True
        elif gpus and len(cells) == 3 and not cells[0] and not cells[1]:
            gpus[-1] = replace(gpus[-1], mig=cells[2].startswith("Enabled"))
    return tuple(gpus)


def _named(cells: Sequence[str]) -> Seen | None:
    """Read `0  NVIDIA A100-SXM4-80GB  On | 00000000:07:00.0 Off | 0`."""
    match = _NAME.fullmatch(cells[0])
    where = cells[1].split() if len(cells) > 1 else []
    if not match or not where or not (bus_id(where[0]) or where[0].upper() in {"N/A", "ERR!"}):
        return None
    name = _MODE.sub("", match[2]).strip()
    return Seen(index=int(match[1]), name=told(name), bus_id=bus_id(where[0]), failure=broken(name))


def _status(gpu: Seen, line: str) -> Seen:
    """Add `N/A  30C  P0  63W / 400W | 0MiB / 81920MiB | 0% Default`.

    A sensor of the fan or of the power that fails leaves a GPU that computes; temperature and performance state tell
    of one that does not answer any more.
    """
    status = _STATUS.match(_cells(line)[0])
    usage = _USAGE.search(line)
    used, total = (size(usage[1]), size(usage[2])) if usage else (None, None)
    lost = next((broken(cell) for cell in _cells(line)[1:2] if BROKEN.search(cell)), "")
    failing = "ERR!" if status and "ERR!" in status.groups()[1:] else ""
    return replace(
        gpu,
        memory=total or None,
        memory_free=max(total - used, 0) if total and used is not None else None,
        failure=gpu.failure or lost or failing,
    )


def _slices(lines: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    """Read `0  7  0  1 | 12MiB / 9856MiB | 14  0 | 1 0 0 0 0`: GPU, GPU instance, compute instance, MIG device."""
    for line in lines:
        cells = _cells(line)
        match, usage = _MIG.fullmatch(cells[0]), _USAGE.search(line)
        total = size(usage[2]) if usage else None
        if match and usage and total:
            yield int(match[1]), int(match[2]), total, size(usage[1]) or 0


def _processes(lines: Sequence[str]) -> Iterator[tuple[int, GpuProcess]]:
    for line in lines:
        if match := _PROCESS.fullmatch(" ".join(_cells(line))):
            name, _, last = match[3].rpartition(" ")
            memory = size(last) if last.endswith("MiB") else None
            whole = match[3] if memory is None and told(last) else name
            yield int(match[1]), GpuProcess(pid=int(match[2]), name=told(whole), memory=memory)
