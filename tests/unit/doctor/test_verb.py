"""The verb: what it prints, what it exits with, and what stops an installation."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import codec
from appliance.cli import doctor as verb
from appliance.doctor import check as checks
from appliance.domain.changes import File, Written
from appliance.domain.finding import Finding
from appliance.domain.host import Docker, Driver
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.errors import HostError, UsageError
from appliance.flows import doctor, facts
from appliance.flows.doctor import Diagnosis
from appliance.flows.site import Site
from tests.unit.doctor.sound import CUDA, SOUND, record
from tests.unit.recorded import DiskMachine, RecordedMachine
from tests.unit.samples import layout

ERROR = Finding(
    id="port-taken", severity="error", subject="port 80", message="taken", remedy=("stop it", "or do not"), prevents=True
)  # fmt: skip
WARNING = Finding(id="gpu-mixed", severity="warning", subject="nvidia", message="differ\x1b[2J")


class Told:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def step(self, name: str, detail: str = "") -> None:
        raise AssertionError(name)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def bar(self, label: str, total: int, *, unit: str = "bytes") -> None:
        raise AssertionError(label)


def site(where: Path, files: dict[str, bytes] | None = None) -> tuple[Site, Told]:
    told = Told()
    machine = RecordedMachine(files=files)
    return Site(layout=layout(str(where)), machine=machine, progress=told, command="install"), told  # type: ignore[arg-type]


def test_nothing_found_is_one_line() -> None:
    assert verb._text(Diagnosis(findings=(), checks=59), (), colour=False) == "no problems found (59 checks)"


def test_findings_are_grouped_and_aligned_and_say_what_mends_them() -> None:
    text = verb._text(Diagnosis(findings=(ERROR, WARNING), checks=59), (), colour=False)
    assert text.splitlines() == [
        "error    port-taken  port 80: taken",
        "                     mend: stop it",
        "                           or do not",
        "",
        "warning  gpu-mixed   nvidia: differ?[2J",  # no escape sequence of others reaches the terminal
        "",
        "1 error, 1 warning, 0 worth to know (59 checks)",
    ]


def test_what_is_ignored_is_still_shown_and_not_counted() -> None:
    diagnosis = Diagnosis(findings=(ERROR, WARNING), checks=59)
    text = verb._text(diagnosis, ("port-taken",), colour=False)
    assert "port 80: taken (ignored)" in text
    assert text.endswith("0 errors, 1 warning, 0 worth to know, 1 ignored (59 checks)")
    assert diagnosis.errors() == (ERROR,)
    assert diagnosis.errors(("port-taken",)) == ()


def test_colour_is_for_terminals() -> None:
    diagnosis = Diagnosis(findings=(ERROR,), checks=59)
    assert "\x1b[31merror" in verb._text(diagnosis, (), colour=True)
    assert "\x1b" not in verb._text(diagnosis, (), colour=False)


def test_the_list_names_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.doctor(list_checks=True) == 0
    assert "port-taken               another program has the port" in capsys.readouterr().out
    assert verb.doctor(list_checks=True, as_json=True) == 0
    rows = json.loads(capsys.readouterr().out)["data"]["checks"]
    assert {"id", "about"} == set(rows[0])


def test_an_unknown_id_is_refused_with_near_names() -> None:
    assert doctor.known(("port-taken", "swap-none")) == ("port-taken", "swap-none")
    with pytest.raises(UsageError, match="'port-takn'") as caught:
        doctor.known(("port-takn",))
    assert caught.value.hint.startswith("did you mean port-taken")
    with pytest.raises(UsageError) as caught:
        doctor.known(("zzzzzz",))
    assert caught.value.hint == "llm-appliance doctor --list"


def test_json_has_each_finding_and_whether_it_is_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda _site: Diagnosis(findings=(ERROR, WARNING), checks=59))
    assert verb.doctor(as_json=True) == 4
    document = json.loads(capsys.readouterr().out)
    assert (document["status"], document["exit_code"], document["data"]["checks"]) == ("error", 4, 59)
    assert document["data"]["findings"][0] == {
        "id": "port-taken", "severity": "error", "subject": "port 80", "message": "taken",
        "remedy": ["stop it", "or do not"], "ignored": False,
    }  # fmt: skip
    assert verb.doctor(ignore=["port-taken"], as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["data"]["findings"][0]["ignored"] is True


def test_an_installation_is_stopped_by_what_would_make_it_fail(tmp_path: Path) -> None:
    here, told = site(tmp_path)
    host = replace(SOUND, arch="riscv64", swap=0)
    with pytest.raises(HostError, match="architecture: processor: riscv64") as caught:
        doctor.require(here, host, ApplianceSpec(), ())
    assert caught.value.hint.endswith("--ignore architecture")
    assert told.notes == []
    doctor.require(here, host, ApplianceSpec(), ("architecture",))
    assert told.notes[0].startswith("ignored architecture:")
    assert all("swap-none" not in note for note in told.notes)  # worth to know, but not now


def test_a_server_without_gpu_models_does_not_mind_a_broken_driver(tmp_path: Path) -> None:
    here, told = site(tmp_path)
    host = replace(SOUND, drivers=(Driver(vendor="nvidia", failure="mismatch", remedy="reboot"),))
    doctor.require(here, host, ApplianceSpec(), ())
    assert told.notes == ["warning gpu-driver-broken: nvidia: mismatch"]
    wants = ApplianceSpec(models=(ModelSpec(name="big", source="builtin:smoke", gpus=2),))
    with pytest.raises(HostError, match="gpu-driver-broken"):
        doctor.require(here, host, wants, ())


def test_a_file_that_is_not_there_is_left_to_who_needs_it(tmp_path: Path) -> None:
    """It may have been mistyped a moment ago: whoever reads it knows what was meant, and says it better."""
    here, told = site(tmp_path)
    gone = ApplianceSpec(models=(ModelSpec(name="big", source=str(tmp_path / "gone.gguf")),))
    doctor.require(here, SOUND, gone, ())
    assert told.notes == []


def test_a_spec_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    here, _ = site(tmp_path, {f"{tmp_path}/etc/appliance.yaml": b"port: 1"})
    known = facts.gather(here, SOUND)
    assert "appliance.yaml: port" in known.spec_failure[0]


def test_facts_come_from_small_files(tmp_path: Path) -> None:
    here, _ = site(
        tmp_path,
        {
            "/proc/meminfo": b"MemTotal:       65536 kB\n",
            "/proc/cpuinfo": b"flags : fpu vme hypervisor avx2\n",
            "/run/nvidia-persistenced/socket": b"",
            "/dev/nvidia-uvm": b"",
            "/proc/77/cgroup": b"0::/system.slice/llm-appliance-model@big.service\n",
            facts.TOOLKIT: b"[nvidia-container-cli]\nno-cgroups = true\n",
        },
    )
    host = replace(CUDA, docker=Docker())
    known = facts.gather(here, host, ApplianceSpec())
    assert (known.memory, known.virtual, known.persistence, known.uvm_node) == (64 << 20, True, True, True)
    assert known.no_cgroups
    assert known.engine.uid == known.installer.uid  # under a prefix everything is its owner's
    assert known.newest > 0


def test_a_toolkit_file_that_is_none_says_nothing(tmp_path: Path) -> None:
    here, _ = site(tmp_path, {facts.TOOLKIT: b"[[[", "/proc/self/mounts": b"x / ext4 rw 0 0\n"})
    known = facts.gather(here, SOUND, ApplianceSpec())
    assert not known.no_cgroups
    assert known.state.kind == "ext4"


def test_what_is_installed_is_compared_with_the_record(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "generations" / "3").mkdir(parents=True)
    (state / "current").symlink_to("generations/2")
    there = record(
        files=(
            Written(path=str(tmp_path / "kept"), sha256=hashlib.sha256(b"ours").hexdigest(), mode=0o644),
            Written(path=str(tmp_path / "edited"), sha256="0" * 64, mode=0o644),
            Written(path=str(tmp_path / "gone"), sha256="0" * 64, mode=0o644),
        )
    )
    for name in ("kept", "edited"):
        (tmp_path / name).write_bytes(b"ours")
    home = state / "store" / "models" / ("d" * 64)
    home.mkdir(parents=True)
    (home / "model.gguf").write_bytes(b"short")
    told = Told()
    machine = DiskMachine()
    machine.write(File(path=f"{state}/record.json", content=codec.dump_json(there).encode()))
    machine.write(File(path=f"{tmp_path}/etc/models.d/tiny.yaml", content=b"source: /models/tiny.gguf\n"))
    here = Site(layout=layout(str(tmp_path)), machine=machine, progress=told, command="doctor")  # type: ignore[arg-type]
    known = facts.gather(here, SOUND)
    assert known.installed.edited == (str(tmp_path / "edited"),)
    assert known.installed.missing == (str(tmp_path / "gone"),)
    assert (known.installed.link, known.installed.generation_there) == ("generations/2", True)
    assert [state.state for state in known.installed.states] == ["stopped", "stopped"]
    assert known.installed.answers is None
    assert {name for name, _ in known.installed.programs_missing} == {"gateway", "tiny"}
    assert [(item.there, item.wrong) for item in known.stored] == [(True, ("model.gguf",))]
    assert known.sources[0].trails[0].absent
    found = {item.id for item in checks(SOUND, known)}
    assert found >= {"generation-link", "file-edited", "file-missing", "weights-gone", "engine-missing", "service-down"}
