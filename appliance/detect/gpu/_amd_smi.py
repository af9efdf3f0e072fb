"""The answers of AMD's tools: amd-smi as JSON and as its table, rocm-smi as JSON and as its short list."""

import dataclasses
import re
from typing import Final

from appliance.detect.gpu import _kfd, _rocm
from appliance.detect.gpu._pci import address
from appliance.detect.gpu._text import cells, field, first_json, free, inner, lines, objects, size, used, whole, word
from appliance.domain.host import Gpu

VENDOR: Final = "amd"
FOREIGN: Final = re.compile(r"\b[HD]CU\b|\bvram Total")
"""Words of the rocm-smi in Hygon's kit; AMD's writes VRAM."""
UNNAMED: Final = "AMD GPU"
BOARD: Final = re.compile(r"([0-9a-fA-F]{2,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])\s*(.*)")
INDICES: Final = re.compile(r"([0-9]{1,3})(?:\s+(\S+))?.*")
SHORT: Final = re.compile(r"\s*([0-9]{1,3})\s+(?:[0-9]{1,3}\s+)?(0x[0-9a-fA-F]{4})?.*[0-9]%.*")


def parse_json(text: str) -> tuple[Gpu, ...]:
    """Read `amd-smi static|metric|list --json`: a list, or since ROCm 7 an object that holds it."""
    data = first_json(text)
    entries = objects(inner(data, "gpu_data") or data)
    found = [_entry(entry) for entry in entries if whole(entry.get("gpu")) is not None]
    return tuple(unified(gpu) for gpu in found)


def json_version(text: str) -> str:
    """Return the version of the kernel driver that `amd-smi static --driver --json` tells."""
    data = first_json(text)
    for entry in objects(inner(data, "gpu_data") or data):
        said = word(inner(entry, "driver", "version")) or word(inner(entry, "driver", "driver_version"))
        if said:
            return said
    return ""


def _entry(entry: dict[str, object]) -> Gpu:
    total = size(inner(entry, "vram", "size"), "MB") or size(inner(entry, "mem_usage", "total_vram"), "MB")
    held, left = (size(inner(entry, "mem_usage", key), "MB") for key in ("used_vram", "free_vram"))
    return Gpu(
        vendor=VENDOR,
        index=whole(entry.get("gpu")) or 0,
        uuid=word(entry.get("hip_uuid")) or _serial(word(inner(entry, "asic", "asic_serial"))),
        name=word(inner(entry, "asic", "market_name")) or word(inner(entry, "board", "product_name")),
        memory=total,
        memory_free=free(total, held) if left is None else left,
        architecture=word(inner(entry, "asic", "target_graphics_version")).split(":")[0].lower(),
        bus_id=address(word(inner(entry, "bus", "bdf")) or word(entry.get("bdf"))),
        numa_node=whole(inner(entry, "numa", "node")),
    )


def _serial(text: str) -> str:
    """Return a serial number, which is the chip's unique id, as ROCR_VISIBLE_DEVICES takes it."""
    found = re.fullmatch(r"0x([0-9a-f]{1,16})", text.lower())
    return f"GPU-{int(found[1], 16):016x}" if found and int(found[1], 16) else ""


def parse_table(text: str) -> tuple[Gpu, ...]:
    """Read what plain `amd-smi` prints since 26: two rows for each GPU, the address first, the memory below it."""
    found: list[Gpu] = []
    below = False
    for row in map(cells, lines(text)):
        board = BOARD.fullmatch(row[0]) if row else None
        if board:
            found.append(Gpu(vendor=VENDOR, index=len(found), uuid="", name=board[2], memory=None,
                             bus_id=address(board[1])))  # fmt: skip
            below = True
        elif below and len(row) > 1 and (indices := INDICES.fullmatch(row[0])):
            found[-1] = _second_row(found[-1], indices, row[-1])
            below = False
    return tuple(unified(gpu) for gpu in found)


def _second_row(gpu: Gpu, indices: re.Match[str], rest: str) -> Gpu:
    hip = whole(indices[2])
    held, total = next(reversed(used(rest)), (None, None))
    return dataclasses.replace(
        gpu,
        index=int(indices[1]),
        # HIP counts in an order of its own, and its number is what HIP_VISIBLE_DEVICES takes.
        uuid="" if hip is None else str(hip),
        memory=total or None,
        memory_free=free(total or None, held),
    )


def table_versions(text: str) -> tuple[str, str]:
    """Return the kernel driver's version and ROCm's, from the head of the table or of `amd-smi version`."""
    return field(text, "amdgpu version"), field(text, "ROCm version")


def parse_rocm(text: str) -> tuple[Gpu, ...]:
    """Read `rocm-smi … --json`; cards of another vendor that answers through a tool of this name are none of AMD's."""
    if FOREIGN.search(text):
        return ()
    return tuple(unified(gpu) for gpu in _rocm.gpus(VENDOR, _rocm.cards(text)))


def parse_short(text: str) -> tuple[Gpu, ...]:
    """Read the list that plain rocm-smi prints: it has a device id for a name, and memory as a percentage only."""
    found, inside = [], False
    for line in lines(text):
        # Hygon's list is of the same make, and counts DCUs.
        inside = (inside or ("VRAM%" in line and "GPU%" in line)) and "End of" not in line
        row = SHORT.fullmatch(line) if inside else None
        if row:
            found.append(
                Gpu(vendor=VENDOR, index=int(row[1]), uuid="", name=row[2].lower() if row[2] else UNNAMED, memory=None)
            )
    return tuple(found)


def unified(gpu: Gpu) -> Gpu:
    """Return the GPU as one that shares the machine's memory, if it is such a one."""
    if not _kfd.integrated(gpu.architecture, gpu.name):
        return gpu
    memory = _kfd.own(gpu.memory, None)
    return dataclasses.replace(gpu, unified=True, memory=memory, memory_free=gpu.memory_free if memory else None)
