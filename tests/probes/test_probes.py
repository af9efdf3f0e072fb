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
from appliance.detect import cgroup, cuda, docker, linux, mounts, ports
from appliance.domain.changes import Command, Completed
from tests.probes.vendors import VENDOR_READERS

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
    return {"total": total, "available": available, "swap": linux.parse_swap(case.stdout)}


def processor(case: Case) -> dict[str, Any]:
    return {"flags": list(linux.parse_cpu_flags(case.stdout)), "name": linux.parse_cpu_name(case.stdout)}


def mountinfo(case: Case) -> dict[str, list[str]]:
    found = mounts.parse_mountinfo(case.stdout)
    places = sorted((seen[0] for seen in mounts.worthy(found)), key=lambda one: one.path)
    groups = [f"{one.path} {one.kind} {one.root}" for one in found if one.kind.startswith("cgroup")]
    return {"places": [f"{one.path} {one.kind}" for one in places], "cgroups": groups}


READERS: dict[str, Callable[[Case], object]] = {
    "os_release": lambda case: linux.parse_os_release(case.stdout),
    "cpuinfo": processor,
    "meminfo": memory,
    "systemctl": lambda case: {"version": linux.parse_systemctl_version(case.stdout)},
    "docker_version": lambda case: codec.to_data(docker.parse_version(case.done)),
    "docker_info": lambda case: codec.to_data(docker.parse_info(case.done)),
    "docker_compose": lambda case: {"version": docker.parse_compose(case.stdout)},
    "nvidia_ctk": lambda case: {"version": docker.parse_toolkit(case.stdout)},
    "cdi": lambda case: {"kind": docker.parse_cdi(case.stdout)},
    "nvcc": lambda case: {"version": cuda.parse_nvcc(case.stdout)},
    "mountinfo": mountinfo,
    "cgroup_membership": lambda case: cgroup.parse_membership(case.stdout),
    "proc_net_tcp": lambda case: {"sockets": [list(one) for one in ports.parse(case.stdout)]},
    "proc_modules": lambda case: {"modules": list(linux.parse_modules(case.stdout))},
    "pip_config": lambda case: parse_pip_config(case.stdout),
    **VENDOR_READERS,
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


def test_systemctl_is_asked_what_was_recorded() -> None:
    for path in sorted(HERE.glob("systemctl/*.yaml")):
        assert load(path).argv == Command(argv=("systemctl", "--version")).argv
