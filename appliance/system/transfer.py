"""Brings large files to the disk: several at a time, resumed after any break, shown only when their digest matched."""

import hashlib
import http.client
import os
import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from appliance.system.machine import sync
from appliance.system.web import LONGEST, TIMEOUT, Remote, WebError, ask, broken

WORKERS = 3
"""Files at the same time: more than one hides a slow start, many would be in each other's way on a disk."""
BLOCK = 1 << 20
"""Bytes in memory for each file."""
TRIES = 6
"""Breaks in a row, without a byte in between, after which a transfer gives up."""
PAUSE = 1.0
"""Seconds before the second try; each further pause is twice as long, up to half a minute."""

AHEAD = 8
"""Blocks of a file that wait for being digested."""
STRIDE = 64 << 20
"""Bytes after which the kernel is told to begin to write: else the end of a file would wait for the whole of it."""

OnBytes = Callable[[int], None]


class WrongBytesError(Exception):
    """What came is not what was promised; nothing of it is left."""

    def __init__(self, url: str, found: str, promised: str) -> None:
        super().__init__(f"{url}: {found}, {promised} was promised")
        self.url, self.found, self.promised = url, found, promised


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One file to be had."""

    remote: Remote
    target: Path
    """Shows up there when it is whole; until then `NAME.part` beside it grows."""
    size: int
    """Bytes."""
    sha256: str
    """Hex; it says whether a half file on the disk belongs to it, so no server's word on that is needed."""


def part(target: Path) -> Path:
    """Return where a file lies while it is not whole."""
    return target.with_name(f"{target.name}.part")


def transfer(wanted: Iterable[Wanted], *, certificates: str, on_bytes: OnBytes, workers: int = WORKERS) -> None:
    """Fetch files; the first failure ends it, and whatever came stays for the next time.

    `on_bytes` hears how many bytes more are there, those of an earlier run at once, a negative number for those that
    were in vain. Raises WebError, WrongBytesError and OSError.
    """
    waiting: queue.SimpleQueue[Wanted] = queue.SimpleQueue()
    for one in wanted:
        waiting.put(one)
    stop = threading.Event()
    lock = threading.Lock()
    failures: list[Exception] = []

    def said(amount: int) -> None:
        with lock:
            on_bytes(amount)

    def work() -> None:
        with suppress(queue.Empty):
            while not stop.is_set():
                one = waiting.get_nowait()
                try:
                    _bring(one, certificates, said, stop)
                except (WebError, WrongBytesError, OSError) as error:
                    failures.append(error)
                    stop.set()

    # Daemons: whoever interrupts us need not wait until a silent server is given up.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
    finally:
        stop.set()
    if failures:
        raise failures[0]


def _bring(wanted: Wanted, certificates: str, said: OnBytes, stop: threading.Event) -> None:
    draft = part(wanted.target)
    if wanted.target.exists():
        said(wanted.size)
        return
    draft.parent.mkdir(parents=True, exist_ok=True)
    for last in (False, True):
        with _Draft(draft, wanted, said) as stream:
            resumed = stream.have > 0
            _fill(stream, certificates, stop)
        if stop.is_set() and stream.have < wanted.size:
            return
        found = f"{stream.have + stream.over:,} bytes" if stream.over else f"sha256 {stream.digest.hexdigest()}"
        if found == f"sha256 {wanted.sha256}":
            break
        draft.unlink()
        said(-stream.have)
        # What lay there from an earlier run may be what was wrong: once more from nothing.
        if last or not resumed:
            promised = f"{wanted.size:,} bytes" if stream.over else wanted.sha256
            raise WrongBytesError(wanted.remote.url, found, promised)
    draft.chmod(0o644)
    draft.rename(wanted.target)
    sync(wanted.target.parent)


class _Digest:
    """SHA-256 by a thread of its own: the next bytes come meanwhile."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._blocks: queue.Queue[bytes | memoryview | None] = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._sha.update(block)

    def update(self, block: bytes | memoryview) -> None:
        """Digest bytes that nobody changes any more."""
        self._blocks.put(block)

    def close(self) -> None:
        """End the thread when all is digested."""
        if self._thread.is_alive():
            self._blocks.put(None)
            self._thread.join()

    def hexdigest(self) -> str:
        """Return the digest of everything."""
        self.close()
        return self._sha.hexdigest()


class _Draft:
    """The half file on the disk, and the digest of what it holds."""

    def __init__(self, path: Path, wanted: Wanted, said: OnBytes) -> None:
        self.wanted, self.said = wanted, said
        self.digest = _Digest()
        self.have = 0
        self.over = 0
        """Bytes that came beyond those that were promised."""
        self._flushed = 0
        self._stream = path.open("a+b", buffering=0)
        if self._stream.seek(0, os.SEEK_END) > wanted.size:
            self._stream.truncate(0)
        self._stream.seek(0)
        while block := self._stream.read(4 * BLOCK):
            self.digest.update(block)
            self.have += len(block)
        self._flushed = self.have
        self.said(self.have)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.digest.close()
        with suppress(OSError):
            os.fsync(self._stream.fileno())
        self._stream.close()

    def take(self, block: memoryview) -> None:
        """Append bytes."""
        room = self.wanted.size - self.have
        self.over += max(0, len(block) - room)
        block = left = block[:room]
        while left:
            left = left[self._stream.write(left) or 0 :]
        self.digest.update(block)
        self.have += len(block)
        self.said(len(block))
        if self.have - self._flushed >= STRIDE:
            os.posix_fadvise(self._stream.fileno(), self._flushed, STRIDE, os.POSIX_FADV_DONTNEED)
            self._flushed += STRIDE

    def empty(self) -> None:
        """Begin again."""
        self._stream.truncate(0)
        self.said(-self.have)
        self.digest.close()
        self.digest, self.have, self._flushed = _Digest(), 0, 0


def _fill(draft: _Draft, certificates: str, stop: threading.Event) -> None:
    """Fetch what is missing, over as many connections as it takes."""
    failed = 0
    while draft.have < draft.wanted.size and not stop.is_set():
        before = draft.have
        try:
            _receive(draft, certificates, stop)
        except WebError as error:
            failed = 1 if draft.have > before else failed + 1
            # A network that goes away takes names and servers with it, for a while.
            again = error.passing or error.kind in ("name", "refused")
            if not again or failed >= TRIES or error.wait > LONGEST:
                raise
            stop.wait(error.wait or min(PAUSE * 2 ** (failed - 1), 30.0))


def _receive(draft: _Draft, certificates: str, stop: threading.Event) -> None:
    wanted = draft.wanted
    with ask(wanted.remote, certificates=certificates, start=draft.have, timeout=TIMEOUT) as response:
        if draft.have and not _goes_on(response, draft.have):
            draft.empty()
        try:
            # What has come, and no waiting for more: a connection that breaks loses nothing.
            while not stop.is_set() and not draft.over and (block := response.read1(BLOCK)):
                draft.take(memoryview(block))
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in DISK:
                raise
            raise broken(wanted.remote.url, error) from None
    if draft.have < wanted.size and not stop.is_set():
        raise WebError(wanted.remote.url, kind="cut", reason=f"{draft.have:,} of {wanted.size:,} bytes came")


def _goes_on(response: http.client.HTTPResponse, start: int) -> bool:
    """Whether the answer begins where we asked it to."""
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


DISK = frozenset({5, 27, 28, 30, 122})
"""Errors of our disk and not of the network: EIO, EFBIG, ENOSPC, EROFS, EDQUOT."""
