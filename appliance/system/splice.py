"""Copies from file to file inside the kernel, while somebody looks at what has arrived."""

import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from appliance.system.pump import Take

STEP: Final = 4 << 20
"""Bytes that the kernel is told to copy at a time."""
AHEAD: Final = 8
"""Steps that it may be ahead of whoever looks: they are still in the page cache then."""
LOOK: Final = 256 << 10
"""Bytes that are looked at at a time: they stay in the processor's own cache from the copy to the digest."""

Place = Callable[[int], tuple[int, int, int]]
"""Tells of a byte of what is copied: descriptor, offset in that file, and how many bytes of it follow there."""


def splice(source: Place, target: Place, size: int, take: Take) -> int:
    """Copy up to `size` bytes and hand what the target holds then to `take`, in order; return how many that were.

    Fewer where the kernel cannot, or a disk is full or cannot be read: whoever goes on by reading and writing is told.
    What `take` raises ends it and is raised here.
    """
    follower = _Follower(target, take)
    done = 0
    try:
        while done < size and not follower.failures:
            follower.room.acquire()
            amount = _copied(source(done), target(done), min(STEP, size - done))
            if not amount:
                break
            done += amount
            follower.arrived.put(amount)
    finally:
        follower.end()
    if follower.failures:
        raise follower.failures[0]
    return done


def _copied(source: tuple[int, int, int], target: tuple[int, int, int], size: int) -> int:
    """Copy some bytes and return how many, 0 = it cannot be done in this way."""
    (reading, begin, there), (writing, place, room) = source, target
    size = min(size, there, room)
    with suppress(OSError):
        return os.copy_file_range(reading, writing, size, begin, place)
    with suppress(OSError):  # from one file system to another
        os.lseek(writing, place, os.SEEK_SET)
        return os.sendfile(writing, reading, begin, size)
    return 0


class _Follower:
    """Reads behind the copy what it has written."""

    def __init__(self, target: Place, take: Take) -> None:
        self._target, self._take = target, take
        self.arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.room = threading.Semaphore(AHEAD)
        self.failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait until all that arrived was looked at."""
        self.arrived.put(0)
        self._thread.join()

    def _run(self) -> None:
        buffer, place = memoryview(bytearray(LOOK)), 0
        while amount := self.arrived.get():
            try:
                if not self.failures:
                    self._look(buffer, place, place + amount)
            except BaseException as error:  # noqa: BLE001 - raised again where the copy was called
                self.failures.append(error)
            place += amount
            self.room.release()

    def _look(self, buffer: memoryview, place: int, end: int) -> None:
        while place < end:
            descriptor, at, room = self._target(place)
            got = os.preadv(descriptor, (buffer[: min(end - place, room)],), at)
            if not got:
                raise EOFError
            self._take(buffer[:got])
            place += got
