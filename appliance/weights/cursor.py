"""A forward-only reader for GGUF headers that never goes past the end of the file or past its cap."""

import struct
from typing import BinaryIO

from appliance.errors import ArtifactError
from appliance.weights.files import AGAIN

MAX_HEADER = 256 << 20
"""Bytes; the largest vocabularies known (262,144 tokens with their merges) take about 20 MiB."""
MAX_STRINGS = 8_000_000
"""Array elements skipped in one header: bounds the time, for a string may be empty and take 8 bytes only."""
_CHUNK = 1 << 20
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Cursor:
    """Reads values one after the other from `stream`, whose size in bytes is `size`; `name` is for messages.

    It reads by chunks and not by mmap, because a mapped file that another process shortens kills the reader.
    Every method raises ArtifactError where the header goes past the end of the file or past MAX_HEADER.
    """

    def __init__(self, stream: BinaryIO, size: int, name: str) -> None:
        self._stream = stream
        self._size = size
        self._name = name
        self._window = b""
        self._start = 0
        self._at = 0
        self._strings_left = MAX_STRINGS

    @property
    def position(self) -> int:
        """Bytes from the start of the file."""
        return self._start + self._at

    def error(self, what: str, *, hint: str = AGAIN) -> ArtifactError:
        """Make the error that says `what` is wrong with this file."""
        return ArtifactError(f"{self._name}: {what}", hint=hint)

    def u32(self) -> int:
        """Read the next 4 bytes as an unsigned number."""
        return self.number(_U32)

    def u64(self) -> int:
        """Read the next 8 bytes as an unsigned number."""
        return self.number(_U64)

    def number(self, packed: struct.Struct) -> int:
        """Read the next value in `packed`, a format of one integer."""
        at = self._reserve(packed.size)
        self._at = at + packed.size
        value: int = packed.unpack_from(self._window, at)[0]
        return value

    def numbers(self, packed: struct.Struct, count: int) -> tuple[int, ...]:
        """Read the next `count` values; the caller bounds `count`."""
        return tuple(self.number(packed) for _ in range(count))

    def text(self, limit: int, what: str) -> str:
        """Read the next string, which may be `limit` bytes long at most."""
        length = self.u64()
        if length > limit:
            raise self.error(f"{what} at byte {self.position - 8:,} claims {length:,} bytes; {limit:,} are allowed")
        at = self._reserve(length)
        self._at = at + length
        try:
            return self._window[at : at + length].decode()
        except UnicodeDecodeError:
            raise self.error(f"{what} at byte {self.position - length:,} is not valid UTF-8") from None

    def skip_string(self) -> int:
        """Pass over the next string unread; its length in bytes."""
        length = self.u64()
        self.skip(length)
        return length

    def skip(self, length: int) -> None:
        """Pass over `length` bytes unread."""
        self._at += length
        self._check(0)

    def skip_strings(self, count: int) -> None:
        """Pass over `count` strings unread: about 10 million a second."""
        # Each takes 8 bytes at least, so that a claim beyond the file is refused before the loop.
        self._check(8 * count)
        self._strings_left -= count
        if self._strings_left < 0:
            raise self.error(f"its arrays hold more than {MAX_STRINGS:,} strings")
        unpack, window, at = _U64.unpack_from, self._window, self._at
        for _ in range(count):
            if at + 8 > len(window):
                self._at = at
                at = self._reserve(8)
                window = self._window
            at += 8 + unpack(window, at)[0]
        self._at = at
        self._check(0)

    def _reserve(self, length: int) -> int:
        """Where in the window the next `length` bytes begin, all of them loaded; `length` is at most a chunk."""
        if self._at + length > len(self._window):
            self._check(length)
            self._start, self._at = self.position, 0
            self._stream.seek(self._start)
            self._window = self._stream.read(min(_CHUNK, self._size - self._start))
            if len(self._window) < length:
                raise self.error(f"became shorter while it was read: {self._size:,} bytes at first")
        return self._at

    def _check(self, ahead: int) -> None:
        end = self.position + ahead
        if end > self._size:
            raise ArtifactError(
                f"{self._name} is truncated: has {self._size:,} bytes, its header alone promises {end:,} or more",
                hint=AGAIN,
            )
        if end > MAX_HEADER:
            raise self.error(f"its header goes on past byte {end:,}; {MAX_HEADER:,} bytes are allowed")
