"""Writes an archive into one file or into parts of a size: each byte once, and shown only when it is whole."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from appliance.system.flush import WINDOW, Flusher, push
from appliance.system.machine import sync

OPEN = 64
"""Parts that are open at the same time: those of one MiB, too, are so until nobody reads behind any more."""


class Spool:
    """An archive that is being written; a run that takes up another's finds it as it was left."""

    def __init__(self, target: Path, *, room: int, skip: int) -> None:
        """Write to `target`, or with `room` into parts beside it, each with so many bytes of the archive.

        The first `skip` bytes of each part are left free for its header.
        """
        self.target, self._room, self._skip = target, room, skip
        self._files: dict[int, int] = {}
        self._dirty: dict[int, int] = {}
        self._flusher = Flusher()
        target.parent.mkdir(parents=True, exist_ok=True)

    def draft(self, number: int) -> Path:
        """Return where part `number`, from 0, lies while it is written."""
        tail = f".{number + 1}" if self._room else ""
        return self.target.with_name(f".{self.target.name}{tail}.new")

    def have(self) -> int:
        """Return how many bytes an earlier run has written, as far as they follow each other."""
        total = 0
        for number in range(1 << 20):
            try:
                size = self.draft(number).stat().st_size - self._skip
            except OSError:
                break
            total += max(0, size)
            if not self._room or size < self._room:
                break
        return total

    def write(self, offset: int, view: memoryview | bytes) -> None:
        """Put bytes at an offset of the archive."""
        left = memoryview(view)
        while left:
            descriptor, inside, room = self.place(offset)
            done = os.pwrite(descriptor, left[:room], inside)
            self.wrote(offset, done)
            left, offset = left[done:], offset + done

    def place(self, offset: int) -> tuple[int, int, int]:
        """Return where a byte of the archive belongs: descriptor, offset in the file, bytes that follow there."""
        number, inside = divmod(offset, self._room) if self._room else (0, offset)
        return self._file(number), self._skip + inside, self._room - inside if self._room else sys.maxsize

    def wrote(self, offset: int, amount: int) -> None:
        """Say that bytes are in their place which nobody reads any more: they may go to the disk."""
        descriptor, inside, _ = self.place(offset)
        number = offset // self._room if self._room else 0
        self._dirty[number] = self._dirty.get(number, 0) + amount
        if self._dirty[number] >= WINDOW:
            self._flusher.push(descriptor, inside + amount)
            self._dirty[number] = 1

    def _file(self, number: int) -> int:
        if number not in self._files:
            if len(self._files) >= OPEN:
                self._retire(next(iter(self._files)))
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._files[number] = os.open(self.draft(number), flags, 0o644)
        return self._files[number]

    def _retire(self, number: int) -> None:
        """Bring a part to the disk and close it."""
        self._flusher.wait()
        descriptor = self._files.pop(number)
        if self._dirty.pop(number, 0):
            os.fdatasync(descriptor)
        os.close(descriptor)

    def settle(self) -> None:
        """Bring everything to the disk."""
        self._flusher.wait()
        for number, amount in self._dirty.items():
            if amount:
                os.fdatasync(self._files[number])
                push(self._files[number])
                self._dirty[number] = 0

    def finish(self, size: int, headers: Sequence[bytes], names: Sequence[str]) -> tuple[Path, ...]:
        """Cut the archive to `size` bytes, put each part's header in front, show the files under their names."""
        shown = []
        for number, name in enumerate(names):
            length = min(self._room, size - number * self._room) if self._room else size
            os.ftruncate(self._file(number), self._skip + length)
            if headers:
                os.pwrite(self._file(number), headers[number], 0)
            os.fsync(self._file(number))
            shown.append((self.draft(number), self.target.with_name(name)))
        self.close()
        # The last first: the part with the index shows when all others do.
        for draft, path in reversed(shown):
            draft.rename(path)
        for number in range(len(names), len(names) + (1 << 20 if self._room else 0)):
            if not self.draft(number).exists():
                break
            self.draft(number).unlink()
        sync(self.target.parent)
        return tuple(path for _, path in shown)

    def discard(self) -> None:
        """Remove what was written."""
        self.close()
        for number in range(1 << 20):
            if not self.draft(number).exists():
                break
            self.draft(number).unlink()
            if not self._room:
                break

    def close(self) -> None:
        """Let go of the files."""
        self._flusher.close()
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        self._dirty.clear()
