"""Reads a bundle in place: one file, several parts as one, or a directory, at any offset."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from appliance.errors import ArtifactError

WINDOW = 64 << 20
"""Bytes after which what was read is given back to the page cache: nobody reads it again soon."""

OPEN = 512
"""Files that are open at the same time; a process may have 1024 where nobody has changed that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One file with a stretch of the archive."""

    path: Path
    start: int
    """Of its stretch in the archive."""
    size: int
    """Bytes of the stretch."""
    skip: int = 0
    """Bytes of the file before it."""
    label: str = ""
    """What it is called in messages; "" = its path."""


class Volume:
    """An archive that is open for reading."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """Look at the files. Raises ArtifactError when one is shorter or longer than it should be."""
        self._pieces = tuple(pieces)
        self._files: dict[Path, int] = {}
        self._count = len({piece.path for piece in pieces})
        try:
            for piece in self._pieces:
                self._file(piece)
        except BaseException:
            self.close()
            raise

    @property
    def many(self) -> bool:
        """Tell whether there are so many files that some are closed meanwhile: then one thread at a time may read."""
        return self._count > OPEN

    def _file(self, piece: Piece) -> int:
        """Return the descriptor of a file; the one that was not used for the longest time makes room."""
        if piece.path not in self._files:
            if len(self._files) >= OPEN:
                os.close(self._files.pop(next(iter(self._files))))
            self._open(piece)
        elif self.many:
            self._files[piece.path] = self._files.pop(piece.path)
        return self._files[piece.path]

    def _open(self, piece: Piece) -> None:
        try:
            descriptor = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
            self._files[piece.path] = descriptor
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            found = os.fstat(descriptor).st_size
        except OSError as error:
            raise ArtifactError(f"{piece.path}: {error.strerror}") from None
        if found != piece.skip + piece.size:
            raise ArtifactError(
                f"{piece.label or piece.path}: {found:,} bytes, {piece.skip + piece.size:,} are promised",
                hint="copy it again",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def where(self, offset: int) -> str:
        """Return what holds a byte, for messages."""
        piece = self._piece(offset)
        return piece.label or str(piece.path) if piece else "the bundle"

    def holders(self, begin: int, end: int) -> str:
        """Return what holds the bytes from `begin` to before `end`, for messages."""
        there = [piece for piece in self._pieces if piece.start < end and begin < piece.start + piece.size]
        return " or ".join(piece.label or str(piece.path) for piece in there)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset` on; return how much that was, less only at the end of a piece."""
        piece = self._piece(offset)
        if piece is None:
            return 0
        inside = offset - piece.start
        room = view[: piece.size - inside]
        descriptor = self._file(piece)
        try:
            got = os.preadv(descriptor, (room,), piece.skip + inside)
        except OSError as error:
            raise ArtifactError(
                f"{self.where(offset)}: byte {piece.skip + inside:,} cannot be read: {error.strerror}",
                hint="copy it again, or try another medium",
            ) from None
        if not got:
            raise ArtifactError(f"{self.where(offset)}: it ends at byte {piece.skip + inside:,}", hint="copy it again")
        return got

    def place(self, offset: int) -> tuple[int, int, int]:
        """Return where a byte is: descriptor, offset in the file, bytes that follow there; 0 of them = nowhere."""
        piece = self._piece(offset)
        if piece is None:
            return -1, 0, 0
        inside = offset - piece.start
        return self._file(piece), piece.skip + inside, piece.size - inside

    def drop(self, begin: int, end: int) -> None:
        """Give the bytes from `begin` to before `end` back to the page cache: whoever read them is done."""
        while begin < end and (piece := self._piece(begin)):
            inside = begin - piece.start
            some = min(end - begin, piece.size - inside)
            os.posix_fadvise(self._file(piece), piece.skip + inside, some, os.POSIX_FADV_DONTNEED)
            begin += some

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes."""
        content = bytearray(size)
        view, have = memoryview(content), 0
        while have < size:
            got = self.read_into(offset + have, view[have:])
            if not got:
                raise ArtifactError(f"{self.where(offset)}: byte {offset + have:,} of the bundle is not there")
            have += got
        return bytes(content)

    def _piece(self, offset: int) -> Piece | None:
        low, high = 0, len(self._pieces)
        while low < high:
            middle = (low + high) // 2
            if self._pieces[middle].start + self._pieces[middle].size <= offset:
                low = middle + 1
            else:
                high = middle
        if low == len(self._pieces) or self._pieces[low].start > offset:
            return None
        return self._pieces[low]


class Trail:
    """What one reader leaves behind, dropped a window at a time: others read elsewhere in the same file meanwhile."""

    def __init__(self, volume: Volume, begin: int) -> None:
        self._volume, self._begin = volume, begin

    def __call__(self, end: int) -> None:
        """Say that all before a byte was read."""
        if end - self._begin >= WINDOW:
            self._volume.drop(self._begin, end)
            self._begin = end
