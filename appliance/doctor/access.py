"""Who may enter and read a path, worked out from what `stat` told: asking the kernel answers for ourselves only."""

import struct
from dataclasses import dataclass
from typing import Final

READ: Final = 4
WRITE: Final = 2
ENTER: Final = 1
"""Of a directory: to pass through it. Of a file: to run it."""
USER, GROUP_OWNER, GROUP, MASK, OTHER = 0x02, 0x04, 0x08, 0x10, 0x20
"""Tags of POSIX ACL entries, from the kernel's include/uapi/linux/posix_acl.h."""
ACL_VERSION: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who wants in."""

    name: str
    uid: int = -1
    """-1 = there is no such account yet; it will be in no group that owns anything."""
    gids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AclEntry:
    """One entry of a POSIX access control list."""

    tag: int
    permissions: int
    """Of READ, WRITE, ENTER."""
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One directory or file on the way to a path; links are followed, so it is none itself."""

    path: str
    mode: int
    """Permission bits."""
    uid: int
    gid: int
    directory: bool = True
    acl: tuple[AclEntry, ...] = ()
    """Empty = the bits alone decide."""
    size: int = 0
    """Bytes."""
    device: int = 0
    """Number of the file system: a hard link cannot leave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """Everything that is passed on the way from / to a path, and where the way ended."""

    path: str
    """As it was asked for."""
    steps: tuple[Step, ...] = ()
    """From / on, as far as there is something and we may look."""
    failure: str = ""
    """`absent`: there is no such file; `unseen`: we may not look further; else why opening it failed; "" = it is there
    and could be opened, or was not tried."""

    @property
    def end(self) -> Step | None:
        """The file itself, None where the way ends before it."""
        return self.steps[-1] if self.steps and not self.absent and self.failure != "unseen" else None

    @property
    def absent(self) -> bool:
        """Whether there is no such file."""
        return self.failure == "absent"


def parse_acl(content: bytes) -> tuple[AclEntry, ...]:
    """Read the extended attribute `system.posix_acl_access`; () where it is none that we know."""
    if len(content) < 4 or (len(content) - 4) % 8 or struct.unpack_from("<I", content)[0] != ACL_VERSION:
        return ()
    return tuple(
        AclEntry(tag=tag, permissions=permissions & 7, id=number)
        for tag, permissions, number in struct.iter_unpack("<HHI", content[4:])
    )


def may(account: Account, step: Step, wanted: int) -> bool:
    """Tell whether the account is granted all of `wanted`, as acl(5) and path_resolution(7) say."""
    if account.uid == 0:
        return step.directory or not wanted & ENTER or bool(step.mode & 0o111)
    if account.uid == step.uid:
        return _holds(step.mode >> 6, wanted)
    if step.acl:
        return _by_list(account, step, wanted)
    return _holds(step.mode >> 3 if step.gid in account.gids else step.mode, wanted)


def obstacle(account: Account, trail: Trail, wanted: int) -> Step | None:
    """Return the first on the way that keeps the account from having `wanted` of what the trail leads to."""
    end = trail.end
    for step in trail.steps:
        if not may(account, step, wanted if step is end else ENTER):
            return step
    return None


def _by_list(account: Account, step: Step, wanted: int) -> bool:
    """The first kind that matches decides: a named user, then all matching groups, then everybody else."""
    mask = next((entry.permissions for entry in step.acl if entry.tag == MASK), 7)
    for entry in step.acl:
        if entry.tag == USER and entry.id == account.uid:
            return _holds(entry.permissions & mask, wanted)
    groups = [
        entry.permissions & mask
        for entry in step.acl
        if (entry.tag == GROUP_OWNER and step.gid in account.gids) or (entry.tag == GROUP and entry.id in account.gids)
    ]
    if groups:
        return any(_holds(granted, wanted) for granted in groups)
    return _holds(next((entry.permissions for entry in step.acl if entry.tag == OTHER), step.mode), wanted)


def _holds(granted: int, wanted: int) -> bool:
    return granted & wanted == wanted
