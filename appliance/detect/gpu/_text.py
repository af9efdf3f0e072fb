"""What the tools of GPU vendors print, taken apart: lines, cells, sizes, and JSON between lines of noise."""

import json
import math
import re
from typing import Final

COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
NUMBER: Final = re.compile(r"[0-9][0-9,]{0,23}(?:\.[0-9]{1,9})?")
UNIT: Final = re.compile(r"[KMGT]?i?B|bytes?", re.IGNORECASE)
USED: Final = re.compile(
    r"([0-9][0-9,]{0,23}(?:\.[0-9]{1,9})?)\s*(?:[KMGT]i?B)?\s*/\s*([0-9][0-9,]{0,23}(?:\.[0-9]{1,9})?)\s*([KMGT]i?B)?",
    re.IGNORECASE,
)
"""`810/65536 MiB`, `3407 / 65536`, `0 MiB / 4096 MiB`."""
UNITS: Final = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
"""By first letter: every one of these tools counts in powers of two, `MB` too (32624 MB is a card of 32 GiB)."""
STARTS: Final = 256
"""Places at most where JSON is tried to begin."""
NOTHING: Final = ("", "n/a", "na", "none", "unknown", "-", "--", "null", "not supported")


def lines(text: str) -> list[str]:
    """Return the lines without colours and blanks at the end."""
    return [COLOUR.sub("", line).rstrip() for line in text.splitlines()]


def cells(line: str) -> list[str]:
    """Return the cells of a table's row, [] for a line that has no column rule in it."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if "|" in line else []


def word(value: object) -> str:
    """Return what a cell says, "" for the many ways to say nothing."""
    said = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    return "" if said.lower() in NOTHING else said


def size(value: object, unit: str = "MiB") -> int | None:
    """Return bytes of `32624 MB`, 32624 or {"value": 32624, "unit": "MB"}; `unit` counts where none is said."""
    if isinstance(value, dict):
        return size(word(value.get("value")), word(value.get("unit")) or unit)
    number = NUMBER.match(word(value))
    if not number:
        return None
    said = word(value)[number.end() :].strip() or unit
    if not UNIT.fullmatch(said):
        return None
    found = float(number[0].replace(",", "")) if "." in number[0] else int(number[0].replace(",", ""))
    return int(found * UNITS.get(said[:1].lower(), 1))


def used(text: str) -> list[tuple[int, int]]:
    """Return (used, total) in bytes of every `a / b` in it; MiB where no unit is said."""
    found = []
    for left, right, unit in USED.findall(text):
        held, total = size(left, unit or "MiB"), size(right, unit or "MiB")
        if held is not None and total is not None:
            found.append((held, total))
    return found


def whole(value: object) -> int | None:
    """Return a number that counts something, None for anything else."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    said = word(value)
    return int(said) if re.fullmatch(r"[0-9]{1,18}", said) else None


def free(total: int | None, held: int | None) -> int | None:
    """Return what is left; a tool that counts more held than there is says nothing good, but not less than 0."""
    return None if total is None or held is None else max(0, total - held)


def field(text: str, *labels: str) -> str:
    """Return the word after the first of `labels` and a colon or `=`, "" where there is none or it says nothing."""
    for label in labels:
        found = re.search(rf"{re.escape(label)}\s*[:=]\s*(?:v(?=[0-9]))?([^\s|,\"]{{1,80}})", text, re.IGNORECASE)
        if found and word(found[1]):
            return word(found[1])
    return ""


def first_json(text: str) -> object:
    """Return the first object, or list of objects, among other lines; None where there is none, or it is cut off."""
    decoder = json.JSONDecoder()
    for start in [match.start() for match in re.finditer(r"[\[{]", text)][:STARTS]:
        try:
            value, _end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            # Cut off: what lies inside is whole perhaps, but tells of a part of the GPUs as if it were all.
            if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
                return None
            continue
        except (ValueError, RecursionError):
            continue
        if (isinstance(value, dict) and value) or (isinstance(value, list) and any(isinstance(v, dict) for v in value)):
            return value
    return None


def objects(value: object) -> list[dict[str, object]]:
    """Return the objects in a list, or a lone object as a list of one."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def inner(value: object, *keys: str) -> object:
    """Return what lies in nested objects below `keys`, None where the way ends."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
