"""An open bundle: signature and index checked first, then each payload as it is read, chunk by chunk."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from appliance.acquire.bundle import files
from appliance.acquire.bundle.digests import READ, Check
from appliance.bundle import index as indexes
from appliance.bundle import keys, oci, parts, tar
from appliance.bundle.index import Component, Index, Payload
from appliance.errors import ArtifactError
from appliance.report import Bar, Progress, work
from appliance.system.flush import WINDOW, Flusher
from appliance.system.pump import Take, pump
from appliance.system.splice import splice
from appliance.system.volume import Trail, Volume

SMALL: Final = 64 << 20
"""Bytes of a payload that is read into memory."""
UNSIGNED: Final = "it is not signed"


class Reader:
    """A bundle whose index can be believed as far as its signature can."""

    def __init__(
        self, path: Path, volume: Volume, index: Index, key: keys.Key | None, content: bytes, claimed: str
    ) -> None:
        self.path, self.volume, self.index, self.key, self.content = path, volume, index, key, content
        self.claimed = claimed
        """Id of the key that it says to be signed by, whether that is so or not."""
        self._framed = not path.is_dir()
        self._by_digest = {one.digest: one for one in index.payloads}
        self._named = dict(_named(index.components))
        place, self._begins = tar.first(len(content)), dict[str, int]()
        for one in index.payloads:
            self._begins[one.digest] = place
            place = tar.after(one.offset, one.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.volume.close()

    @property
    def identity(self) -> str:
        """SHA-256 (hex) of its bundle.json."""
        return files.identity(self.content)

    def has(self, digest: str) -> bool:
        """Tell whether a payload is in here."""
        return digest in self._by_digest

    def payload(self, digest: str) -> Payload:
        """Return a payload. Raises ArtifactError when it is not in here."""
        try:
            return self._by_digest[digest]
        except KeyError:
            raise ArtifactError(f"{self.path}: blob {digest} is not in this bundle") from None

    def read(self, digest: str) -> bytes:
        """Return a small payload whose digest matched. Raises ArtifactError."""
        payload = self.payload(digest)
        if payload.size > SMALL:
            raise ArtifactError(f"{self.path}: {self.label(payload)}: {payload.size:,} bytes are too many to be read")
        kept = bytearray()
        self.copy(payload, (kept.extend,))
        return bytes(kept)

    def copy(self, payload: Payload, takers: Sequence[Take], *, start: int = 0, check: Check | None = None) -> None:
        """Hand a payload to `takers`, whole or from where `check` has come. Raises ArtifactError where it is damaged.

        They get bytes before those are checked; what they make of them must not show until this has returned.
        """
        self._check_frame(payload)
        place, check = payload.offset + start, check or self.check(payload)
        read = Trail(self.volume, place)

        def fill(view: memoryview) -> int:
            nonlocal place
            got = self.volume.read_into(place, view)
            place += got
            read(place)
            return got

        try:
            pump(fill, (check, *takers), payload.size - start)
            check.end()
        except EOFError:
            raise ArtifactError(f"{self.volume.where(place)}: it ends before {self.label(payload)} does") from None

    def write(self, payload: Payload, stream: int, check: Check, start: int, done: Callable[[int], object]) -> None:
        """Write a payload into a file, from where `check` has come; `done` hears of bytes. Raises ArtifactError.

        What the file holds then is what was checked.
        """
        self._check_frame(payload)
        begin, place, settled = payload.offset, start, start
        read = Trail(self.volume, begin + start)

        def wrote(amount: int) -> None:
            nonlocal place, settled
            done(amount)
            place += amount
            read(begin + place)
            if place - settled >= WINDOW:
                flusher.push(stream, place)
                settled = place

        def look(view: memoryview) -> None:
            check(view)
            wrote(len(view))

        def take(view: memoryview) -> None:
            while view:
                amount = os.pwrite(stream, view, place)
                wrote(amount)
                view = view[amount:]

        size = payload.size - start
        with Flusher() as flusher:
            splice(lambda at: self.volume.place(begin + start + at), lambda at: (stream, start + at, size), size, look)
            self.copy(payload, (take,), start=place, check=check)

    def blocks(self, payload: Payload) -> Iterator[bytes]:
        """Yield a payload's bytes, before they are checked as with `copy`. Raises ArtifactError where it is damaged."""
        yield from map(bytes, self._views(payload))

    def check(self, payload: Payload) -> Check:
        """Return what compares a payload's bytes with the index as they come."""
        wanted = (*payload.chunks, payload.digest)
        return Check(wanted, self.index.chunk, lambda number: self._damaged(payload, number))

    def label(self, payload: Payload) -> str:
        """Return what a payload is called, for people."""
        name = self._named.get(payload.digest, payload.kind)
        return f"{name} (blob {payload.digest[:16]})"

    def verify(self, progress: Progress) -> int:
        """Check every byte; return how many. Raises ArtifactError that names the first damaged place."""
        self.check_head()
        workers = 1 if self.volume.many else min(4, os.cpu_count() or 1)
        with (
            work(progress, f"reading {self.path.name}", self.index.size) as bar,
            ThreadPoolExecutor(workers) as pool,
        ):
            # The largest first: the others fit in beside it.
            payloads = sorted(self.index.payloads, key=lambda one: -one.size)
            tasks = [pool.submit(self._checked, payload, bar) for payload in payloads]
            try:
                for task in as_completed(tasks):
                    task.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return self.index.size

    def _views(self, payload: Payload) -> Iterator[memoryview]:
        self._check_frame(payload)
        check, buffer, place = self.check(payload), memoryview(bytearray(min(READ, payload.size))), 0
        read = Trail(self.volume, payload.offset)
        while place < payload.size:
            view = buffer[: payload.size - place]
            view = view[: self.volume.read_into(payload.offset + place, view)]
            check(view)
            place += len(view)
            read(payload.offset + place)
            yield view
        check.end()

    def _checked(self, payload: Payload, bar: Bar) -> None:
        for view in self._views(payload):
            bar.advance(len(view))

    def _damaged(self, payload: Payload, number: int) -> ArtifactError:
        start = number * self.index.chunk
        end = min(start + self.index.chunk, payload.size)
        where = self.volume.holders(payload.offset + start, payload.offset + end)
        return ArtifactError(
            f"{where}: {self.label(payload)} is damaged in bytes {start:,} to {end:,}: their SHA-256 is another",
            hint="copy it again from where it was made",
        )

    def check_head(self) -> None:
        """Compare all that the index does not give digests of: it determines those bytes, too."""
        if not self._framed:
            return
        for name, place, size in tar.head(len(self.content)):
            self._same(place, tar.header(name, size), f"the header of {name}")
            self._same(place + tar.BLOCK + size, bytes(tar.padded(size) - size), f"what follows {name}")
            if name == tar.LAYOUT:
                self._same(place + tar.BLOCK, tar.LAYOUT_CONTENT, name)
            if name == tar.OCI:
                last = self.index.payloads[-1] if self.index.payloads else None
                content = oci.index(last.digest, last.size) if last else b""
                self._same(place + tar.BLOCK, content, name)
        self._same(self.index.size - 2 * tar.BLOCK, bytes(2 * tar.BLOCK), "its end")

    def _check_frame(self, payload: Payload) -> None:
        if not self._framed:
            return
        begin = self._begins[payload.digest]
        lead = tar.lead(payload.digest, payload.size, begin)
        self._same(begin, lead, f"the header of {self.label(payload)}")
        tail = bytes(tar.padded(payload.size) - payload.size)
        self._same(payload.offset + payload.size, tail, f"what follows {self.label(payload)}")

    def _same(self, place: int, wanted: bytes, what: str) -> None:
        if wanted and self.volume.read(place, len(wanted)) != wanted:
            raise ArtifactError(f"{self.volume.where(place)}: {what} is damaged", hint="copy it again")


def open_bundle(
    path: Path, *, places: tuple[Path, ...] = (), trusted: tuple[keys.Key, ...] = (), allow_unsigned: bool = False,
    unchecked: bool = False,
) -> Reader:  # fmt: skip
    """Open a bundle and check its signature and index. Raises ArtifactError and UsageError.

    With `unchecked` only the index is read, whoever signed it: to show it, never to use it.
    """
    volume, part = files.volume(path, places)
    try:
        content, signature = _index_of(path, volume)
        key = None if unchecked else _signer(path, content, signature, trusted, allow_unsigned=allow_unsigned)
        _check_part(volume, part, content)
        index = indexes.load(content, source=str(path))
        if path.is_dir():
            volume.close()
            volume = files.blobs(path, index, len(content))
        else:
            _check_size(volume, index, path)
        reader = Reader(path, volume, index, key, content, keys.claimed(signature))
        reader.check_head()
    except BaseException:
        volume.close()
        raise
    return reader


def _signer(
    path: Path, content: bytes, signature: bytes, trusted: tuple[keys.Key, ...], *, allow_unsigned: bool
) -> keys.Key | None:
    key = keys.signer(content, signature, trusted, source=str(path))
    if key is None and not allow_unsigned:
        raise ArtifactError(f"{path}: {UNSIGNED}", hint="take it all the same: --allow-unsigned")
    return key


def _check_part(volume: Volume, part: parts.Part | None, content: bytes) -> None:
    if part and part.bundle != files.identity(content):
        raise ArtifactError(f"{volume.where(0)}: index and header are not of the same bundle: one was changed")


def _index_of(path: Path, volume: Volume) -> tuple[bytes, bytes]:
    """Return the bytes of bundle.json and of its signature."""
    if path.is_dir():
        size = (path / tar.INDEX).stat().st_size
    else:
        first = volume.read(0, tar.BLOCK)
        digits = first[124:135]
        size = int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else 0
        if first != tar.header(tar.INDEX, size):
            raise ArtifactError(f"{volume.where(0)}: it is no bundle, or its beginning is damaged")
    if not 0 < size <= indexes.LARGEST:
        raise ArtifactError(f"{path}: an index of {size:,} bytes; at most {indexes.LARGEST:,} are read")
    content = volume.read(tar.BLOCK, size)
    _, place, length = tar.head(size)[1]
    return content, volume.read(place + tar.BLOCK, length)


def _check_size(volume: Volume, index: Index, path: Path) -> None:
    """Raise ArtifactError when there is more or less than the index says."""
    try:
        volume.read(index.size - 1, 1)
    except ArtifactError as error:
        raise ArtifactError(
            f"{error.message}; its index promises {index.size:,} bytes: {path.name} is cut off", hint="copy it again"
        ) from None
    if volume.read_into(index.size, memoryview(bytearray(1))):
        raise ArtifactError(f"{path}: it goes on after the {index.size:,} bytes that its index promises")


def _named(components: Iterable[Component]) -> Iterator[tuple[str, str]]:
    for one in components:
        for digest, name in zip(one.payloads, one.files or (one.kind,) * len(one.payloads), strict=True):
            yield digest, f"{name} of {one.name}"
