"""What a person or a program is told: the envelope's shape, and progress that never stops the work."""

import io
import json
import sys

import pytest

from appliance import report
from appliance.errors import ApplianceError, ExitCode, HostError, SpecError
from appliance.report import JsonLines, Plain, Result, amount_text, work


def test_the_envelope_of_success() -> None:
    assert json.loads(Result(command="status", data={"a": [1]}, text="for people").envelope()) == {
        "schema": 1,
        "command": "status",
        "status": "ok",
        "exit_code": 0,
        "data": {"a": [1]},
        "errors": [],
    }


def test_the_envelope_of_failure() -> None:
    error = SpecError("models.d/ä.yaml: gpus: unknown key", hint="take it out")
    text = Result(command="install", exit_code=error.code, errors=(error, HostError("full"))).envelope()
    assert json.loads(text) == {
        "schema": 1,
        "command": "install",
        "status": "error",
        "exit_code": 3,
        "data": None,
        "errors": [
            {"code": 3, "message": "models.d/ä.yaml: gpus: unknown key", "hint": "take it out"},
            {"code": 4, "message": "full", "hint": ""},
        ],
    }
    assert "ä" in text


def test_pending_changes_are_no_error() -> None:
    assert json.loads(Result(command="plan", exit_code=ExitCode.PENDING).envelope())["status"] == "ok"


@pytest.mark.parametrize("code", [code for code in ExitCode if code not in (ExitCode.OK, ExitCode.PENDING)])
def test_every_other_exit_code_is_an_error(code: ExitCode) -> None:
    assert json.loads(Result(command="x", exit_code=code).envelope())["status"] == "error"


def test_every_kind_of_error_has_an_exit_code_of_its_own() -> None:
    codes = [kind.code for kind in ApplianceError.__subclasses__()]
    assert len(set(codes)) == len(codes)
    assert ExitCode.OK not in codes


def test_plain_progress_is_a_line_for_each_step() -> None:
    stream = io.StringIO()
    progress = Plain(stream)
    progress.step("detect")
    progress.step("write", "generation 1")
    progress.note("one line")
    first, second, third = stream.getvalue().splitlines()
    assert first.endswith("s] detect")
    assert second.endswith("s] write: generation 1")
    assert third == "           one line"


def test_a_bar_says_how_fast_it_is_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, now = io.StringIO(), [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with work(Plain(stream), "model", 10 << 20) as bar:
        bar.advance(4 << 20)  # brought by an earlier run: no part of the speed
        now[0] += 20
        bar.advance(2 << 20)
        now[0] += 5
        bar.advance(1 << 20)
    assert stream.getvalue().strip() == "model: 6.0 MiB (60 %, 102.4 KiB/s, 40 s left)"


def test_a_bar_says_now_and_then_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(Plain, "EVERY", 0.0)
    with work(Plain(stream), "reading", 4096) as bar:
        bar.advance(1024)
        bar.advance(1024, total=2048)
    assert [line.strip() for line in stream.getvalue().splitlines()] == [
        "reading: 1.0 KiB (25 %)", "reading: 2.0 KiB (100 %)",
    ]  # fmt: skip


def test_a_bar_keeps_quiet_in_between() -> None:
    stream = io.StringIO()
    with work(Plain(stream), "reading", 0, unit="files") as bar:
        bar.advance(1)
    assert stream.getvalue() == ""


class Gone(io.StringIO):
    """A terminal that went away."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_terminal_that_went_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (Gone(), closed):
        progress = Plain(stream)
        for _ in range(3):
            progress.step("a", "b")
            progress.note("c")
        monkeypatch.setattr(sys, "stderr", stream)
        lines = JsonLines()
        lines.step("a")
        lines.note("b")
        lines.bar("c", 1).advance(1)


def test_without_a_standard_error_nothing_lands_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    for progress in (report.progress(), report.progress(json_lines=True)):
        progress.step("a")
        progress.note("b")
    assert capsys.readouterr().out == ""


def test_json_lines_are_objects_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    progress = report.progress(json_lines=True)
    progress.step("write", "ä")
    progress.note("n")
    with work(progress, "copy", 7) as bar:
        bar.advance(7)
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line) for line in err.splitlines()] == [
        {"event": "step", "name": "write", "detail": "ä"},
        {"event": "note", "text": "n"},
        {"event": "work", "label": "copy", "total": 7, "unit": "bytes"},
    ]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 << 10, "1.5 MiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_amounts_are_written_for_people(amount: int, text: str) -> None:
    assert amount_text(amount) == text
    assert amount_text(7, "files") == "7 files"
