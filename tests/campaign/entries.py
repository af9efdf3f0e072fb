"""The campaign's two lists, as data: what goes wrong, what must happen, which tests hold it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

HERE: Final = Path(__file__).parent
LISTS: Final = {"faults.yaml": ("F", 45), "inputs.yaml": ("B", 60)}
"""File -> letter and number of its entries."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One fault, or one bad input."""

    number: str
    fault: str
    must: str
    """What must happen."""
    by: tuple[str, ...] = ()
    """Node ids of the tests that provoke it, from the root of the checkout."""
    here: str = ""
    """What of it cannot be provoked on a test machine, and why."""


def entries() -> tuple[Entry, ...]:
    """Read both lists, in their order."""
    found = []
    for name in LISTS:
        for number, words in yaml.safe_load((HERE / name).read_text()).items():
            by = tuple(f"tests/{node}" for node in words.pop("by", ()))
            found.append(Entry(number=number, by=by, **words))
    return tuple(found)


def belongs(node: str, test: str) -> bool:
    """Tell whether a test that ran is one of those that a node id stands for: a file, a test, or a case of it."""
    return node == test or node.startswith((f"{test}::", f"{test}["))
