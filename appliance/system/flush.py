"""Brings what was written to the disk by a thread of its own: neither copy nor digest waits for the disk's queue."""

import os
import queue
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

WINDOW: Final = 32 << 20
"""Bytes after which what was written begins to go to the disk."""
WAITING: Final = 4
"""Pushes that may wait: a disk that is slower than whoever writes holds it up then."""


def push(descriptor: int, end: int = 0) -> None:
    """Begin to write a file's pages to the disk, and drop those that are there.

    Only those before `end`, 0 = all. What piles up in memory instead is slower in the end, and takes the cache from
    all else. Waits where the disk's queue is full, and until each processor has let go of the pages that it had.
    """
    os.posix_fadvise(descriptor, 0, end, os.POSIX_FADV_DONTNEED)


class Flusher:
    """Pushes, one after the other; a file must stay open until `wait` has returned."""

    def __init__(self) -> None:
        self._line: queue.Queue[tuple[int, int] | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def push(self, descriptor: int, end: int) -> None:
        """Push what is before `end` when its turn comes."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._line.put((descriptor, end))

    def wait(self) -> None:
        """Wait until all of them are done."""
        self._line.join()

    def close(self) -> None:
        """Wait, and end the thread."""
        if self._thread is not None:
            self._line.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (item := self._line.get()) is not None:
            with suppress(OSError):  # it is advice; whether the bytes arrive, fsync tells
                push(*item)
            self._line.task_done()
        self._line.task_done()
