"""Which images are ours to remove, and what a build is given; without a daemon."""

import json
from pathlib import Path

from appliance.acquire import images
from appliance.domain.release import Artifact
from appliance.system.docker import Daemon
from tests.unit.recorded import DiskMachine
from tests.unit.samples import HOST, deployment


def test_what_was_brought_is_written_down_once_and_in_order(tmp_path: Path) -> None:
    machine = DiskMachine()
    assert images.made(tmp_path) == ()
    for ref in ("b:1", "a:1", "b:1"):
        images.remember(ref, tmp_path, machine)
    assert images.made(tmp_path) == ("a:1", "b:1")
    assert machine.written() == [f"{tmp_path}/images.json"] * 2
    assert json.loads((tmp_path / "images.json").read_text()) == ["a:1", "b:1"]


def test_what_is_to_be_kept_is_not_asked_about(tmp_path: Path) -> None:
    """No daemon is there to be asked: the seal of these tests would show it."""
    machine = DiskMachine()
    images.remember("a:1", tmp_path, machine)
    assert images.remove_made(Daemon(), tmp_path, machine, keep={"a:1"}) == ()
    assert images.made(tmp_path) == ("a:1",)


def test_a_program_that_this_machine_has_built_goes_into_its_image(tmp_path: Path) -> None:
    artifact = Artifact(name="llama", kind="image", ref="x:1", digest="", recipe="llama-cpp", twin="t" * 64)
    assert images._extras(artifact, tmp_path) == {}
    built = tmp_path / "built" / artifact.twin / "llama-server"
    built.parent.mkdir(parents=True)
    built.write_text("program")
    assert images._extras(artifact, tmp_path) == {"prebuilt/llama-server": built}


def test_without_containers_nobody_is_asked_what_an_image_asks_for() -> None:
    images.refuse_conflicts(deployment(), HOST)
