"""Writes a bundle in one pass: payloads as they come, then index and signature into the place left for them."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from appliance.acquire.bundle.digests import Marks
from appliance.acquire.bundle.files import identity
from appliance.acquire.bundle.fills import Bytes, File
from appliance.acquire.bundle.journal import Journal
from appliance.bundle import index as indexes
from appliance.bundle import oci, parts, tar
from appliance.bundle.index import CHUNK, Base, Index, Payload
from appliance.errors import ArtifactError
from appliance.report import Bar
from appliance.system.pump import BLOCK, Fill, pump
from appliance.system.splice import splice
from appliance.system.spool import Spool

SETTLED: Final = 64 << 20
"""Bytes after which what was written is brought to the disk and into the journal: as much may be written again."""
DESCRIBING: Final = ("plan", "sbom", "manifest")
"""Kinds of payloads that every bundle has of its own, whatever the target has."""

Sign = Callable[[bytes], bytes]


class Archive:
    """A bundle that is being written. The same inputs, said in the same order, give the same bytes.

    A run that was killed is taken up: what its journal says is done is not written again.
    """

    def __init__(
        self, target: Path, *, slot: int, mark: str, split: int, chunk: int, base: frozenset[str], bar: Bar
    ) -> None:
        """Write to `target`; `slot` bytes are for the index, `mark` tells whether a journal is of this bundle."""
        self.target, self._slot, self._chunk, self._base, self._bar = target, slot, chunk, base, bar
        self._split = split
        self._spool = Spool(target, room=split - parts.HEADER if split else 0, skip=parts.HEADER if split else 0)
        self._place = tar.first(slot)
        self.payloads: list[Payload] = []
        self.left_out: dict[str, Base] = {}
        self._known: set[str] = set()
        self._journal = Journal(target.with_name(f".{target.name}.journal"), f"{mark} {slot} {split} {chunk}")
        self._unsettled = 0

    def __enter__(self) -> Self:
        # What is said to be done must be there: a run may have been killed while it showed its parts.
        self._journal.keep(self._spool.have())
        if not self._journal.lines:
            self._spool.discard()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()
        self._journal.close()

    def add(self, kind: str, content: bytes) -> str:
        """Add a small payload and return its digest."""
        return self.stream(kind, len(content), Bytes(content), known=hashlib.sha256(content).hexdigest())

    def file(self, kind: str, path: Path, size: int, *, known: str = "") -> str:
        """Add a file; with `known` its digest must be that one. Raises ArtifactError when it changed meanwhile."""
        with File(path) as fill:
            return self.stream(kind, size, fill, known=known, name=str(path))

    def stream(self, kind: str, size: int, fill: Fill, *, known: str = "", name: str = "") -> str:
        """Add `size` bytes and return their digest; what is in here or in the base already is left out."""
        if known and self._here(known, size, kind):
            self._bar.advance(size)
            return known
        done = self._journal.next()
        if done is not None:
            if (done.kind, done.size) != (kind, size) or known not in ("", done.digest):
                raise ArtifactError(f"{name or kind}: it changed since an earlier run put it into the bundle")
            return self._settle(done)
        payload = self._write(kind, size, fill, known, name)
        if not known and self._here(payload.digest, size, kind):
            self._journal.add(payload)
            return payload.digest  # the next one is written over it
        lead = tar.lead(payload.digest, size, self._place)
        self._spool.write(self._place, lead)
        self._spool.write(payload.offset + size, bytes(tar.padded(size) - size))
        self._unsettled += size
        self._journal.add(payload)
        if self._unsettled >= SETTLED:
            self.settle()
        return self._append(payload)

    def settle(self) -> None:
        """Bring what was written to the disk, then say so in the journal."""
        self._spool.settle()
        self._journal.flush()
        self._unsettled = 0

    def finish(self, index: Callable[[tuple[Payload, ...], tuple[Base, ...], int], Index], sign: Sign | None) -> Index:
        """Add the OCI manifest, write index and signature, and show the bundle under its name."""
        self.add("manifest", oci.EMPTY)
        manifest = oci.manifest(self.payloads)
        digest = self.add("manifest", manifest)
        size = tar.end(self._place)
        made = index(tuple(self.payloads), tuple(self.left_out[key] for key in sorted(self.left_out)), size)
        content = indexes.dump(made)
        if len(content) > self._slot:
            raise ArtifactError(f"{self.target}: an index of {len(content)} bytes, {self._slot} were left for it")
        content = content.ljust(self._slot, b" ")
        for problem in indexes.problems(made, self._slot):
            raise ArtifactError(f"{self.target}: {problem}")
        signature = (sign(content) if sign else b"").ljust(tar.SIGNATURE_SIZE, b"\n")
        contents = (content, signature, tar.LAYOUT_CONTENT, oci.index(digest, len(manifest)))
        for (name, place, length), inside in zip(tar.head(self._slot), contents, strict=True):
            self._spool.write(place, tar.header(name, length) + inside + bytes(tar.padded(length) - length))
        self._spool.write(self._place, bytes(2 * tar.BLOCK))
        self._show(content, size)
        return made

    def _show(self, content: bytes, size: int) -> None:
        if not self._split:
            self.files = self._spool.finish(size, (), (self.target.name,))
        else:
            room = self._split - parts.HEADER
            count = -(-size // room)
            headers = [
                parts.header(
                    parts.Part(
                        bundle=identity(content), number=number + 1, of=count, offset=number * room,
                        size=min(room, size - number * room),
                    )
                )
                for number in range(count)
            ]  # fmt: skip
            self.files = self._spool.finish(size, headers, parts.names(self.target.name, count))
        self._journal.remove()

    def discard(self) -> None:
        """Remove what was written."""
        self._spool.discard()
        self._journal.remove()

    def _here(self, digest: str, size: int, kind: str) -> bool:
        if digest in self._base and kind not in DESCRIBING:
            self.left_out[digest] = Base(digest=digest, size=size)
            return True
        return digest in self._known

    def _write(self, kind: str, size: int, fill: Fill, known: str, name: str) -> Payload:
        offset = place = tar.data(self._place)
        marks = Marks(self._chunk)

        def look(view: memoryview) -> None:
            nonlocal place
            marks(view)
            self._spool.wrote(place, len(view))
            place += len(view)
            self._bar.advance(len(view))
            if isinstance(fill, File):
                fill.skip(len(view))

        def take(view: memoryview) -> None:
            nonlocal place
            self._spool.write(place, view)
            place += len(view)
            self._bar.advance(len(view))

        try:
            if isinstance(fill, File) and size > BLOCK:
                splice(fill.place, lambda at: self._spool.place(offset + at), size, look)
            pump(fill, (marks, take), offset + size - place)
        except EOFError:
            raise ArtifactError(f"{name or kind}: it became shorter while it was read") from None
        *chunks, digest = marks.end()
        if known not in ("", digest):
            raise ArtifactError(
                f"{name or kind}: its SHA-256 is {digest}, it was {known}", hint="it changed meanwhile; try again"
            )
        return Payload(digest=digest, size=size, offset=offset, kind=kind, chunks=tuple(chunks))

    def _settle(self, done: Payload) -> str:
        """Take over what an earlier run has written."""
        self._bar.advance(done.size)
        if self._here(done.digest, done.size, done.kind):
            return done.digest
        if done.offset != tar.data(self._place):
            raise ArtifactError(f"{self.target}: the journal of an earlier run does not fit", hint="remove it")
        return self._append(done)

    def _append(self, payload: Payload) -> str:
        self.payloads.append(payload)
        self._known.add(payload.digest)
        self._place = tar.after(payload.offset, payload.size)
        return payload.digest


def chunk_size(total: int) -> int:
    """Return how many bytes are verified at once in a bundle of so many: 64 MiB, or more beyond 65,536 chunks."""
    chunk = CHUNK
    while total > chunk << 16:
        chunk *= 2
    return chunk


def slot(payloads: Sequence[int], components: int, chunk: int, more: int = 0) -> int:
    """Return the bytes to keep free for the index of payloads of these sizes, and for so many bytes more."""
    chunks = sum(-(-size // chunk) for size in payloads if size > chunk)
    room = 8192 + 460 * (len(payloads) + 2) + 70 * chunks + 900 * components + more
    return -(-room // 4096) * 4096
