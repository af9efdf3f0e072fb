"""NVIDIA_REQUIRE_*: what an image asks of the driver, which the container toolkit holds it to when it starts."""

import operator
import re
from collections.abc import Sequence
from typing import Final

from appliance.domain.host import Driver, Gpu
from appliance.domain.version import version

CONSTRAINT: Final = re.compile(r"(cuda|driver|arch|brand)(>=|<=|!=|=|>|<)(.+)")
COMPARE: Final = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "=": operator.eq, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
SHOP: Final = ("geforce", "titan")
"""Brands that one buys in a shop; others go by many names, which an image lists all."""


def conflict(env: dict[str, str], driver: Driver, gpus: Sequence[Gpu]) -> str:
    """Return why the toolkit would not start an image with this environment, "" when it would.

    Blanks between groups mean `or`, commas inside of one `and`; what is not known is taken to hold.
    """
    if env.get("NVIDIA_DISABLE_REQUIRE", "").lower() in ("1", "true"):
        return ""
    for name, text in sorted(env.items()):
        if not name.startswith("NVIDIA_REQUIRE_") or not text.strip():
            continue
        groups = [group.split(",") for group in text.split()]
        if not any(all(_holds(one, driver, gpus) for one in group) for group in groups):
            here = f"driver {driver.version or 'unknown'} for CUDA {driver.api or 'unknown'}"
            return f"asks for {groups[0][0]} ({name}), this machine has {here}"
    return ""


def _holds(constraint: str, driver: Driver, gpus: Sequence[Gpu]) -> bool:
    found = CONSTRAINT.fullmatch(constraint)
    if not found:
        return True
    what, sign, wanted = found.groups()
    if what == "brand":
        return (_brand(gpus) == wanted or (wanted not in SHOP and _brand(gpus) == "")) == (sign == "=")
    if what == "arch":
        known = [gpu.compute_capability for gpu in gpus if gpu.compute_capability]
        return all(COMPARE[sign](version(one), version(wanted)) for one in known)
    here = driver.api if what == "cuda" else driver.version
    if not here:
        return True
    length = max(len(version(here)), len(version(wanted)))
    return bool(COMPARE[sign](_padded(here, length), _padded(wanted, length)))


def _padded(text: str, length: int) -> tuple[int, ...]:
    numbers = tuple(version(text))
    return numbers + (0,) * (length - len(numbers))


def _brand(gpus: Sequence[Gpu]) -> str:
    """Return `geforce` or `titan`, "" for what is made for servers and workstations."""
    names = " ".join(gpu.name.lower() for gpu in gpus)
    return next((brand for brand in SHOP if brand in names), "")
