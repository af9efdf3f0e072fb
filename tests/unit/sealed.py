"""Keeps tests inside their process: a program that is started, or a connection that is made, fails the test."""

import os
import socket
import subprocess
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True)
def sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid programs and the network."""

    def refuse(*args: object, **_kwargs: object) -> NoReturn:
        raise AssertionError(f"a test in here starts no program and opens no connection: {args[1:]}")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    for name in ("system", "posix_spawn", "posix_spawnp", "execv", "execve"):
        monkeypatch.setattr(os, name, refuse)
    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
