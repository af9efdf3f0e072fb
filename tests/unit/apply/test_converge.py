"""How files come into force: what differs, what a person edited, and that a second time changes nothing."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import specfile
from appliance.apply import Generations, apply, generation
from appliance.apply.converge import Report, differences
from appliance.apply.converge import _switch as switch
from appliance.apply.generation import digest, written
from appliance.apply.place import place
from appliance.domain.changes import Changeset, Command, Completed, File, Record
from appliance.domain.deployment import Deployment
from appliance.domain.host import Podman
from appliance.domain.spec import ModelSpec
from appliance.errors import CommandError, HostError, SpecError, UnhealthyError
from appliance.render.pages import render
from appliance.system.machine import OnLine
from tests.unit.recorded import Answer, DiskMachine, RecordedMachine
from tests.unit.samples import CONTAINER, HOST, LAYOUT, deployment, item, layout


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The power stays on in here: nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


ONE = File(path="/etc/a.conf", content=b"one\n")
OTHER = File(path="/etc/b.conf", content=b"other\n", mode=0o600)
INNER = File(path="nginx/gateway.json", content=b"{}\n")
CHANGES = Changeset(deployment=deployment(), files=(ONE, OTHER, INNER))


class Silent:
    """Progress that nobody watches."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, name: str, detail: str = "") -> None:
        self.steps.append(f"{name}: {detail}" if detail else name)

    def note(self, text: str) -> None:
        self.steps.append(text)

    def bar(self, label: str, total: int, *, unit: str = "bytes") -> "Silent":
        return self

    def advance(self, amount: int, *, total: int = 0) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to show."""


def record(*files: File, plan: Deployment = CHANGES.deployment) -> Record:
    return Record(schema=1, generation=1, deployment=plan, files=written(files), confirmed=True)


def on_disk(*files: File) -> RecordedMachine:
    return RecordedMachine(
        files={one.path if one.path.startswith("/") else f"{LAYOUT.current}/{one.path}": one.content for one in files}
    )


def test_on_an_empty_machine_everything_differs() -> None:
    assert differences(CHANGES, None, RecordedMachine()) == {ONE.path, OTHER.path, INNER.path}


def test_what_is_as_it_should_be_does_not_differ() -> None:
    machine = on_disk(ONE, OTHER, INNER)
    assert differences(CHANGES, record(ONE, OTHER), machine) == frozenset()
    assert machine.effects == [], "looking changes nothing"


def test_a_file_inside_the_generation_is_looked_for_where_it_is_in_force() -> None:
    assert differences(CHANGES, record(ONE, OTHER), on_disk(ONE, OTHER)) == {INNER.path}


def test_an_edited_file_differs() -> None:
    machine = on_disk(replace(ONE, content=b"mine\n"), OTHER, INNER)
    assert differences(CHANGES, record(ONE, OTHER), machine) == {ONE.path}


def test_a_file_that_is_wanted_no_more_differs() -> None:
    gone = File(path="/etc/gone.conf", content=b"")
    assert differences(CHANGES, record(ONE, OTHER, gone), on_disk(ONE, OTHER, INNER, gone)) == {gone.path}


def test_files_are_written_where_they_differ() -> None:
    machine = on_disk(ONE)
    assert place((ONE, OTHER), (None,), machine) == ()
    assert machine.effects == [("write", OTHER.path)]
    assert machine.files[OTHER.path] == OTHER.content


def test_a_file_that_a_person_edited_is_kept_beside_the_new_one() -> None:
    edited = replace(ONE, content=b"mine\n")
    machine = on_disk(edited)
    copy = f"/etc/a.conf.edited-{digest(b'mine' + bytes([10]))[:8]}"
    assert place((replace(ONE, content=b"two\n"),), (record(ONE),), machine) == (copy,)
    assert machine.files == {"/etc/a.conf": b"two\n", copy: b"mine\n"}
    assert machine.written() == [copy, "/etc/a.conf"], "the copy comes first"


def test_a_file_of_ours_is_replaced_without_a_copy() -> None:
    machine = on_disk(ONE)
    assert place((replace(ONE, content=b"two\n"),), (record(ONE),), machine) == ()
    assert machine.files == {"/etc/a.conf": b"two\n"}


def test_a_file_of_the_last_healthy_state_is_ours_too_where_a_run_was_killed_before_it_was_replaced() -> None:
    two = replace(ONE, content=b"two\n")
    machine = on_disk(ONE)
    assert place((two,), (record(two), record(ONE)), machine) == ()
    assert machine.files == {"/etc/a.conf": b"two\n"}, "no copy: nobody has edited it"


def test_a_file_that_is_wanted_no_more_is_removed_unless_somebody_edited_it() -> None:
    machine = on_disk(ONE, replace(OTHER, content=b"mine\n"))
    place((), (record(ONE, OTHER),), machine)
    assert machine.files == {OTHER.path: b"mine\n"}


@pytest.fixture
def machine() -> DiskMachine:
    """Everything is written below a temporary prefix; every program succeeds and does nothing."""
    return DiskMachine(answers={(): Answer()})


def healthy() -> None:
    """All is well."""


def sick() -> None:
    raise UnhealthyError("tiny failed: exit status 1", hint="llm-appliance logs tiny")


class Site:
    """One appliance below a prefix."""

    def __init__(self, prefix: Path, machine: DiskMachine) -> None:
        self.layout, self.machine = layout(str(prefix)), machine
        self.generations = Generations(self.layout, machine)

    def changes(self, *items: ModelSpec) -> Changeset:
        plan = deployment(*items, host=CONTAINER, where=self.layout)
        return render(plan, specfile.files(plan.spec, {}, self.layout))

    def apply(self, *items: ModelSpec, is_healthy: bool = True) -> Report:
        return apply(self.changes(*items), self.generations, self.machine, Silent(), healthy if is_healthy else sick)

    def tree(self) -> dict[str, bytes | str]:
        """Return every file and link below the prefix."""
        root = Path(self.layout.prefix)
        return {
            path.relative_to(root).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_symlink() or path.is_file()
        }


@pytest.fixture
def site(tmp_path: Path, machine: DiskMachine) -> Site:
    return Site(tmp_path / "p", machine)


def test_a_first_install_writes_everything_and_runs_the_checks_before_the_switch(site: Site) -> None:
    report = site.apply()
    assert report.generation == 1
    assert set(report.changed) == {file.path for file in site.changes().files}
    tree = site.tree()
    assert tree["state/current"] == "generations/1"
    assert f"{'etc/appliance.yaml'}" in tree
    assert "state/current/deployment.json" not in tree, "a link, not a copy"
    effects = site.machine.effects
    flip = effects.index(("link", site.layout.current, "generations/1"))
    checks = [at for at, effect in enumerate(effects) if effect[0] == "run" and effect[-1] == "-t"]
    assert checks
    assert max(checks) < flip
    found = site.generations.record()
    assert found
    assert (found.generation, found.confirmed) == (1, True)


def test_apply_twice_changes_nothing_the_second_time(site: Site) -> None:
    site.apply(item("a"), item("b", replicas=2))
    before = site.tree()
    site.machine.effects.clear()
    report = site.apply(item("a"), item("b", replicas=2))
    assert (report.generation, report.changed, report.kept) == (1, (), ())
    assert site.tree() == before
    assert {effect[0] for effect in site.machine.effects} == {"run"}
    assert not any(word in argv for argv in site.machine.ran() for word in ("update", "restart", "HUP"))


def test_a_model_that_is_added_and_removed_leaves_the_files_as_they_were(site: Site) -> None:
    site.apply(item("a"))
    before = {file.path: file.content for file in site.changes(item("a")).files}
    site.apply(item("a"), item("b"))
    assert Path(site.layout.etc, "models.d/b.yaml").exists()
    report = site.apply(item("a"))
    assert report.generation == 3
    assert not Path(site.layout.etc, "models.d/b.yaml").exists()
    for path, content in before.items():
        there = Path(path if path.startswith("/") else f"{site.layout.current}/{path}")
        assert there.read_bytes() == content


def test_a_model_that_goes_is_stopped_before_its_files(site: Site) -> None:
    site.apply(item("a"), item("b"))
    site.machine.effects.clear()
    site.apply(item("a"))
    effects = site.machine.effects
    stop = next(at for at, effect in enumerate(effects) if effect[-2:] == ("stop", "model-b"))
    assert stop < effects.index(("link", site.layout.current, "generations/2"))
    assert stop < effects.index(("remove", f"{site.layout.etc}/models.d/b.yaml"))


def test_a_file_that_a_person_edited_is_kept_through_apply(site: Site) -> None:
    site.apply(item("a"))
    spec = Path(site.layout.etc, "models.d/a.yaml")
    spec.write_text("source: /mine.gguf\n")
    report = site.apply(item("a"))
    (copy,) = report.kept
    assert copy.startswith(f"{spec}.edited-")
    assert Path(copy).read_text() == "source: /mine.gguf\n"
    assert report.changed == (str(spec),)


def test_what_is_unhealthy_goes_back_to_what_was(site: Site) -> None:
    site.apply(item("a"))
    with pytest.raises(UnhealthyError) as caught:
        site.apply(item("a"), item("b"), is_healthy=False)
    assert caught.value.message == "tiny failed: exit status 1\ngeneration 1 is back"
    assert caught.value.hint == "llm-appliance logs tiny"
    assert site.tree()["state/current"] == "generations/1"
    assert not Path(site.layout.etc, "models.d/b.yaml").exists()
    assert differences(site.changes(item("a")), site.generations.record(), site.machine) == frozenset()
    assert site.apply(item("a")).changed == ()


def test_an_edit_that_did_not_work_is_kept_beside_what_is_back(site: Site) -> None:
    site.apply(item("a"))
    spec = Path(site.layout.etc, "models.d/a.yaml")
    before = spec.read_text()
    spec.write_text(f"{before}context: 512\n")
    plan = deployment(item("a", context=512), host=CONTAINER, where=site.layout)
    changes = render(plan, specfile.files(plan.spec, {str(spec): spec.read_bytes()}, site.layout))
    with pytest.raises(UnhealthyError) as caught:
        apply(changes, site.generations, site.machine, Silent(), sick)
    (copy,) = spec.parent.glob("a.yaml.edited-*")
    assert caught.value.message.endswith(f"generation 1 is back\nyour edit is kept as {copy}")
    assert copy.read_text() == f"{before}context: 512\n"
    assert spec.read_text() == before


def test_a_first_install_that_is_unhealthy_leaves_nothing_in_force(site: Site) -> None:
    with pytest.raises(UnhealthyError, match="nothing was installed before, so nothing runs"):
        site.apply(item("a"), is_healthy=False)
    assert site.generations.record() is None
    assert not [path for path in site.tree() if path.startswith("etc/") or path == "state/current"]


def test_a_check_that_refuses_leaves_what_was_in_force(site: Site) -> None:
    site.apply(item("a"))
    before = site.generations.record()
    site.machine.answers[(site.changes().deployment.gateway.program,)] = Answer(
        code=1, stderr="nginx: [emerg] unknown\n"
    )
    with pytest.raises(CommandError, match=r"ends with 1:\nnginx: \[emerg\] unknown"):
        site.apply(item("a"), item("b"))
    assert site.tree()["state/current"] == "generations/1"
    assert site.generations.record() == before
    assert not Path(site.layout.etc, "models.d/b.yaml").exists()


def test_a_run_that_was_killed_after_the_switch_is_finished_by_the_next(site: Site) -> None:
    site.apply(item("a"))

    def killed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(site.changes(item("a"), item("b")), site.generations, site.machine, Silent(), killed)
    report = site.apply(item("a"), item("b"))
    assert (report.generation, report.changed) == (2, ())
    found = site.generations.record()
    assert found
    assert found.confirmed


class Cut(DiskMachine):
    """The power goes before the n-th effect, or at the first program whose words hold this one."""

    def __init__(self, *, left: int = 1 << 30, word: str = "") -> None:
        super().__init__(answers={(): Answer()})
        self._left, self._word = left, word

    def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
        self._spend()
        if self._word in command.argv:
            raise KeyboardInterrupt
        return super().run(command, on_line=on_line)

    def write(self, file: File) -> None:
        self._spend()
        super().write(file)

    def link(self, target: str, path: str) -> None:
        self._spend()
        super().link(target, path)

    def remove(self, path: str) -> None:
        self._spend()
        super().remove(path)

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt


def cut_off(prefix: Path, machine: Cut, first: ModelSpec, *then: ModelSpec) -> Site:
    """Install `first`, be killed on the way to `then`, and run that again on a machine that works."""
    site = Site(prefix, DiskMachine(answers={(): Answer()}))
    site.apply(first)
    with pytest.raises(KeyboardInterrupt):
        Site(prefix, machine).apply(*then)
    site.machine.effects.clear()
    site.apply(*then)
    return site


class Failing(DiskMachine):
    """The disk does not take the n-th file; or, `for_good`, none any more from there on."""

    def __init__(self, *, left: int, for_good: bool) -> None:
        super().__init__(answers={(): Answer()})
        self.left, self.for_good = left, for_good

    def write(self, file: File) -> None:
        self.left -= 1
        if self.left == -1 or (self.left < 0 and self.for_good):
            raise OSError(errno.EROFS, "Read-only file system", file.path)
        super().write(file)


@pytest.mark.parametrize("for_good", [False, True])
def test_a_disk_that_fails_in_the_middle_of_the_switch_costs_nothing(tmp_path: Path, for_good: bool) -> None:
    for number in range(3):
        site = Site(tmp_path / f"p{number}", DiskMachine(answers={(): Answer()}))
        site.apply(item("a"))
        before = site.tree()
        with pytest.raises(OSError, match="Read-only"):
            Site(tmp_path / f"p{number}", Failing(left=number, for_good=for_good)).apply(item("a"), item("b"))
        if not for_good:
            after = {path: one for path, one in site.tree().items() if "generations/2" not in path}
            assert after == {path: one for path, one in before.items() if "generations/2" not in path}
        assert site.apply(item("a"), item("b")).kept == (), "nobody edited anything"
        found = site.generations.record()
        assert found
        assert found.confirmed


def test_what_somebody_masked_is_not_unmasked(site: Site) -> None:
    site.apply(item("a"))
    masked = Path(site.layout.etc, "models.d/b.yaml")
    masked.symlink_to("/dev/null")
    with pytest.raises(HostError, match="it is masked"):
        site.apply(item("a"), item("b"))
    assert str(masked.readlink()) == "/dev/null"
    assert site.tree()["state/current"] == "generations/1"


def test_a_file_that_somebody_made_a_link_stays_one(site: Site, tmp_path: Path) -> None:
    site.apply(item("a"))
    spec, elsewhere = Path(site.layout.etc, "models.d/a.yaml"), tmp_path / "a.yaml"
    spec.rename(elsewhere)
    spec.symlink_to(elsewhere)
    site.apply(item("a", context=2048))
    assert spec.readlink() == elsewhere
    assert "2048" in elsewhere.read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Invalid JSON"),
        (b"{}", "schema: Field required"),
        (b'{"schema": 2}', "written by a newer llm-appliance"),
        (b"[" * 9999, "Invalid JSON"),
    ],
    ids=["empty", "nothing-in-it", "newer", "deep"],
)
def test_a_record_that_cannot_be_read_is_not_taken_for_none(site: Site, content: bytes, words: str) -> None:
    site.apply(item("a"))
    path = Path(site.layout.state, "record.json")
    path.write_bytes(content)
    with pytest.raises(SpecError, match=words) as caught:
        site.apply(item("a"))
    assert caught.value.hint
    if "cp " in caught.value.hint:
        path.write_bytes(Path(site.layout.current, "record.json").read_bytes())
        assert site.apply(item("a")).changed == ()


def test_a_run_that_was_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    count = Site(tmp_path / "whole", DiskMachine(answers={(): Answer()}))
    count.apply(item("a"))
    count.machine.effects.clear()
    count.apply(item("b"), item("c"))
    for number in range(len(count.machine.effects)):
        site = cut_off(tmp_path / f"p{number}", Cut(left=number), item("a"), item("b"), item("c"))
        found = site.generations.record()
        assert found
        assert found.confirmed, number
        assert site.tree()["state/current"] == f"generations/{found.generation}", number
        assert differences(site.changes(item("b"), item("c")), found, site.machine) == frozenset(), number
        assert sorted(path for path in site.tree() if path.startswith("etc/")) == [
            "etc/appliance.yaml", "etc/models.d/b.yaml", "etc/models.d/c.yaml",
        ], number  # fmt: skip


def test_a_run_that_was_killed_before_anything_restarted_is_finished_by_the_next(tmp_path: Path) -> None:
    site = cut_off(tmp_path / "p", Cut(word="update"), item("a"), item("a"), item("b"))
    assert [argv for argv in site.machine.ran() if argv[-1] == "update"], "supervisord never heard of model b"


def test_old_generations_go_and_the_latest_stay_for_a_rollback(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "KEPT", 1)
    for number in range(4):
        site.apply(item("a", context=512 + number))
    assert site.machine.names(f"{site.layout.state}/generations") == ("3", "4")


def test_system_wide_files_are_recorded_with_their_modes() -> None:
    plan = deployment(host=HOST)
    files = tuple(file for file in render(plan).files if file.path.startswith("/"))
    assert {one.path for one in written(files)} == {file.path for file in files}
    assert all(len(one.sha256) == 64 for one in written(files))


def test_containers_of_podman_are_stopped_by_podman_before_docker_starts_its_own(tmp_path: Path) -> None:
    """Each knows nothing of the other's, and both would want the same port."""
    layout_here = layout(str(tmp_path))
    boxed = replace(deployment(where=layout_here), runtime="compose")
    by_podman = replace(boxed, podman=Podman(socket="/run/podman/podman.sock", compose="/usr/bin/docker-compose"))
    machine = DiskMachine(answers={(): Answer()})
    generations = Generations(layout_here, machine)
    for number, plan in ((1, by_podman), (2, boxed)):
        generations.write(number, Changeset(deployment=plan, files=(INNER,)))
    before, now = (replace(record(plan=plan), generation=number) for number, plan in ((1, by_podman), (2, boxed)))
    switch(now, before, before, generations, machine, None)
    (down,) = machine.ran()
    assert down[0] == "/usr/bin/docker-compose" and "down" in down
    machine.effects.clear()
    switch(now, now, now, generations, machine, None)
    assert machine.ran() == []
