"""Runs a service that is several programs as if it were one: `python -m appliance.system.launch PAGE SHA256`.

They start in their order, each once the one before it is ready. When one of them ends all end, and the runtime starts
the service anew; a stop is passed on to all.
"""

import asyncio
import hashlib
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from appliance.system.http import call

GRACE: Final = 10
"""Seconds that programs get to end after they were told to; the runtimes give us 15."""
PAUSE: Final = 0.1
"""Seconds between two looks whether a program is ready."""
ORDERLY: Final = 0.3
"""Seconds that an end may come before the order to stop: systemd tells every program of a service by itself."""
TIE: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
if os.getppid() == int(sys.argv[1]):
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"launch: {sys.argv[2]}: {error.strerror}")
"""
"""Becomes a program that is killed when we are, so that none stays behind alone. `setpriv` could do it too, but it asks
for capabilities, and a unit that forbids that system call stops it."""
PORT: Final = re.compile(r"\{port:([a-z]+)\}")

Programs = list[dict[str, Any]]
"""`Launch.programs` as JSON."""


class _Service:
    """The programs that run, and what ends them."""

    def __init__(self) -> None:
        self.running: list[Process] = []
        self.end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The exit status, as soon as it is known that all must end."""
        self._watchers: list[asyncio.Task[None]] = []

    async def start(self, programs: Programs) -> None:
        """Start everything in order."""
        tied = (sys.executable, "-I", "-S", "-c", TIE, str(os.getpid()))
        for program in programs:
            process = await asyncio.create_subprocess_exec(*tied, *program["argv"], start_new_session=True)
            self.running.append(process)
            if program["once"] and await process.wait() == 0:
                continue
            self._watchers.append(asyncio.create_task(self._watch(process, program)))
            await _until_ready(program["ready"])
            if program["once"]:
                return
        _say("all programs run")

    def finish(self, code: int) -> None:
        """End with this status; the first one that is said holds."""
        if not self.end.done():
            self.end.set_result(code)

    async def stop(self) -> None:
        """End all programs, the last one first, and what they have started themselves."""
        for process in reversed(self.running):
            _kill(process, signal.SIGTERM, group=False)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(process.wait() for process in self.running)), GRACE)
        for process in self.running:
            _kill(process, signal.SIGKILL, group=True)

    async def _watch(self, process: Process, program: dict[str, Any]) -> None:
        code = await process.wait()
        await asyncio.sleep(ORDERLY)
        if not self.end.done():
            _say(f"{_name(program)} ended with {code}")
        self.finish(code if code > 0 else 1)


async def supervise(programs: Programs) -> int:
    """Run the programs until one ends or we are told to; return the exit status."""
    service = _Service()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, service.finish, 0)
    starter = asyncio.create_task(service.start(programs))
    starter.add_done_callback(lambda task: service.finish(1) if not task.cancelled() and task.exception() else None)
    code = await service.end
    starter.cancel()
    await service.stop()
    return code


def fill(programs: Programs) -> Programs:
    """Put our own interpreter and free ports where the page leaves them open."""
    names = sorted(set(PORT.findall(json.dumps(programs))))
    held = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    values = {f"{{port:{name}}}": str(one.getsockname()[1]) for name, one in zip(names, held, strict=True)}
    for one in held:
        one.close()
    values["{python}"] = sys.executable

    def filled(word: str) -> str:
        for mark, value in values.items():
            word = word.replace(mark, value)
        return word

    return [
        {**program, "argv": [filled(word) for word in program["argv"]], "ready": filled(program["ready"])}
        for program in programs
    ]


def read(path: str, digest: str) -> Programs:
    """Return the programs of a page. Raises ValueError when it is another page than the service was made for."""
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError("is not the page that this service was made for")
    programs: Programs = json.loads(content)
    return programs


async def _until_ready(ready: str) -> None:
    address, slash, path = ready.partition("/")
    while ready and (await asyncio.to_thread(call, address, slash + path)).status != 200:  # noqa: ASYNC110 - others' event
        await asyncio.sleep(PAUSE)


def _kill(process: Process, number: signal.Signals, *, group: bool) -> None:
    with suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, number)
        elif process.returncode is None:
            process.send_signal(number)


def _name(program: dict[str, Any]) -> str:
    return " ".join(program["argv"][:3])


def _say(text: str) -> None:
    sys.stdout.write(f"launch: {text}\n")
    sys.stdout.flush()


def main() -> int:
    """Return 0 when we were told to stop, else the status of what ended."""
    path, digest = sys.argv[1:]
    try:
        programs = fill(read(path, digest))
    except (OSError, ValueError) as error:
        _say(f"{path}: {error}")
        return 1
    return asyncio.run(supervise(programs))


if __name__ == "__main__":
    sys.exit(main())
