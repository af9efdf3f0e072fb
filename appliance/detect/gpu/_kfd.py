"""What amdgpu's compute driver lists in sysfs, on AMD's cards and on Hygon's, whose driver is made after it."""

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

from appliance.detect.gpu._pci import address
from appliance.domain.host import Gpu
from appliance.system.machine import Machine

NODES: Final = "/sys/class/kfd/kfd/topology/nodes"
RENDER: Final = "/sys/class/drm"
OWN: Final = (1, 2)
"""Kinds of a node's memory banks that are the card's own: frame buffer, public and private (0 = the machine's)."""
INTEGRATED: Final = re.compile(r"gfx(801|902|909|90c|1013|103[3567]|1103|115[0-3]|117[0-2])")
"""Processors of AMD that sit on the CPU's die, Carrizo to Strix Halo; gfx942 is told by its name (MI300A)."""
LITTLE: Final = 16 << 30
"""Bytes below which the memory that firmware sets aside for an integrated GPU is taken for the display's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A GPU that the compute driver knows."""

    gpu: Gpu
    shared: int | None
    """Bytes of the machine's memory that it may use (GTT)."""


def architecture(version: int) -> str:
    """Return the compiler's name of a `gfx_target_version`: 90402 -> gfx942, 90010 -> gfx90a, 110000 -> gfx1100."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}" if version > 0 else ""


def integrated(arch: str, name: str) -> bool:
    """Tell whether a processor of this name shares the machine's memory."""
    return bool(INTEGRATED.fullmatch(arch)) or "MI300A" in name.upper()


def own(total: int | None, shared: int | None) -> int | None:
    """Return an integrated GPU's own memory: what firmware set aside, where compute gets that and no more, else None.

    The kernel gives compute whichever is larger, that or the shared part.
    """
    return total if total is not None and total > (LITTLE if shared is None else shared) else None


def parse_properties(text: str) -> dict[str, int]:
    """Read lines of a name and a number."""
    found = re.finditer(r"^(\w{1,64})[ \t]+([0-9]{1,20})[ \t]*\r?$", text, re.MULTILINE | re.ASCII)
    return {match[1]: int(match[2]) for match in found}


def nodes(machine: Machine, vendor: str, vendor_id: int) -> tuple[Node, ...]:
    """Return the GPUs of one vendor; a node that computes nothing is a processor's."""
    found: list[Node] = []
    for name in sorted(machine.names(NODES), key=lambda name: (len(name), name)):
        facts = parse_properties(_read(machine, f"{NODES}/{name}/properties"))
        if facts.get("simd_count", 0) > 0 and facts.get("vendor_id", vendor_id) == vendor_id:
            found.append(_node(machine, vendor, len(found), f"{NODES}/{name}", facts))
    return distinct(found)


def distinct(found: list[Node]) -> tuple[Node, ...]:
    """Take away identifiers that several share: the parts of a partitioned card have one between them."""
    count = Counter(node.gpu.uuid for node in found)
    return tuple(
        node if count[node.gpu.uuid] == 1 else dataclasses.replace(node, gpu=dataclasses.replace(node.gpu, uuid=""))
        for node in found
    )


def _node(machine: Machine, vendor: str, index: int, path: str, facts: dict[str, int]) -> Node:
    render = f"{RENDER}/renderD{facts.get('drm_render_minor', 0)}/device"
    arch = architecture(facts.get("gfx_target_version", 0))
    name = _read(machine, f"{render}/product_name").strip() or arch or _read(machine, f"{path}/name").strip()
    total = _banks(machine, path) or _number(machine, f"{render}/mem_info_vram_total")
    held, shared = _number(machine, f"{render}/mem_info_vram_used"), _number(machine, f"{render}/mem_info_gtt_total")
    unified = integrated(arch, name)
    memory = own(total, shared) if unified else total
    gpu = Gpu(
        vendor=vendor,
        index=index,
        uuid=f"GPU-{facts['unique_id']:016x}" if facts.get("unique_id") else "",
        name=name,
        memory=memory,
        memory_free=None if memory is None or held is None else max(0, memory - held),
        architecture=arch,
        bus_id=_address(facts),
        unified=unified,
    )
    return Node(gpu=gpu, shared=shared)


def _address(facts: dict[str, int]) -> str:
    if "location_id" not in facts:
        return ""
    # Bus, slot and function as PCI packs them; what is above belongs to partitions of a card.
    place = facts["location_id"] & 0xFFFF
    return address(f"{facts.get('domain', 0) & 0xFFFFFFFF:x}:{place >> 8:x}:{place >> 3 & 31:x}.{place & 7}")


def _banks(machine: Machine, path: str) -> int | None:
    banks = [
        parse_properties(_read(machine, f"{path}/mem_banks/{bank}/properties"))
        for bank in machine.names(f"{path}/mem_banks")
    ]
    return sum(bank.get("size_in_bytes", 0) for bank in banks if bank.get("heap_type") in OWN) or None


def _number(machine: Machine, path: str) -> int | None:
    said = _read(machine, path).strip()
    return int(said) if re.fullmatch(r"[0-9]{1,20}", said) else None


def _read(machine: Machine, path: str) -> str:
    return (machine.read(path, 1 << 16) or b"").decode(errors="replace")
