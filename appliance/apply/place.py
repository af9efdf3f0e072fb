"""Puts files in their places on the machine and takes them away again; what somebody edited by hand is never lost."""

import os
from pathlib import Path

from appliance.apply.generation import digest
from appliance.domain.changes import Changeset, File, Record
from appliance.errors import HostError
from appliance.system.machine import Machine


def refuse_masked(changes: Changeset) -> None:
    """Raise HostError where somebody masked what we would write: it must not run until he says so."""
    for file in changes.files:
        if file.path.startswith("/") and os.path.realpath(file.path) == os.devnull:
            name = file.path.rpartition("/")[2]
            raise HostError(f"{file.path} leads to {os.devnull}: it is masked", hint=f"systemctl unmask {name}")


def place(files: tuple[File, ...], before: tuple[Record | None, ...], machine: Machine) -> tuple[str, ...]:
    """Write system files and remove those that went; a hand-edited one is kept beside the new one.

    `before`: what was in force last, and last healthy; where a run was killed between the two, files of both are there.
    """
    known = {item.path: item.sha256 for record in reversed(before) if record for item in record.files}
    ours = {(item.path, item.sha256) for record in before if record for item in record.files}
    kept = []
    for file in files:
        there = machine.read(file.path, 8 << 20)
        if there == file.content:
            continue
        if there is not None and file.path in known and (file.path, digest(there)) not in ours:
            copy = f"{file.path}.edited-{digest(there)[:8]}"
            machine.write(File(path=copy, content=there, mode=0o600))
            kept.append(copy)
        machine.write(file)
    wanted = {file.path for file in files}
    for path, sha256 in known.items():
        if path not in wanted:
            remove_own(path, sha256, machine)
    return tuple(kept)


def remove_own(path: str, sha256: str, machine: Machine) -> bool:
    """Remove a file unless somebody edited it; tell whether it is gone."""
    there = machine.read(path, 8 << 20)
    if there is not None and digest(there) != sha256:
        return False
    machine.remove(path)
    return True


def missing_directories(changes: Changeset) -> tuple[str, ...]:
    """Return the directories that our files will bring with them."""
    parents = {str(parent) for file in changes.files if file.path.startswith("/") for parent in Path(file.path).parents}
    return tuple(sorted(path for path in parents if not os.path.isdir(path)))  # noqa: PTH112


def remove_if_empty(path: str) -> None:
    """Remove a directory that holds nothing."""
    try:
        os.rmdir(path)  # noqa: PTH106
    except OSError:
        return
