"""What a person sees while a verb runs (Progress, on stderr) and what it returns (Result, on stdout)."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from appliance.errors import ApplianceError, ExitCode

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a verb returns: text for people, one JSON envelope with `--json`."""

    command: str
    data: Any = None
    """Plain JSON-ready data."""
    text: str = ""
    exit_code: ExitCode = ExitCode.OK
    errors: tuple[ApplianceError, ...] = field(default=())

    def envelope(self) -> str:
        """Return the JSON envelope; `schema` changes when its shape does."""
        return json.dumps(
            {
                "schema": SCHEMA,
                "command": self.command,
                "status": "ok" if self.exit_code in (ExitCode.OK, ExitCode.PENDING) else "error",
                "exit_code": int(self.exit_code),
                "data": self.data,
                "errors": [{"code": int(e.code), "message": e.message, "hint": e.hint} for e in self.errors],
            },
            indent=2,
            ensure_ascii=False,
        )


class Progress(Protocol):
    """Told what happens; never decides anything."""

    def step(self, name: str, detail: str = "") -> None:
        """Begin a step: `name` is a stable word, `detail` for people."""

    def note(self, text: str) -> None:
        """Say one line."""

    def bar(self, label: str, total: int, *, unit: str = "bytes") -> "Bar":
        """Show how far a long piece of work is: `total` in `unit`, 0 = unknown."""


class Bar(Protocol):
    """A piece of work that advances."""

    def advance(self, amount: int, *, total: int = 0) -> None:
        """Say that `amount` more is done; `total` where it has become known."""

    def close(self) -> None:
        """Say that it is over."""


class _Quiet:
    def advance(self, amount: int, *, total: int = 0) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


def _line(text: str, stream: TextIO | None) -> bool:
    """Write a line unless the stream is closed; tell whether it is worth to go on."""
    try:
        if stream:
            print(text, file=stream, flush=True)
    except (OSError, ValueError):  # nobody reads any more; ValueError: a stream that Python closed
        return False
    return True


class Plain:
    """One line for each step, and now and then one for a long piece of work."""

    EVERY = 10.0
    """Seconds between two lines of one bar."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr  # None where it is closed
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line; a terminal that went away must not stop the work."""
        if not _line(text, self._stream):
            self._stream = None

    def step(self, name: str, detail: str = "") -> None:
        """Write `[seconds] name: detail`."""
        self.say(f"[{time.monotonic() - self._began:6.1f} s] {name}{': ' + detail if detail else ''}")

    def note(self, text: str) -> None:
        """Write an indented line."""
        self.say(f"           {text}")

    def bar(self, label: str, total: int, *, unit: str = "bytes") -> Bar:
        """Return a bar that writes a line each ten seconds."""
        return _PlainBar(self, label, total, unit)


class _PlainBar:
    def __init__(self, plain: Plain, label: str, total: int, unit: str) -> None:
        self._plain, self._label, self._total, self._unit = plain, label, total, unit
        self._done = 0
        self._said = time.monotonic()
        self._before = 0
        """What was done when the last line was written."""

    def advance(self, amount: int, *, total: int = 0) -> None:
        if not self._done:
            self._before = amount  # what an earlier run had done says nothing of the speed
        self._done += amount
        self._total = total or self._total
        passed = time.monotonic() - self._said
        if passed >= Plain.EVERY:
            share = f" ({100 * self._done // self._total} %{self._speed(passed)})" if self._total else ""
            self._plain.note(f"{self._label}: {amount_text(self._done, self._unit)}{share}")
            self._said, self._before = time.monotonic(), self._done

    def _speed(self, seconds: float) -> str:
        rate = (self._done - self._before) / max(seconds, 1)
        if self._unit != "bytes" or rate <= 0 or seconds < 1:
            return ""
        return f", {amount_text(int(rate))}/s, {duration_text((self._total - self._done) / rate)} left"

    def close(self) -> None:
        """Nothing to take back."""


class JsonLines:
    """One JSON object a line, for programs."""

    def _say(self, **event: object) -> None:
        _line(json.dumps(event), sys.stderr)

    def step(self, name: str, detail: str = "") -> None:
        """Write a step event."""
        self._say(event="step", name=name, detail=detail)

    def note(self, text: str) -> None:
        """Write a note event."""
        self._say(event="note", text=text)

    def bar(self, label: str, total: int, *, unit: str = "bytes") -> Bar:
        """Write when a piece of work begins."""
        self._say(event="work", label=label, total=total, unit=unit)
        return _Quiet()


class Terminal(Plain):
    """Steps as lines, long work as a bar that moves."""

    def bar(self, label: str, total: int, *, unit: str = "bytes") -> Bar:
        """Return a rich progress bar."""
        return _RichBar(label, total, unit)


class _RichBar:
    def __init__(self, label: str, total: int, unit: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Rich

        bytes_ = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._rich = Rich(
            TextColumn("           {task.description}"), BarColumn(),
            *(bytes_ if unit == "bytes" else (MofNCompleteColumn(), TimeElapsedColumn())),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._rich.add_task(label, total=total or None)
        self._rich.start()

    def advance(self, amount: int, *, total: int = 0) -> None:
        self._rich.update(self._task, advance=amount, total=total or None)

    def close(self) -> None:
        self._rich.stop()


def progress(*, json_lines: bool = False) -> Progress:
    """Choose by where stderr goes."""
    if json_lines:
        return JsonLines()
    return Terminal() if sys.stderr and sys.stderr.isatty() else Plain()


@contextmanager
def work(progress: Progress, label: str, total: int, *, unit: str = "bytes") -> Iterator[Bar]:
    """Show a bar while the block runs."""
    bar = progress.bar(label, total, unit=unit)
    try:
        yield bar
    finally:
        bar.close()


def duration_text(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def amount_text(amount: int, unit: str = "bytes") -> str:
    """Write an amount for people: bytes in binary units, all else as it is."""
    if unit != "bytes":
        return f"{amount} {unit}"
    size = float(amount)
    for name in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {name}" if name == "B" else f"{size:.1f} {name}"
        size /= 1024
    return f"{size:.1f} TiB"
