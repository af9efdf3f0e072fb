"""Files of ours that somebody edited by hand: which, and how they differ from what was written."""

import difflib
from collections.abc import Iterator

from appliance.apply.generation import Generations, digest
from appliance.domain.changes import Record
from appliance.domain.status import HandEdit
from appliance.render.pages import render
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
    return (*found, *_inside(record, generations, machine))


def _inside(record: Record, generations: Generations, machine: Machine) -> Iterator[HandEdit]:
    """Yield files of the generation that somebody edited; what was in them is rendered anew, it is kept nowhere."""
    home = generations.path(record.generation)
    changed = []
    for item in record.inside:
        there = machine.read(f"{home}/{item.path}", LARGEST)
        if there is not None and digest(there) != item.sha256:
            changed.append((item, there))
    wanted = {file.path: file.content for file in render(record.deployment).files} if changed else {}
    for item, there in changed:
        path, written = f"{home}/{item.path}", wanted.get(item.path, b"")
        # Another version of the program renders it otherwise: then it is shown whole.
        before = written if digest(written) == item.sha256 else b""
        yield HandEdit(path=path, yours=False, diff=difference(before, there, f"written: {path}", f"now: {path}"))


def difference(old: bytes, new: bytes, before: str, after: str) -> str:
    """Return a unified diff."""
    then, now = (content.decode(errors="replace").splitlines(keepends=True) for content in (old, new))
    lines = difflib.unified_diff(then, now, before, after)
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _surely_gone(path: str, machine: Machine) -> bool:
    home, _, name = path.rpartition("/")
    return name not in machine.names(home)
