"""Where payloads come from: memory, one file, many small ones."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

WINDOW: Final = 64 << 20
"""Bytes after which what was read leaves the page cache."""


class Bytes:
    """Bytes that are in memory."""

    def __init__(self, content: bytes) -> None:
        self._left = memoryview(content)

    def __call__(self, view: memoryview) -> int:
        """Put the next bytes into `view`."""
        some = self._left[: len(view)]
        view[: len(some)] = some
        self._left = self._left[len(some) :]
        return len(some)


class File:
    """A file that is read once: it does not push all else out of the page cache."""

    def __init__(self, path: Path) -> None:
        self._path, self._stream, self._place, self._dropped = path, -1, 0, 0

    def __enter__(self) -> Self:
        self._stream = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(self._stream, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._stream)

    def place(self, offset: int) -> tuple[int, int, int]:
        """Return where a byte is: descriptor, offset in the file, bytes that may follow there."""
        return self._stream, offset, sys.maxsize

    def __call__(self, view: memoryview) -> int:
        """Put the next bytes into `view`."""
        got = os.preadv(self._stream, (view,), self._place)
        self.skip(got)
        return got

    def skip(self, amount: int) -> None:
        """Say that the next bytes were read otherwise."""
        self._place += amount
        if self._place - self._dropped >= WINDOW:
            os.posix_fadvise(self._stream, self._dropped, self._place - self._dropped, os.POSIX_FADV_DONTNEED)
            self._dropped = self._place


class Concatenation:
    """Small files, one after the other; hands out their bytes as a Fill does."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read each when its turn comes."""
        self._paths = iter(paths)
        self._left = memoryview(b"")

    def __call__(self, view: memoryview) -> int:
        """Put the next bytes into `view`."""
        while not self._left:
            path = next(self._paths, None)
            if path is None:
                return 0
            self._left = memoryview(path.read_bytes())
        some = self._left[: len(view)]
        view[: len(some)] = some
        self._left = self._left[len(some) :]
        return len(some)
