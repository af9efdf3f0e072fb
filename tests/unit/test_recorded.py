"""The recorded machine behaves as the real one where tests lean on it."""

import socket
import subprocess

import pytest

from appliance.domain.changes import Command, File
from tests.unit.recorded import Answer, RecordedMachine


def test_the_longest_known_beginning_answers() -> None:
    machine = RecordedMachine(answers={("a",): Answer(stdout="one"), ("a", "b"): Answer(stdout="two", code=3)})
    assert machine.run(Command(argv=("a", "x"))).stdout == "one"
    assert machine.run(Command(argv=("a", "b", "c"))).code == 3
    assert machine.ran() == [("a", "x"), ("a", "b", "c")]


def test_an_unknown_program_is_absent() -> None:
    assert RecordedMachine().run(Command(argv=("gone",))).code == 127


def test_lines_are_streamed() -> None:
    lines: list[str] = []
    RecordedMachine(answers={(): Answer(stdout="a\nb\n")}).run(Command(argv=("x",)), on_line=lines.append)
    assert lines == ["a", "b"]


def test_files_are_read_through_links() -> None:
    machine = RecordedMachine(files={"/s/generations/1/a/b": b"old", "/s/generations/2/a/b": b"new"})
    machine.link("generations/1", "/s/current")
    assert machine.read("/s/current/a/b") == b"old"
    machine.link("generations/2", "/s/current")
    assert machine.read("/s/current/a/b", 2) == b"ne"
    assert machine.names("/s") == ("current", "generations")
    machine.write(File(path="/s/x", content=b""))
    machine.remove("/s/x")
    machine.remove("/s/absent")
    assert machine.read("/s/x") is None
    assert [effect[0] for effect in machine.effects] == ["link", "link", "write", "remove", "remove"]


def test_programs_and_connections_are_forbidden_in_here() -> None:
    with pytest.raises(AssertionError, match="starts no program"):
        subprocess.run(["true"], check=False)
    with pytest.raises(AssertionError, match="opens no connection"), socket.socket() as one:
        one.connect(("127.0.0.1", 9))
    with pytest.raises(AssertionError, match="opens no connection"), socket.socket(socket.AF_UNIX) as one:
        one.bind("/nonexistent")
