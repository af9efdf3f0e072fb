"""The step with stand-ins: which files it has beside the change's own, and what is left of it."""

import os
from pathlib import Path

import pytest

from appliance.apply import Generations, apply
from appliance.domain.changes import Changeset, File
from appliance.domain.deployment import Deployment
from appliance.flows import standins
from appliance.flows.site import Site
from appliance.plan.standin import with_standins
from appliance.render.pages import render
from tests.unit.apply.test_converge import Silent
from tests.unit.recorded import Answer, DiskMachine
from tests.unit.samples import CONTAINER, deployment, item, layout


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The power stays on in here: nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """One model with one replica, in force."""
    machine = DiskMachine(answers={(): Answer()})
    found = Site(layout=layout(str(tmp_path)), machine=machine, progress=Silent(), command="test")
    put(found, render(plan(found)))
    return found


def plan(site: Site, context: int = 512) -> Deployment:
    return deployment(item("a", context=context), host=CONTAINER, where=site.layout)


def bridged(site: Site) -> Changeset:
    return render(with_standins(plan(site), plan(site, 1024), ("a",), CONTAINER))


def put(site: Site, changes: Changeset) -> None:
    apply(changes, Generations(site.layout, site.machine), site.machine, site.progress, lambda: None)


def cache(site: Site) -> Path:
    """What the stand-in kept for itself."""
    path = Path(site.layout.cache, "a_0")
    path.mkdir(parents=True, exist_ok=True)
    path.joinpath("kernels").touch()
    return path


def test_its_caches_go_with_it(site: Site) -> None:
    there = cache(site)
    standins.tidy(site, bridged(site))
    assert not there.exists()
    assert Path(site.layout.cache).exists()


def test_one_that_runs_still_keeps_them_and_is_told_of(site: Site) -> None:
    bridge, there = bridged(site), cache(site)
    put(site, bridge)
    standins.tidy(site, bridge)
    assert there.joinpath("kernels").exists()
    assert site.progress.steps[-1] == "not ended: stand-ins run still; llm-appliance install takes them away"  # type: ignore[attr-defined]


def test_what_only_the_step_changes_is_no_change() -> None:
    own, passing = File(path="/etc/a", content=b""), File(path="/etc/a_0", content=b"")
    changes, bridge = (Changeset(deployment=deployment(), files=files) for files in ((own,), (own, passing)))
    assert standins.lasting(("/etc/gone", "/etc/a_0", "/etc/a", "/etc/a"), bridge, changes) == ("/etc/a", "/etc/gone")
