"""Programs that somebody else has installed: looked at, linked to, never changed."""

from dataclasses import replace
from pathlib import Path

import pytest

from appliance import report
from appliance.acquire import installed
from appliance.acquire.source import Source
from appliance.domain.release import Artifact
from appliance.errors import ArtifactError
from tests.unit import samples
from tests.unit.recorded import Answer, RecordedMachine

ARTIFACT = Artifact(name="ollama", kind="program", ref="ollama", digest="0123456789abcdef" * 4, pins=("0.5.5",))
PATH = "/usr/local/bin/ollama"


def make(tmp_path: Path, said: str, stderr: str = "") -> RecordedMachine:
    machine = RecordedMachine(
        answers={(PATH, "--version"): Answer(stdout=said, stderr=stderr)}, programs={"ollama": PATH}
    )
    plan = samples.deployment(where=samples.layout(str(tmp_path)))
    installed.program(ARTIFACT, plan, machine, Source(), report.progress())
    return machine


def test_path_and_version_are_recorded(tmp_path: Path) -> None:
    machine = make(tmp_path, "ollama version is 0.33.0\n")
    home = tmp_path / "state/engines/ollama-0123456789abcdef"
    assert (home / "version").read_text() == f"{PATH} 0.33.0\n"
    assert machine.links == {f"{home}/bin/ollama": PATH}
    assert machine.ran() == [(PATH, "--version")]


def test_it_may_say_that_its_server_does_not_run(tmp_path: Path) -> None:
    make(
        tmp_path,
        "",
        stderr="Warning: could not connect to a running Ollama instance\nWarning: client version is 0.33.0-rc2\n",
    )
    assert (tmp_path / "state/engines/ollama-0123456789abcdef/version").read_text() == f"{PATH} 0.33.0-rc2\n"


@pytest.mark.parametrize(("said", "found"), [("ollama version is 0.5.4\n", "0.5.4"), ("", "unknown")])
def test_one_that_is_too_old_is_refused(tmp_path: Path, said: str, found: str) -> None:
    with pytest.raises(ArtifactError, match=f"is version {found}, 0.5.5 is needed"):
        make(tmp_path, said)
    assert not (tmp_path / "state").exists()


def test_one_that_is_gone_is_named(tmp_path: Path) -> None:
    plan = samples.deployment(where=samples.layout(str(tmp_path)))
    with pytest.raises(ArtifactError, match="ollama is not installed any more"):
        installed.program(ARTIFACT, plan, RecordedMachine(), Source(), report.progress())


def test_it_is_linked_anew_each_time(tmp_path: Path) -> None:
    make(tmp_path, "ollama version is 0.33.0\n")
    make(tmp_path, "ollama version is 0.34.0\n")
    assert replace(ARTIFACT, digest="f" * 64) != ARTIFACT
    assert (tmp_path / "state/engines/ollama-0123456789abcdef/version").read_text() == f"{PATH} 0.34.0\n"
