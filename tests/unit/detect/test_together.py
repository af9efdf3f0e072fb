"""Questions asked at once: an answer in time counts, no answer is named, a mistake of ours is no silence."""

import threading

import pytest

from appliance.detect.together import Question, Watched
from appliance.domain.changes import Command, Completed, File
from appliance.system.machine import Machine, OnLine
from tests.unit.recorded import Answer, RecordedMachine

LATE = Answer(code=124)


def test_an_answer() -> None:
    question = Question(RecordedMachine(programs={"a": "/bin/a"}), lambda machine: machine.which("a"), "")
    assert (question.answer(), question.silent) == ("/bin/a", ())


def test_no_answer_in_time() -> None:
    over = threading.Event()
    question = Question(RecordedMachine(), lambda _: over.wait(60), False, "statvfs", 0.05)
    assert (question.answer(), question.silent) == (False, ("statvfs",))
    over.set()


def test_a_mistake_of_ours_is_raised_where_the_answer_is_taken() -> None:
    question = Question(RecordedMachine(), lambda _: 1 // 0, 0)
    with pytest.raises(ZeroDivisionError):
        question.answer()


def test_questions_do_not_wait_for_each_other() -> None:
    both = threading.Barrier(2, timeout=30)
    questions = [Question(RecordedMachine(), lambda _: both.wait(), -1) for _ in range(2)]
    assert sorted(question.answer() for question in questions) == [0, 1]


def test_a_program_that_was_silent_is_not_asked_again() -> None:
    machine = RecordedMachine(answers={("a-smi",): LATE, ("b-smi",): Answer(stdout="b")})
    watched = Watched(machine)
    for name in ("a-smi", "/opt/a-smi", "b-smi"):
        watched.run(Command(argv=(name, "-L")))
    assert machine.ran() == [("a-smi", "-L"), ("b-smi", "-L")]
    assert watched.silent == ("a-smi",)


def test_no_program_has_longer_than_five_seconds() -> None:
    class Remembers(RecordedMachine):
        def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
            self.effects.append(("timeout", str(command.timeout)))
            return super().run(command, on_line=on_line)

    machine = Remembers()
    Watched(machine).run(Command(argv=("a",), timeout=60))
    Watched(machine).run(Command(argv=("a",), timeout=2))
    assert [effect[1] for effect in machine.effects if effect[0] == "timeout"] == ["5.0", "2"]


def test_a_program_that_cannot_be_started_is_no_error() -> None:
    class Broken(RecordedMachine):
        def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
            raise OSError(8, "Exec format error")

    done = Watched(Broken()).run(Command(argv=("a",)))
    assert (done.code, done.stderr) == (126, "Exec format error")


def test_whoever_looks_changes_nothing() -> None:
    machine: Machine = Watched(RecordedMachine(files={"/a": b"a", "/d/b": b""}))
    assert (machine.read("/a"), machine.names("/d")) == (b"a", ("b",))
    with pytest.raises(PermissionError):
        machine.link("/a", "/b")
    with pytest.raises(PermissionError):
        machine.remove("/a")
    with pytest.raises(PermissionError):
        machine.write(File(path="/a", content=b""))
