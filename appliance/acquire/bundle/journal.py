"""What of a bundle that is being written is on the disk for sure: so that a run which was killed can be taken up."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from appliance import codec
from appliance.bundle import index as indexes
from appliance.bundle.index import Payload
from appliance.errors import SpecError


class Journal:
    """What of a bundle is on the disk for sure, one payload a line."""

    def __init__(self, path: Path, mark: str) -> None:
        """Read what an earlier run has written, if it was of the same inputs: `mark` tells."""
        self._path = path
        self._mark = hashlib.sha256(mark.encode()).hexdigest()
        self.lines = self._read()
        self._next = 0
        self._waiting: list[Payload] = []
        self._stream: int | None = None

    def _read(self) -> list[Payload]:
        try:
            first, *rest = self._path.read_bytes().split(b"\n")
        except (OSError, ValueError):
            return []
        found: list[Payload] = []
        if first.decode(errors="replace") != self._mark:
            return []
        for line in rest:
            try:
                found.append(codec.load_json(Payload, line, source=str(self._path), limit=indexes.LARGEST))
            except SpecError:
                break  # the line that the kill cut off
        return found

    def keep(self, size: int) -> None:
        """Forget what lies beyond so many bytes."""
        fits = [one.offset + one.size <= size for one in self.lines]
        del self.lines[fits.index(False) if False in fits else len(fits) :]

    def next(self) -> Payload | None:
        """Return the next payload that is done already."""
        if self._next >= len(self.lines):
            return None
        self._next += 1
        return self.lines[self._next - 1]

    def add(self, payload: Payload) -> None:
        """Remember a payload until it is on the disk."""
        self._waiting.append(payload)

    def flush(self) -> None:
        """Write down what is on the disk now."""
        if self._stream is None:
            kept = [self._mark, *(json.dumps(asdict(one)) for one in self.lines)]
            draft = self._path.with_name(f"{self._path.name}.new")
            draft.write_text("\n".join(kept) + "\n")
            draft.replace(self._path)
            self._stream = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        text = "".join(json.dumps(asdict(one)) + "\n" for one in self._waiting)
        os.write(self._stream, text.encode())
        os.fsync(self._stream)
        self._waiting.clear()

    def remove(self) -> None:
        """Forget everything."""
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            os.close(self._stream)
            self._stream = None
