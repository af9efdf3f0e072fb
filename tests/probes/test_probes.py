"""What tools and files of real machines say, old, new and broken, and the facts that we take from it.

One file in PROBE/ = one case: `argv` or `file`, what it said, the facts expected; `source` tells where it comes from.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance import codec
from appliance.acquire.source import parse_pip_config
from appliance.detect import linux, nvidia
from appliance.domain.changes import Command, Completed
from tests.unit.recorded import Answer, RecordedMachine

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("*/*.yaml"))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One recorded answer."""

    source: str
    argv: tuple[str, ...] = ()
    file: str = ""
    stdout: str = ""
    stderr: str = ""
    code: int = 0
    absent: bool = False
    """The program is not there."""
    expect: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> Completed:
        return Completed(argv=self.argv, code=self.code, stdout=self.stdout, stderr=self.stderr, seconds=0.01)


def memory(case: Case) -> dict[str, int]:
    total, available = linux.parse_meminfo(case.stdout)
    return {"total": total, "available": available}


READERS: dict[str, Callable[[Case], object]] = {
    "nvidia_smi": lambda case: codec.to_data(nvidia.parse(case.done)),
    "os_release": lambda case: linux.parse_os_release(case.stdout),
    "cpuinfo": lambda case: {"flags": list(linux.parse_cpu_flags(case.stdout))},
    "meminfo": memory,
    "systemctl": lambda case: {"version": linux.parse_systemctl_version(case.stdout)},
    "pip_config": lambda case: parse_pip_config(case.stdout),
}


def load(path: Path) -> Case:
    return codec.load_yaml(Case, path.read_text(), source=path.relative_to(HERE).as_posix())


def test_every_directory_has_a_reader_and_cases() -> None:
    assert {path.parent.name for path in CASES} == set(READERS)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_facts_of_a_recorded_answer(path: Path) -> None:
    case = load(path)
    facts = READERS[path.parent.name](case)
    assert isinstance(facts, dict)
    assert {key: facts.get(key) for key in case.expect} == case.expect
    assert case.expect


@pytest.mark.parametrize("path", sorted(HERE.glob("nvidia_smi/*.yaml")), ids=lambda path: path.stem)
def test_the_question_is_the_one_that_was_recorded(path: Path) -> None:
    case = load(path)
    answer = Answer(stdout=case.stdout, stderr=case.stderr, code=case.code)
    found = nvidia.probe(RecordedMachine(answers={} if case.absent else {case.argv: answer}))
    assert found == nvidia.parse(case.done)


def test_systemctl_is_asked_what_was_recorded() -> None:
    for path in sorted(HERE.glob("systemctl/*.yaml")):
        assert load(path).argv == Command(argv=("systemctl", "--version")).argv
