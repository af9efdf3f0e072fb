"""Replicas that change: which can be replaced one by one, in which order things happen, and the way back."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import specfile
from appliance.apply import Generations, apply
from appliance.apply.rolling import one_by_one, touched
from appliance.cli.upgrade import lines
from appliance.domain.changes import Changeset, Record
from appliance.domain.deployment import Deployment
from appliance.domain.service import Load, Service
from appliance.domain.spec import ModelSpec
from appliance.errors import UnhealthyError
from appliance.flows.upgrade import Step
from appliance.plan.standin import with_standins
from appliance.render.pages import render
from tests.unit.apply.test_converge import Silent
from tests.unit.recorded import Answer, DiskMachine
from tests.unit.samples import CONTAINER, HOST, deployment, item, layout

BOTH = deployment(item("a"), item("b", replicas=2, context=512))
WIDER = deployment(item("a"), item("b", replicas=2, context=1024))
UNITS = "/etc/systemd/system/llm-appliance-model@"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The power stays on in here: nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def test_under_systemd_a_service_is_touched_where_its_own_unit_is() -> None:
    changed = frozenset({f"{UNITS}b_2.service", "nginx/gateway.json", "/etc/llm-appliance/models.d/b.yaml"})
    assert touched(BOTH, WIDER, changed) == ("b_2",)


def test_where_all_stand_in_one_file_a_service_is_touched_that_starts_otherwise() -> None:
    old, new = (deployment(*items, host=CONTAINER) for items in (
        (item("a"), item("b", replicas=2, context=512)), (item("a"), item("b", replicas=2, context=1024)),
    ))  # fmt: skip
    assert touched(old, new, frozenset({"supervisord.conf"})) == ("b_1", "b_2")
    assert touched(old, old, frozenset({"supervisord.conf"})) == ()
    assert touched(old, new, frozenset()) == ()


def test_another_runtime_is_no_matter_of_replicas() -> None:
    assert touched(BOTH, deployment(item("b", replicas=2), host=CONTAINER), frozenset({"supervisord.conf"})) == ()


def on(plan: Deployment, **places: tuple[str, int]) -> Deployment:
    """Return the plan with each replica on one device, with so much of it; on GPU 0 with 100 where nothing is said."""

    def one(service: Service) -> Service:
        device, amount = places.get(service.name, ("nvidia:0", 100))
        return replace(service, loads=(Load(device=device, items=(("weights", amount),)),))

    return replace(plan, services=tuple(one(service) for service in plan.services))


def test_one_by_one_are_replicas_of_a_model_that_has_another() -> None:
    names = ("a", "b_1", "b_2")
    assert one_by_one(on(BOTH), on(WIDER), names) == ("b_1", "b_2"), "a has no other"
    assert one_by_one(on(BOTH), on(WIDER), ("b_2",)) == ("b_2",)
    assert one_by_one(on(deployment(item("b"))), on(WIDER), names) == (), "where one was no other can answer"


def test_new_and_old_replicas_must_fit_beside_each_other() -> None:
    names = ("a", "b_1", "b_2")
    larger = on(WIDER, b_1=("nvidia:0", 150), b_2=("nvidia:0", 150))
    assert one_by_one(on(BOTH), larger, names) == ("b_1", "b_2"), "both fit, so one of each does"
    smaller_a = on(WIDER, a=("nvidia:0", 10), b_1=("nvidia:0", 145), b_2=("nvidia:0", 145))
    assert one_by_one(on(BOTH), smaller_a, names) == (), "a would have to be smaller first"
    apart = {"a": ("ram", 1), "b_1": ("nvidia:0", 100), "b_2": ("nvidia:1", 100)}
    swapped = apart | {"b_1": ("nvidia:1", 100), "b_2": ("nvidia:0", 100)}
    assert one_by_one(on(BOTH, **apart), on(WIDER, **apart), names) == ("b_1", "b_2")
    assert one_by_one(on(BOTH, **apart), on(WIDER, **swapped), names) == (), "each is where the other is to be"


class Told:
    """Notes what is asked of the gateway, among the programs that are run; some replicas never answer."""

    def __init__(
        self, machine: DiskMachine, sick: tuple[str, ...] = (), error: type[BaseException] = UnhealthyError
    ) -> None:
        self._machine, self._sick, self._error = machine, sick, error
        self.trouble = ""

    def drain(self, deployment: Deployment, names: tuple[str, ...]) -> None:
        self._machine.effects.append(("drain", *names))

    def release(self, deployment: Deployment, names: tuple[str, ...]) -> None:
        self._machine.effects.append(("release", *names))

    def ready(self, deployment: Deployment, name: str) -> None:
        self._machine.effects.append(("ready", name))
        if name in self._sick:
            self._sick = ()
            raise self._error(f"{name} failed: exit status 1")

    def answers(self, deployment: Deployment) -> str:
        return self.trouble


class Site:
    """One appliance below a prefix, with two replicas of `b`."""

    def __init__(self, prefix: Path) -> None:
        self.layout, self.machine = layout(str(prefix)), DiskMachine(answers={(): Answer()})
        self.generations = Generations(self.layout, self.machine)
        self.bring(item("a"), item("b", replicas=2, context=512))
        self.machine.effects.clear()

    def bring(self, *items: ModelSpec, sick: tuple[str, ...] = ()) -> list[str]:
        plan = deployment(*items, host=CONTAINER, where=self.layout)
        changes: Changeset = render(plan, specfile.files(plan.spec, {}, self.layout))
        apply(changes, self.generations, self.machine, Silent(), lambda: None, Told(self.machine, sick))
        return self.story()

    def change(
        self, *items: ModelSpec, sick: tuple[str, ...] = (), error: type[BaseException] = UnhealthyError
    ) -> list[str]:
        """Change what runs by way of a step with stand-ins."""
        plan = deployment(*items, host=CONTAINER, where=self.layout)
        before = self.record().deployment
        bridged = with_standins(before, plan, tuple(service.name for service in before.started), CONTAINER)
        steward = Told(self.machine, sick, error)
        for step in (bridged, plan):
            files = render(step, specfile.files(step.spec, {}, self.layout))
            apply(files, self.generations, self.machine, Silent(), lambda: None, steward)
        return self.story()

    def record(self) -> Record:
        record = self.generations.record()
        assert record
        return record

    def story(self) -> list[str]:
        """Return what happened to replicas, in order."""
        words = {"stop", "update", "start", "drain", "release", "ready"}
        told = []
        for kind, *rest in self.machine.effects:
            line = [kind, *rest] if kind != "run" else list(rest)
            at = next((number for number, word in enumerate(line) if word in words), None)
            if at is not None and not line[0].endswith("nginx"):
                told.append(" ".join(line[at:]))
        return told


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "p")


def of(number: int) -> list[str]:
    name, unit = f"b_{number}", f"model-b_{number}"
    return [f"drain {name}", f"stop {unit}", f"release {name}", f"update {unit}", f"start {unit}", f"ready {name}"]


def test_replicas_change_one_after_the_other_each_drained_before_it_is_stopped(site: Site) -> None:
    story = site.bring(item("a"), item("b", replicas=2, context=1024))
    assert story == [*of(1), *of(2), "update", "start all"]


def test_a_model_with_one_replica_ends_its_requests_before_all_else_goes_on(site: Site) -> None:
    story = site.bring(item("a", context=1024), item("b", replicas=2, context=512))
    assert story == ["drain a", "stop model-a", "release a", "update", "start all"]


def test_what_goes_ends_its_requests_too(site: Site) -> None:
    story = site.bring(item("b", replicas=2, context=512))
    assert story[:3] == ["drain a", "stop model-a", "release a"]


def test_a_model_that_comes_stops_nobody(site: Site) -> None:
    story = site.bring(item("a"), item("b", replicas=2, context=512), item("c"))
    assert story == ["update", "start all"]


def test_when_the_first_does_not_answer_the_others_are_never_touched(site: Site) -> None:
    with pytest.raises(UnhealthyError, match=r"b_1 failed: exit status 1\ngeneration 1 is back"):
        site.bring(item("a"), item("b", replicas=2, context=1024), sick=("b_1",))
    story = site.story()
    assert story == [*of(1), *of(1), "update", "start all"], "only b_1 goes back"


def test_when_the_second_does_not_answer_it_is_the_first_to_go_back(site: Site) -> None:
    with pytest.raises(UnhealthyError):
        site.bring(item("a"), item("b", replicas=2, context=1024), sick=("b_2",))
    assert site.story() == [*of(1), *of(2), *of(2), *of(1), "update", "start all"]


def test_what_is_back_and_does_not_answer_is_named(site: Site) -> None:
    steward = Told(site.machine, ("b_1",))
    steward.trouble = "a failed: exit status 9"
    plan = deployment(item("a"), item("b", replicas=2, context=1024), host=CONTAINER, where=site.layout)
    files = render(plan, specfile.files(plan.spec, {}, site.layout))
    with pytest.raises(UnhealthyError, match="generation 1 is back, but a failed: exit status 9"):
        apply(files, site.generations, site.machine, Silent(), lambda: None, steward)


def test_a_second_time_nothing_is_told_anybody(site: Site) -> None:
    story = site.bring(item("a"), item("b", replicas=2, context=512))
    assert story == ["start all"]


def test_a_stand_in_answers_before_the_only_replica_is_stopped_and_goes_when_that_is_back(site: Site) -> None:
    assert site.change(item("a", context=1024), item("b", replicas=2, context=512)) == [
        "update model-a_0", "start model-a_0", "ready a_0",
        "drain a", "stop model-a", "release a", "update model-a", "start model-a", "ready a", "update", "start all",
        "drain a_0", "stop model-a_0", "release a_0", "update", "start all",
    ]  # fmt: skip


def test_the_step_with_a_stand_in_is_none_that_a_rollback_leads_to(site: Site) -> None:
    site.change(item("a", context=1024), item("b", replicas=2, context=512))
    record = site.record()
    assert (record.generation, record.fallback, record.confirmed) == (3, 1, True)
    assert not record.deployment.passing
    assert site.machine.names(f"{site.layout.state}/generations") == ("1", "3")


def test_when_the_stand_in_does_not_answer_the_replica_is_never_touched(site: Site) -> None:
    with pytest.raises(UnhealthyError, match="a_0 failed: exit status 1\ngeneration 1 is back"):
        site.change(item("a", context=1024), item("b", replicas=2, context=512), sick=("a_0",))
    story = site.story()
    assert story[:3] == ["update model-a_0", "start model-a_0", "ready a_0"]
    assert not any("stop model-a" == line or "drain a" == line for line in story)
    assert site.record().generation == 1


def test_after_a_run_that_was_killed_on_the_way_the_next_one_ends_it(site: Site) -> None:
    class Killed(BaseException):
        """The power went."""

    with pytest.raises(Killed):
        site.change(item("a", context=1024), item("b", replicas=2, context=512), sick=("a",), error=Killed)
    record = site.record()
    assert (record.deployment.passing, record.confirmed, record.fallback) == (True, False, 1)
    site.story()
    site.machine.effects.clear()
    story = site.bring(item("a", context=1024), item("b", replicas=2, context=512))
    assert story == ["drain a_0", "stop model-a_0", "release a_0", "update", "start all"]
    assert (site.record().generation, site.record().fallback) == (3, 1)
    assert "2" not in site.machine.names(f"{site.layout.state}/generations")


def test_the_gap_is_said_in_words() -> None:
    plain = Step(model="a", old="vllm 1", new="vllm 2", replicas=2, restarts=True, gap=None)
    assert lines((plain,)) == ["a: vllm 1 -> vllm 2; its 2 replicas change one after the other, no request is lost"]
    assert lines((replace(plain, replicas=1),))[0].endswith(
        "a second one stands in while it is replaced, no request is lost"
    )
    assert lines((replace(plain, gap=42.4),))[0].endswith(
        "does not answer while it starts: about 42 s, as the last time"
    )
    assert lines((replace(plain, gap=0),))[0].endswith("as long as that takes")
    assert lines((replace(plain, new="vllm 1", restarts=False),)) == ["a: vllm 1, as before; it is not restarted"]


def test_system_units_of_replicas_that_never_changed_are_not_restarted_on_the_way_back() -> None:
    assert HOST.systemd
    assert touched(WIDER, BOTH, frozenset({f"{UNITS}b_1.service"})) == ("b_1",)
