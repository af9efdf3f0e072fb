"""`nvidia-smi --query-gpu` and `--query-compute-apps`: one row of comma-separated cells for each GPU or process."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from appliance.detect.gpu.nvidia.cells import Seen, broken, bus_id, count, size, told, version
from appliance.domain.host import GpuProcess

FIELDS: Final = (
    "index", "uuid", "name", "memory.total", "memory.free", "compute_cap", "mig.mode.current", "pci.bus_id",
    "driver_version", "pstate", "temperature.gpu",
)  # fmt: skip
"""The last two are asked because `[GPU requires reset]` stands there while memory looks all right.
`compute_cap` is unknown before driver 510 or so, `mig.mode.current` before 450."""
VITAL: Final = ("uuid", "name", "memory.total", "memory.free", "pstate", "temperature.gpu")
"""An `[Unknown Error]` in these means the GPU; elsewhere it may be a thing that this model does not have."""
FORMAT: Final = "--format=csv,noheader,nounits"
APPS: Final = ("--query-compute-apps=gpu_uuid,pid,process_name,used_memory", FORMAT)

_UNKNOWN: Final = re.compile(r'Field "([^"\n]*)" is not a valid field to query')
_TITLE: Final = re.compile(r"[a-z_]+(?:\.[a-z_]+)*(?: \[[^\]]*\])?")
_UUID: Final = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/-]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def gpus(fields: Sequence[str] = FIELDS, only: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the words that ask for `fields`; `only` names the GPUs by PCI address, () = all of them."""
    return (f"--query-gpu={','.join(fields)}", FORMAT, *((f"--id={','.join(only)}",) if only else ()))


def unknown(text: str) -> frozenset[str]:
    """Return the fields that this driver does not know: it names the first of them and tells nothing else."""
    return frozenset(_UNKNOWN.findall(text))


def parse(text: str, fields: Sequence[str] = FIELDS) -> tuple[Seen, ...]:
    """Read the rows; a header changes what the cells are, and a line that is neither is some warning."""
    rows: list[Seen] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if titles := _titles(cells):
            fields = titles
        elif row := _row(cells, fields):
            rows.append(_seen(row, len(rows)))
    return tuple(rows)


def parse_apps(text: str) -> tuple[tuple[str, GpuProcess], ...]:
    """Return (UUID of the GPU or of its slice, process); a name may hold commas."""
    apps: list[tuple[str, GpuProcess]] = []
    for line in text.splitlines():
        head, _, memory = line.rpartition(",")
        uuid, pid, name = [cell.strip() for cell in (*head.split(",", 2), "", "")][:3]
        number = count(pid)
        if number is not None and _UUID.fullmatch(uuid):
            apps.append((uuid, GpuProcess(pid=number, name=told(name), memory=size(memory))))
    return tuple(apps)


def _titles(cells: Sequence[str]) -> tuple[str, ...]:
    names = tuple(cell.partition(" ")[0] for cell in cells)
    return names if all(map(_TITLE.fullmatch, cells)) and set(names) & set(FIELDS) else ()


def _row(cells: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    more = len(cells) - len(fields)
    if more > 0 and "name" in fields:  # commas in the name
        at = fields.index("name")
        cells = (*cells[:at], ", ".join(cells[at : at + more + 1]), *cells[at + more + 1 :])
    row = dict(zip(fields, cells, strict=False)) if len(cells) == len(fields) else {}
    named = {"index", "uuid"} & row.keys()
    return row if not named or count(row.get("index", "")) is not None or _UUID.fullmatch(row.get("uuid", "")) else {}


def _seen(row: Mapping[str, str], position: int) -> Seen:
    index = count(row.get("index", ""))
    return Seen(
        index=position if index is None else index,
        uuid=told(row.get("uuid", "")),
        name=told(row.get("name", "")),
        memory=size(row.get("memory.total", "")) or None,
        memory_free=size(row.get("memory.free", "")),
        capability=version(row.get("compute_cap", "")),
        mig=row.get("mig.mode.current", "").lower() == "enabled",
        bus_id=bus_id(row.get("pci.bus_id", "")),
        driver=version(row.get("driver_version", "")),
        failure=_failure(row),
    )


def _failure(row: Mapping[str, str]) -> str:
    certain = (found for cell in row.values() if (found := broken(cell)) and "nknown" not in found)
    vital = (found for field in VITAL if (found := broken(row.get(field, ""))))
    return next(certain, "") or next(vital, "")
