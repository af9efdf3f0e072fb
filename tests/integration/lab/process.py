"""A long running program inside a server, watched while it runs."""

from __future__ import annotations

import subprocess
import threading
from typing import IO

from tests.integration.lab.machine import LabError, command


class Process:
    """Follows the output of a `docker exec` and can signal what runs at its other end."""

    def __init__(self, container: str, argv: tuple[str, ...], pid_file: str) -> None:
        self._container = container
        self._pid_file = pid_file
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._pipe = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert self._pipe.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._pipe.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def output(self) -> str:
        """What it has written so far, to both of its streams."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, text: str, timeout: float = 60) -> None:
        """Waits until the text has been written; ends early when the program has ended."""

        def known() -> bool:
            return text in "".join(self._lines) or not self._reader.is_alive()

        with self._changed:
            while not known():
                # The reader's last word comes just before its end, so look again now and then.
                timeout -= 0.1
                if timeout < 0:
                    break
                self._changed.wait(0.1)
        if text not in self.output:
            raise LabError(f"never wrote {text!r}:\n{self.output}")

    def signal(self, name: str, *, group: bool = False) -> None:
        """Sends a signal such as `TERM` to the program, or as a terminal does to its group."""
        script = 'until test -s "$2"; do sleep 0.1; done; kill -s "$1" -- "$3$(cat "$2")"'
        inside = ("sh", "-c", script, "sh", name, self._pid_file, "-" if group else "")
        command("docker", "exec", self._container, *inside, timeout=30)

    def wait(self, timeout: float = 60) -> int:
        """Waits for the end; answers the exit code, 128 + N after signal N."""
        try:
            code = self._pipe.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"no end after {timeout:g} s:\n{self.output}") from error
        self._reader.join(timeout=10)
        return code

    def forget(self) -> None:
        """Ends the watching; the program itself ends with its server."""
        if self._pipe.poll() is None:
            self._pipe.kill()
            self._pipe.wait(timeout=30)
        self._reader.join(timeout=10)
