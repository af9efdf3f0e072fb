"""What nvidia-smi and the kernel say of NVIDIA GPUs, old, new and broken, and the facts that we take from it.

One file in nvidia/READER/ = one text and what its reader makes of it; in nvidia/machine/ = the answers and files of a
whole machine and what the probe makes of them. Expectations name what matters; `~words` stands for a text that holds
these words. `source` tells where a text comes from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance import codec
from appliance.detect.gpu import nvidia
from appliance.detect.gpu.nvidia import kernel, listing, query, table, topology
from appliance.domain.changes import Command, Completed
from appliance.system.machine import OnLine
from tests.unit.recorded import Answer, RecordedMachine

HERE = Path(__file__).parent / "nvidia"
MACHINES = sorted(HERE.glob("machine/*.yaml"))


@dataclass(frozen=True, kw_only=True)
class Text:
    """What one command or file says."""

    source: str
    text: str
    expect: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a program answers."""

    stdout: str = ""
    stderr: str = ""
    code: int = 0
    words: tuple[str, ...] = ()
    """What of the question this is the answer to, where the same thing is asked twice; () = it is for all."""


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A machine."""

    source: str
    present: bool = True
    """A device is on the PCI bus."""
    tool: str = "/usr/bin/nvidia-smi"
    """Where `which` finds it; "" = it does not."""
    all: Said | None = None
    """The answer to every question."""
    query: Said | None = None
    again: Said | None = None
    """The answer to the query when it is asked again, with other fields or for certain GPUs."""
    banner: Said | None = None
    apps: Said | None = None
    list: Said | None = None
    topo: Said | None = None
    files: dict[str, str] = field(default_factory=dict)
    asked: int | None = None
    """How often the tool may be started."""
    expect: dict[str, Any]

    def answer(self, words: Sequence[str]) -> Said:
        kinds = {"-L": self.list, "topo": self.topo, "--query-compute-apps": self.apps, "--query-gpu": self.query}
        said = kinds.get(words[0].partition("=")[0]) if words else self.banner
        if said is self.query and self.again and tuple(words) != query.gpus():
            said = self.again
        return said or self.all or Said(code=255)


class Recorded(RecordedMachine):
    """Answers by what is asked of the tool, wherever it lies."""

    def __init__(self, whole: Whole) -> None:
        files = {path: text.encode() for path, text in whole.files.items()}
        super().__init__(files=files, programs={"nvidia-smi": whole.tool} if whole.tool else {})
        self.whole = whole

    def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
        assert 0 < command.timeout <= 5
        said = self.whole.answer(command.argv[1:])
        self.answers[command.argv] = Answer(stdout=said.stdout, stderr=said.stderr, code=said.code)
        return super().run(command, on_line=on_line)


READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "table": lambda text: codec.to_data(table.parse(text)),
    "list": lambda text: codec.to_data(listing.parse(text)),
    "topo": lambda text: {"links": {str(gpu): list(links) for gpu, links in topology.parse(text).items()}},
    "query": lambda text: {"gpus": [codec.to_data(gpu) for gpu in query.parse(text)]},
    "apps": lambda text: {"apps": [[uuid, codec.to_data(app)] for uuid, app in query.parse_apps(text)]},
    "kernel": lambda text: {
        **dict(zip(("version", "module"), kernel.parse_version(text), strict=True)),
        "gpu": codec.to_data(kernel.parse_information(text, 0)),
        "jetson": kernel.parse_jetson(text),
        "modules": sorted(kernel.parse_modules(text)),
    },
}


TEXTS = sorted(path for path in HERE.glob("*/*.yaml") if path.parent.name != "machine")


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Return where `found` lacks what is expected; a dictionary may hold more, a list may not."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return [line for key in expected for line in differences(expected[key], found.get(key), f"{where}.{key}")]
    if isinstance(expected, list) and isinstance(found, (list, tuple)) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for number, (left, right) in pairs for line in differences(left, right, f"{where}[{number}]")]
    if isinstance(expected, str) and expected.startswith("~") and isinstance(found, str):
        return [] if expected[1:] in found else [f"{where}: {expected[1:]!r} is not in {found!r}"]
    return [] if expected == found else [f"{where}: {expected!r} expected, {found!r} found"]


def test_every_reader_has_cases() -> None:
    assert {path.parent.name for path in TEXTS} == set(READERS)
    assert len(MACHINES) > 40


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_facts_of_a_text(path: Path) -> None:
    text = codec.load_yaml(Text, path.read_text(), source=path.relative_to(HERE).as_posix())
    assert text.expect
    assert text.source
    assert differences(text.expect, READERS[path.parent.name](text.text)) == []


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_the_facts_of_a_machine(path: Path) -> None:
    whole = codec.load_yaml(Whole, path.read_text(), source=path.relative_to(HERE).as_posix())
    machine = Recorded(whole)
    found = nvidia.probe(machine, whole.present)
    assert whole.expect
    assert differences(whole.expect, codec.to_data(found)) == []
    assert whole.asked is None or len(machine.ran()) <= whole.asked
    for line in (found.driver.failure, found.driver.remedy) if found.driver else ():
        assert "\n" not in line
        assert "  " not in line
    if found.driver:
        assert bool(found.driver.failure) == bool(found.driver.remedy)
        assert found.driver.vendor == nvidia.VENDOR
