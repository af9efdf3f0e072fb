"""What is mounted where, and how much room is left there, from /proc/self/mountinfo and statvfs."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.detect.together import ANSWER, Question
from appliance.domain.host import Filesystem
from appliance.system.machine import Machine

LOCAL: Final = frozenset({
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "ntfs3", "fuseblk",
})  # fmt: skip
REMOTE: Final = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "gpfs", "beegfs", "wekafs", "9p", "virtiofs", "ocfs2", "gfs2",
    "fuse.ceph", "fuse.glusterfs", "fuse.juicefs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.lustre",
})  # fmt: skip
"""Asked apart from the rest: a server that went away makes statvfs wait for ever."""
OTHERS: Final = re.compile(r"/(?:boot|run|snap)(?:/|$)|/var/lib/(?:docker|containers|containerd|kubelet)/")
"""Where what belongs to others is mounted."""

Room = tuple[int, int]
"""(total, free) bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    device: str
    """`major:minor`, the same for every mount of one file system."""
    root: str
    """Which directory of the file system is seen here: `/` unless it is a bind mount, or a cgroup namespace."""
    path: str
    kind: str
    writable: bool
    options: tuple[str, ...]
    """Of the file system itself; for cgroup v1 its controllers are among them."""


def parse_mountinfo(content: str) -> tuple[Mount, ...]:
    """Return what is mounted, one mount for each path: the last, which hides those before it."""
    mounts: dict[str, Mount] = {}
    for line in content.splitlines():
        head, _, tail = line.partition(" - ")
        left, right = head.split(" "), tail.split(" ")
        if len(left) >= 6 and len(right) >= 3:
            path = _unescape(left[4])
            mounts[path] = Mount(
                device=left[2],
                root=_unescape(left[3]),
                path=path,
                kind=right[0],
                writable="ro" not in left[5].split(","),
                options=tuple(right[2].split(",")),
            )
    return tuple(mounts.values())


def mounted(machine: Machine) -> tuple[Mount, ...]:
    """Return what this process sees mounted."""
    return parse_mountinfo((machine.read("/proc/self/mountinfo", 8 << 20) or b"").decode(errors="replace"))


def worthy(mounts: tuple[Mount, ...]) -> tuple[tuple[Mount, ...], ...]:
    """Return, for each file system that could hold weights, where it is seen, the best place first."""
    devices: dict[str, list[Mount]] = {}
    for mount in mounts:
        overlay = mount.kind == "overlay" and mount.path == "/"
        if (mount.kind in LOCAL | REMOTE or overlay) and not OTHERS.match(mount.path):
            devices.setdefault(mount.device, []).append(mount)
    return tuple(tuple(sorted(seen, key=_merit)) for seen in devices.values())


def _merit(mount: Mount) -> tuple[bool, bool, int, str]:
    return not mount.writable, mount.root != "/", len(mount.path), mount.path


def room(path: str) -> Room | None:
    """Return (total, free for others than root) bytes; None where it is no directory or may not be asked."""
    try:
        if not Path(path).is_dir():  # containers have single files mounted: /etc/hosts
            return None
        found = os.statvfs(path)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    free = 0 if found.f_flag & os.ST_RDONLY else found.f_bavail * found.f_frsize
    return found.f_blocks * found.f_frsize, free


def measure(seen: tuple[Mount, ...], ask: Callable[[str], Room | None]) -> Filesystem | None:
    """Return a file system by the first of its places that is a directory."""
    for mount in seen:
        if (found := ask(mount.path)) and found[0] > 0:
            return Filesystem(path=mount.path, kind=mount.kind, total=found[0], free=found[1])
    return None


def filesystems(
    machine: Machine, ask: Callable[[str], Room | None] = room
) -> tuple[tuple[Filesystem, ...], tuple[str, ...]]:
    """Return the file systems by path, and those that gave no answer."""
    every = worthy(mounted(machine))
    questions = [_question(machine, seen, ask) for seen in every if seen[0].kind in REMOTE]
    found = [measure(seen, ask) for seen in every if seen[0].kind not in REMOTE]
    found += [question.answer() for question in questions]
    silent = tuple(name for question in questions for name in question.silent)
    return tuple(sorted((one for one in found if one), key=lambda one: one.path)), silent


def _question(
    machine: Machine, seen: tuple[Mount, ...], ask: Callable[[str], Room | None]
) -> Question[Filesystem | None]:
    name = f"{seen[0].path} ({seen[0].kind})"
    return Question(machine, lambda _: measure(seen, ask), None, name, ANSWER)


def free(path: str) -> int:
    """Return the bytes free where `path` is, or would be made."""
    candidate = Path(path)
    try:
        while not candidate.exists() and candidate != candidate.parent:
            candidate = candidate.parent
        found = os.statvfs(candidate)
    except (OSError, ValueError):
        return 0
    return found.f_bavail * found.f_frsize


def _unescape(word: str) -> str:
    r"""Read `\040` for a space; the kernel writes space, tab, newline and backslash so."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda found: chr(int(found[1], 8)), word)
