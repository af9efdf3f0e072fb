"""How a test says what was lost, so that the campaign's table can show it: a line that is printed, and read back here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["data", "requests"]
LINE = re.compile(r"^(data|requests) lost: (\d+) of (\d+)$", re.MULTILINE)


def told(kind: Kind, lost: int, of: int) -> None:
    """Print how many files or requests were lost, of how many that were watched."""
    print(f"{kind} lost: {lost} of {of}", flush=True)


@dataclass(frozen=True)
class Losses:
    """What some tests lost together."""

    lost: int
    of: int
    """0 = nobody counted."""

    def __str__(self) -> str:
        return f"{self.lost} of {self.of}" if self.of else "–"


def counted(kind: Kind, outputs: Iterable[str]) -> Losses:
    """Add up what tests printed."""
    found = [(int(lost), int(of)) for text in outputs for name, lost, of in LINE.findall(text) if name == kind]
    return Losses(sum(lost for lost, _ in found), sum(of for _, of in found))
