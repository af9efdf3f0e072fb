"""A remote file's beginning as a stream: what a parser of headers reads comes by range requests, and nothing else."""

import http.client
import io
import os
from pathlib import Path

from appliance.system.web import TIMEOUT, Remote, WebError, ask, broken, patiently

FIRST = 256 << 10
"""Bytes of the first request: most safetensors headers are smaller; each further request asks for twice as much."""
LARGEST = 8 << 20
"""Bytes of one request: no more lies in memory at a time."""


class RangeReader(io.RawIOBase):
    """Reads `remote`, a file of `size` bytes; refuses to go past `limit`.

    Every byte that it fetched is written to `copy` too, at its own place: a file with holes that a second reader can
    open like the whole one.
    """

    def __init__(self, remote: Remote, size: int, copy: Path, *, limit: int, certificates: str = "") -> None:
        super().__init__()
        self._remote, self._size, self._limit, self._certificates = remote, size, limit, certificates
        self._at = 0
        self._start = 0
        self._window = b""
        self._step = FIRST
        self._copy = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._copy, size)

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def seekable(self) -> bool:
        """It can be sought in."""
        return True

    def tell(self) -> int:
        """Return the place in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; nothing is fetched."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Read that many bytes, fewer only at the end. Raises WebError."""
        if size < 0 or self._at + size > self._size:
            size = max(0, self._size - self._at)
        if self._at + size > self._limit:
            raise WebError(self._remote.url, kind="other", reason=f"its header goes past byte {self._limit:,}")
        parts = []
        while size:
            if not self._start <= self._at < self._start + len(self._window):
                self._load(size)
            at = self._at - self._start
            part = self._window[at : at + size]
            parts.append(part)
            self._at += len(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the copy."""
        if not self.closed:
            os.close(self._copy)
        super().close()

    def _load(self, wanted: int) -> None:
        step = max(self._step, min(wanted, LARGEST))
        end = min(self._at + step, self._size)
        self._window = patiently(lambda: self._fetch(self._at, end))
        self._start = self._at
        self._step = min(2 * self._step, LARGEST)
        os.pwrite(self._copy, self._window, self._start)

    def _fetch(self, start: int, end: int) -> bytes:
        with ask(self._remote, certificates=self._certificates, start=start, end=end, timeout=TIMEOUT) as response:
            # A server that knows no ranges sends the whole; its beginning will do, all else would be a download.
            if start and response.status != 206:
                raise WebError(self._remote.url, kind="other", reason="it sends no ranges of files")
            try:
                content = response.read(end - start)
            except (OSError, http.client.HTTPException) as error:
                raise broken(self._remote.url, error) from None
        if len(content) < end - start:
            raise WebError(self._remote.url, kind="cut", reason=f"{len(content):,} of {end - start:,} bytes came")
        return content
