"""Digests of a payload as its bytes go by: of all that lies before each chunk's end, so that one pass does."""

import hashlib
from collections.abc import Callable
from typing import Final

from appliance.errors import ArtifactError

READ: Final = 1 << 20
"""Bytes that are read at a time where nothing else is done meanwhile."""


class Marks:
    """SHA-256 of the bytes up to the end of each chunk; the last one is that of the whole."""

    def __init__(self, chunk: int) -> None:
        """Begin with nothing; `chunk` is the bytes of a chunk."""
        self._chunk, self._have = chunk, 0
        self._digest = hashlib.sha256()
        self._kept = self._digest.copy()
        self._done: list[str] = []

    def __call__(self, view: memoryview) -> None:
        """Take the next bytes."""
        while view:
            some = view[: self._chunk - self._have]
            self._digest.update(some)
            self._have += len(some)
            view = view[len(some) :]
            if self._have == self._chunk:
                self._mark()

    def end(self) -> tuple[str, ...]:
        """Return them all: at least one, also of nothing."""
        if self._have or not self._done:
            self._mark()
        return tuple(self._done)

    def _mark(self) -> None:
        self._done.append(self._digest.hexdigest())
        self._kept, self._have = self._digest.copy(), 0


class Check(Marks):
    """Compares them with those that the index promises."""

    def __init__(self, wanted: tuple[str, ...], chunk: int, damaged: Callable[[int], ArtifactError]) -> None:
        """`damaged` makes the error for the chunk of a number, from 0."""
        super().__init__(chunk)
        self._wanted, self._damaged = wanted, damaged

    def take_over(self, read: Callable[[memoryview, int], int], size: int, done: Callable[[int], object]) -> int:
        """Return how many bytes of a half-written copy of `size` are right, whole chunks only; go on from there."""
        buffer, place, right = memoryview(bytearray(READ)), 0, 0
        try:
            while place < size and (got := read(buffer[: min(READ, size - place)], place)):
                self(buffer[:got])
                place += got
                if not self._have:
                    done(place - right)
                    right = place
            if place == size and self._have:
                self.end()
                done(place - right)
                right = place
        except ArtifactError:
            pass
        self._digest, self._have = self._kept.copy(), 0
        return right

    def _mark(self) -> None:
        number = len(self._done)
        if number >= len(self._wanted) or self._digest.hexdigest() != self._wanted[number]:
            raise self._damaged(number)
        super()._mark()
