"""The way from a unix socket to an engine's port: bytes both ways, nobody but the group, and an end that cuts nothing."""

import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class Engine:
    """Listens on a port of its own: says in capitals what it hears, and goes on when it is let."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.go_on = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            connection, _ = self.listening.accept()
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection: socket.socket) -> None:
        with connection:
            while part := connection.recv(1 << 16):
                connection.sendall(part.upper())
            self.go_on.wait(30)
            connection.sendall(b"the end")


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def relay(engine: Engine, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    place = tmp_path / "engine.sock"
    words = (sys.executable, "-m", "appliance.system.relay", str(place), f"127.0.0.1:{engine.port}")
    with subprocess.Popen(words) as process:
        while not place.exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield process, place
        process.kill()


def connected(place: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(str(place))
    return client


def rest(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_what_goes_in_comes_out_and_back(engine: Engine, relay: tuple[subprocess.Popen[bytes], Path]) -> None:
    engine.go_on.set()
    _, place = relay
    assert stat.S_IMODE(place.stat().st_mode) & 0o007 == 0
    clients = [connected(place) for _ in range(20)]
    text = b"hello " * 20_000
    for client in clients:
        threading.Thread(target=lambda one: (one.sendall(text), one.shutdown(socket.SHUT_WR)), args=(client,)).start()
    for client in clients:
        assert rest(client) == text.upper() + b"the end"


def test_an_answer_on_its_way_is_finished_when_it_is_told_to_stop(
    engine: Engine, relay: tuple[subprocess.Popen[bytes], Path]
) -> None:
    process, place = relay
    client = connected(place)
    client.sendall(b"hello")
    assert client.recv(5) == b"HELLO"
    process.send_signal(signal.SIGTERM)
    with pytest.raises(OSError):
        while True:  # it closes the door first
            connected(place).close()
    client.shutdown(socket.SHUT_WR)
    engine.go_on.set()
    assert rest(client) == b"the end"
    assert process.wait(30) == 0


def test_an_engine_that_is_gone_is_an_end_and_no_silence(tmp_path: Path) -> None:
    place = tmp_path / "s"
    words = (sys.executable, "-m", "appliance.system.relay", str(place), "127.0.0.1:1")
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        while not place.exists():
            time.sleep(0.01)
        assert rest(connected(place)) == b""
        process.send_signal(signal.SIGTERM)
        assert process.stderr and b"127.0.0.1:1: " in process.stderr.read()
        assert process.wait(30) == 0
