"""Paths as another user would meet them, and the file systems they are on."""

import os
import re
import stat
from pathlib import Path

from appliance.doctor.access import Step, Trail, parse_acl
from appliance.doctor.facts import Place
from appliance.system.machine import Machine

LINKS = 40
"""Symbolic links that the kernel follows in one path (path_resolution(7))."""
ACL = "system.posix_acl_access"


def trail(path: str, *, opened: bool = False) -> Trail:
    """Walk an absolute path link by link, as the kernel does; `opened`: read a byte of the file at its end, too."""
    steps = [_step("/", os.lstat("/"))]
    todo, links = path.split("/")[::-1], 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        current = steps[-1].path
        if part == "..":
            steps.append(_step(os.path.dirname(current), os.lstat(os.path.dirname(current))))  # noqa: PTH120
            continue
        candidate = f"{current.rstrip('/')}/{part}"
        try:
            status = os.lstat(candidate)
            target = os.readlink(candidate) if stat.S_ISLNK(status.st_mode) else ""  # noqa: PTH115
        except OSError as error:
            return Trail(path=path, steps=tuple(steps), failure=_failure(error))
        if not target:
            steps.append(_step(candidate, status))
            continue
        links += 1
        if links > LINKS:
            return Trail(path=path, steps=tuple(steps), failure="too many symbolic links")
        if target.startswith("/"):
            steps.append(steps[0])
        todo += target.split("/")[::-1]
    return Trail(path=path, steps=tuple(steps), failure=_refused(path) if opened and not steps[-1].directory else "")


def place(path: str, machine: Machine) -> Place:
    """Return what is known of the file system that a directory is on, or would be."""
    nearest = Path(path)
    while not nearest.exists():
        nearest = nearest.parent
    real = os.path.realpath(nearest)
    mounts = parse_mounts((machine.read("/proc/self/mounts") or b"").decode(errors="replace"))
    under = [item for item in mounts if real == item[0] or real.startswith(item[0].rstrip("/") + "/")]
    # Of several on one directory the last one counts.
    mount, kind, options = max(reversed(under), key=lambda item: len(item[0]), default=("/", "", ()))
    room = os.statvfs(real)
    return Place(
        path=path,
        mount=mount,
        kind=kind,
        options=options,
        free=room.f_bavail * room.f_frsize,
        inodes=room.f_files,
        inodes_free=room.f_favail,
        device=os.stat(real).st_dev,  # noqa: PTH116
    )


def parse_mounts(content: str) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    r"""Return (directory, kind, options) of each line of /proc/self/mounts; blanks are written `\040` there."""
    rows = (line.split(" ") for line in content.splitlines())
    return tuple((_plain(row[1]), row[2], tuple(row[3].split(","))) for row in rows if len(row) >= 4)


def _plain(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)


def _step(path: str, status: os.stat_result) -> Step:
    try:
        acl = parse_acl(os.getxattr(path, ACL))
    except OSError:  # there is none, or the file system has none
        acl = ()
    return Step(
        path=path,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        directory=stat.S_ISDIR(status.st_mode),
        acl=acl,
        size=status.st_size,
        device=status.st_dev,
    )


def _failure(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "absent"
    # Root is denied by no permissions: then it is the file system, and that is worth to be told.
    return "unseen" if isinstance(error, PermissionError) and os.geteuid() else error.strerror or str(error)


def _refused(path: str) -> str:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123
            stream.read(1)
    except OSError as error:
        return _failure(error)
    return ""
