"""One run at a time: a lock that dies with its process and says who holds it."""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from appliance.errors import LockedError
from appliance.system.machine import user_name


@contextmanager
def lock(path: Path, command: str) -> Iterator[None]:
    """Hold the lock while the block runs. Raises LockedError with who, since when and which command."""
    descriptor = _opened(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(_holder(os.read(descriptor, 4096)), hint="wait for it, then try again") from None
        details = {"user": user_name(), "pid": os.getpid(), "since": time.time(), "command": command}
        with suppress(OSError):  # a full disk, or a read-only one, must not forbid to stop and to uninstall
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(details).encode(), 0)
        yield
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    """Open the lock; where nothing can be written, as it is, or its directory in its place: both can be locked."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    return os.open(path if path.is_file() else path.parent, os.O_RDONLY | flags)


def _holder(details: bytes) -> str:
    try:
        held = json.loads(details)
        since = int(time.time() - held["since"])
        return f"locked by {held['user']} (pid {held['pid']}) for {since} s: {held['command']}"
    except (ValueError, KeyError, TypeError):
        return "locked by another run"
