"""The answers of rocm-smi, and of hy-smi that is made after it: names and numbers by card, as JSON or as lines."""

import re
from typing import Final

from appliance.detect.gpu._pci import address
from appliance.detect.gpu._text import first_json, free, lines, size, word
from appliance.domain.host import Gpu

Cards = dict[int, dict[str, str]]
"""Card -> what it says -> the words, the names in lower case."""

LINE: Final = re.compile(
    r"\s*(?:GPU|DCU|HCU|card)\s*\[?\s*([0-9]{1,3})\s*\]?\s*:\s*([^:]{1,80}?)\s*:\s*(.*)", re.IGNORECASE
)
CARD: Final = re.compile(r"(?:card|gpu|dcu|hcu)\s*([0-9]{1,3})", re.IGNORECASE)
MEMORY: Final = re.compile(r"vram total( used)?(?: memory)?\s*(?:\((\w+)\))?")
NAMES: Final = ("card series", "device name", "product name", "market name", "card model", "device id", "gpu id")
"""From the telling to the bare number; which of them a release has, and which holds the name, varies."""


def cards(text: str) -> Cards:
    """Read `{"card0": {…}}` or `GPU[0] : Card Series: …`; what is not a card (`system`) is left out."""
    data = first_json(text)
    if isinstance(data, dict):
        found = {key: CARD.fullmatch(key) for key in data}
        return {
            int(match[1]): {str(name).strip().lower(): word(said) for name, said in data[key].items()}
            for key, match in found.items()
            if match and isinstance(data[key], dict)
        }
    said: Cards = {}
    for match in filter(None, map(LINE.match, lines(text))):
        said.setdefault(int(match[1]), {})[match[2].strip().lower()] = word(match[3])
    return said


def driver_version(text: str) -> str:
    """Return what the `system` part, or the line of its own, says of the driver."""
    found = re.search(r"driver version\"?\s*:\s*\"?([^\s\",}]{1,80})", text, re.IGNORECASE)
    return word(found[1]) if found else ""


def gpus(vendor: str, found: Cards) -> tuple[Gpu, ...]:
    """Return the cards as GPUs, in the order of their numbers."""
    return tuple(_gpu(vendor, index, found[index]) for index in sorted(found))


def _gpu(vendor: str, index: int, card: dict[str, str]) -> Gpu:
    total, held = _memory(card)
    return Gpu(
        vendor=vendor,
        index=index,
        uuid=_uuid(card.get("unique id", "")),
        name=_name(card),
        memory=total,
        memory_free=free(total, held),
        architecture=card.get("gfx version", "").split(":")[0].lower(),
        bus_id=address(card.get("pci bus", "")),
    )


def _name(card: dict[str, str]) -> str:
    names = [card[key] for key in NAMES if card.get(key)]
    return next((name for name in names if not name.lower().startswith("0x")), next(iter(names), ""))


def _uuid(text: str) -> str:
    """Return a unique id, 0x719d230578348e8c, as ROCR_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES take it."""
    found = re.fullmatch(r"(?:0x)?([0-9a-f]{1,16})", text.lower())
    return f"GPU-{int(found[1], 16):016x}" if found and int(found[1], 16) else ""


def _memory(card: dict[str, str]) -> tuple[int | None, int | None]:
    """Return (total, held) in bytes, of `VRAM Total Memory (B)` and `vram Total Used Memory (MiB)`."""
    total = held = None
    for key, said in card.items():
        found = MEMORY.fullmatch(key)
        if found and found[1]:
            held = size(said, found[2] or "B")
        elif found:
            total = size(said, found[2] or "B")
    return total, held
