"""What the lines of a log mean: known failures of engines, and how far one is that loads; as data, in symptoms.yaml."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from appliance import codec

FILE: Final = Path(__file__).with_name("symptoms.yaml")
BEGIN: Final = re.compile(r"systemd\[\d+\]: Start(?:ing|ed) |INFO spawned: ")
"""Lines that a new attempt begins with, where a runtime writes its own between the engine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptom:
    """A pattern and what it means."""

    pattern: str
    says: str
    """For people; `{1}` is the pattern's first group."""
    hint: str = ""
    """What to type or to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptoms:
    """All that is known."""

    schema: int
    failures: tuple[Symptom, ...]
    progress: tuple[Symptom, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A symptom that was found in a log."""

    says: str
    hint: str
    line: str


@cache
def symptoms() -> Symptoms:
    """Return the table."""
    return codec.load_yaml(Symptoms, FILE.read_text(), source=FILE.name)


def failure(lines: Sequence[str]) -> Seen | None:
    """Return why a service failed: from its last attempt, or the one before where the last has only begun."""
    for attempt in _attempts(lines):
        for known in symptoms().failures:
            if seen := _last(known, attempt):
                return seen
    return None


def progress(lines: Sequence[str]) -> str:
    """Return how far the attempt that runs is, `loading 62 %`; "" where its engine does not tell."""
    for attempt in _attempts(lines)[:1]:
        for line in reversed(attempt):
            for known in symptoms().progress:
                if seen := _last(known, (line,)):
                    return seen.says
    return ""


def _attempts(lines: Sequence[str]) -> list[list[str]]:
    """Return the lines of each start, the latest first."""
    found: list[list[str]] = [[]]
    for line in lines:
        # `Starting` and `Started` are said of the same start, with the engine's lines between them.
        if BEGIN.search(line) and "Started" not in line:
            found.append([])
        found[-1].append(line)
    return found[::-1]


def _last(known: Symptom, lines: Iterable[str]) -> Seen | None:
    pattern = re.compile(known.pattern)
    for line in reversed(tuple(lines)):
        if match := pattern.search(line):
            first = match[1] if pattern.groups and match[1] else ""
            return Seen(says=known.says.replace("{1}", first), hint=known.hint, line=line.strip())
    return None
