"""Asks everything at once: what gives no answer in time is left behind and named, all the rest is told."""

import posixpath
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Generic, TypeVar

from appliance.domain.changes import Command, Completed, File
from appliance.system.machine import Machine, OnLine

T = TypeVar("T")

ANSWER: Final = 5.0
"""Seconds that one program may take."""
PATIENCE: Final = 12.0
"""Seconds that one probe may take, whatever it asks. A program that waits for a broken driver in the kernel cannot
even be killed, and whoever waits for its end waits for ever."""


class Watched:
    """A machine that knows which programs, asked through it, gave no answer."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._running = ""
        self._silent: list[str] = []

    @property
    def silent(self) -> tuple[str, ...]:
        """Return the programs that gave no answer, and the one that is still running."""
        return tuple(dict.fromkeys((*self._silent, *((self._running,) if self._running else ()))))

    def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
        """Run a program that never takes long; one that was silent before is not asked again."""
        name = posixpath.basename(command.argv[0])
        if name in self._silent:
            return Completed(argv=command.argv, code=124, stdout="", stderr=f"{name} gave no answer before", seconds=0)
        self._running = name
        try:
            done = self._machine.run(replace(command, timeout=min(command.timeout, ANSWER)), on_line=on_line)
        except OSError as error:  # `Exec format error`: a program of another architecture, or an empty file
            done = Completed(argv=command.argv, code=126, stdout="", stderr=error.strerror or str(error), seconds=0)
        self._running = ""
        if done.code == 124:
            self._silent.append(name)
        return done

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        """Return the first `limit` bytes of a file, None when absent or unreadable."""
        return self._machine.read(path, limit)

    def names(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a directory, () when absent."""
        return self._machine.names(path)

    def which(self, program: str) -> str:
        """Return the absolute path of a program, "" when absent."""
        return self._machine.which(program)

    def write(self, file: File) -> None:
        """Refuse: whoever looks at a machine changes nothing."""
        raise PermissionError(f"detection writes nothing: {file.path}")

    def link(self, target: str, path: str) -> None:
        """Refuse."""
        raise PermissionError(f"detection writes nothing: {path} -> {target}")

    def remove(self, path: str) -> None:
        """Refuse."""
        raise PermissionError(f"detection removes nothing: {path}")


class Question(Generic[T]):
    """One probe, asked on a thread of its own from now on."""

    def __init__(
        self,
        machine: Machine,
        probe: Callable[[Machine], T],
        otherwise: T,
        name: str = "",
        patience: float | None = None,
    ) -> None:
        """`otherwise` is the answer when there is none in time, `name` what is silent when no program of it is."""
        self._watched = Watched(machine)
        self._probe, self._answer, self._name = probe, otherwise, name
        self._error: BaseException | None = None
        self._until = time.monotonic() + (PATIENCE if patience is None else patience)
        # A daemon: the program ends although this one never does.
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self._answer = self._probe(self._watched)
        except BaseException as error:  # noqa: BLE001 - raised again where the answer is taken
            self._error = error

    def answer(self) -> T:
        """Wait for the answer, no longer than its patience allows from when it was asked."""
        self._thread.join(max(0.0, self._until - time.monotonic()))
        if self._error:
            raise self._error
        return self._answer

    @property
    def silent(self) -> tuple[str, ...]:
        """Return who gave no answer; ask for the answer first."""
        late = self._thread.is_alive()
        return self._watched.silent or ((self._name,) if late and self._name else ())
