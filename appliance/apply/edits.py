"""Files of ours that somebody edited by hand: which, and how they differ from what was written."""

import difflib

from appliance.apply.generation import Generations, digest
from appliance.domain.changes import Record
from appliance.domain.status import HandEdit
from appliance.system.machine import Machine

LARGEST = 8 << 20
"""Bytes that are read of one file."""


def edits(record: Record, generations: Generations, machine: Machine) -> tuple[HandEdit, ...]:
    """Return the files on the machine that are not as the record says, each with its difference."""
    found = []
    etc = f"{record.deployment.layout.etc}/"
    for item in record.files:
        there = machine.read(item.path, LARGEST)
        if there is not None and digest(there) == item.sha256:
            continue
        if there is None and not _surely_gone(item.path, machine):
            continue  # not for our eyes, and so nothing can be said of it
        written = generations.read(record.generation, item.path)
        found.append(
            HandEdit(
                path=item.path, yours=item.path.startswith(etc), gone=there is None,
                diff=difference(written, there or b"", f"written: {item.path}", f"now: {item.path}"),
            )
        )  # fmt: skip
    return tuple(found)


def difference(old: bytes, new: bytes, before: str, after: str) -> str:
    """Return a unified diff."""
    then, now = (content.decode(errors="replace").splitlines(keepends=True) for content in (old, new))
    lines = difflib.unified_diff(then, now, before, after)
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _surely_gone(path: str, machine: Machine) -> bool:
    home, _, name = path.rpartition("/")
    return name not in machine.names(home)
