"""The campaign's lists are complete, and every test that they name is there."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Literal

import pytest

from tests.campaign import __main__ as campaign
from tests.campaign.__main__ import Collected, outcome, row, table
from tests.campaign.entries import LISTS, Entry, belongs, entries

ROOT = Path(__file__).parents[2]
ALL = entries()


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_number_is_there_once_and_in_order() -> None:
    wanted = [f"{letter}{number}" for letter, count in LISTS.values() for number in range(1, count + 1)]
    assert [entry.number for entry in ALL] == wanted


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.number)
def test_an_entry_is_held_by_tests_or_says_why_not(entry: Entry) -> None:
    assert entry.by or entry.here
    assert len(set(entry.by)) == len(entry.by)
    for test in entry.by:
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), test
        assert not name or name in names_in(path), test
        assert name.startswith("test_") or not name


def test_a_case_of_a_test_belongs_to_it_and_another_test_does_not() -> None:
    assert belongs("tests/a.py::test_x[1]", "tests/a.py::test_x")
    assert belongs("tests/a.py::test_x", "tests/a.py")
    assert not belongs("tests/a.py::test_xy", "tests/a.py::test_x")


def test_what_tests_said_is_added_up() -> None:
    entry = Entry(number="F1", fault="a | b", must="c", by=("tests/a.py::test_x",))
    collected = Collected()
    for case, text in (("1", "requests lost: 0 of 7\ndata lost: 1 of 3\n"), ("2", "x\nrequests lost: 2 of 5\n")):
        collected.outcomes[f"tests/a.py::test_x[{case}]"] = "passed"
        collected.outputs[f"tests/a.py::test_x[{case}]"] = text
    assert outcome(entry, collected) == ("as it must (2 passed)", "1 of 3", "2 of 12")
    assert r"| F1 | a \| b | c | as it must (2 passed) | 1 of 3 | 2 of 12 |" == row(entry, collected)
    text = table({"F1": row(entry, collected)})
    assert text.startswith("1 entries: 1 as they must, 0 failed")
    assert "Lost in all: 1 files, 2 requests." in text
    collected.outcomes["tests/a.py::test_x[2]"] = "failed"
    assert outcome(entry, collected)[0] == "**failed**: test_x[2]"
    assert table({"F1": row(entry, collected)}).startswith("1 entries: 0 as they must, 1 failed")
    collected.outcomes["tests/a.py::test_x[2]"] = "skipped"
    assert outcome(entry, collected)[0] == "as it must (1 passed, 1 skipped)"
    assert outcome(entry, Collected())[0] == "not run"
    assert outcome(Entry(number="F2", fault="", must="", here="no GPU"), collected)[0] == "not provoked here"
    assert "not provoked here: no GPU" in row(Entry(number="F2", fault="", must="", here="no GPU"), collected)


def test_a_run_that_was_cut_off_goes_on_behind_what_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "JOURNAL", tmp_path / "unfinished.jsonl")
    first = Collected()
    results: tuple[tuple[str, Literal["passed", "failed", "skipped"]], ...]
    results = (("a", "passed"), ("b", "failed"), ("c", "skipped"))
    for name, result in results:
        said = [("Captured stdout call", "noise\nrequests lost: 0 of 7\n")]
        place = ("t.py", 1, name)
        first.pytest_runtest_logreport(pytest.TestReport(f"t.py::{name}", place, {}, result, None, "call", said))
        first.pytest_runtest_logreport(pytest.TestReport(f"t.py::{name}", place, {}, "passed", None, "teardown"))
    campaign.JOURNAL.write_text(campaign.JOURNAL.read_text() + '["t.py::half')
    later = Collected()
    later.take_up()
    assert later.outcomes == {"t.py::a": "passed"}
    assert later.outputs == {"t.py::a": "requests lost: 0 of 7\n"}
