"""What a test types at a server's prompt, and how it waits for what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.integration.lab import Completed, Server


def command(
    server: Server, *words: str, code: int | None = 0, input: str | None = None, timeout: float = 300
) -> Completed:
    """Type a command of ours, which must end with that code, None = any; it and what it says are printed."""
    began = time.monotonic()
    done = server.run("llm-appliance", *words, check=False, timeout=timeout, input=input)
    took = f"{time.monotonic() - began:.1f} s"
    print(f"\n# llm-appliance {' '.join(words)} ({took})\n{done.stdout}{done.stderr}", end="", flush=True)
    assert code in (None, done.code), done.stdout + done.stderr
    return done


def reply(server: Server, *words: str, code: int | None = 0, timeout: float = 300) -> str:
    """Type a command of ours; return all that it says."""
    done = command(server, *words, code=code, timeout=timeout)
    return done.stdout + done.stderr


def until(what: str, holds: Callable[[], bool], seconds: float = 90) -> None:
    """Return once it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)
