"""Paths as another user would meet them: real directories, links and modes, walked without being that user."""

import os
from pathlib import Path

import pytest

from appliance.detect.paths import parse_mounts, place, trail
from appliance.doctor.access import ENTER, READ, Account, obstacle
from tests.unit.recorded import RecordedMachine

STRANGER = Account(name="llm-engine", uid=54321, gids=(54321,))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a directory with a model in it; what is above it is opened, for that is not what is looked at."""
    (tmp_path / "bob" / "models").mkdir(parents=True)
    (tmp_path / "bob" / "models" / "m.gguf").write_bytes(b"GGUF")
    for path in (tmp_path, tmp_path / "bob", tmp_path / "bob" / "models"):
        path.chmod(0o755)
    (tmp_path / "bob" / "models" / "m.gguf").chmod(0o644)
    return tmp_path / "bob"


def denied(path: Path, below: Path, wanted: int = READ) -> str:
    """Return what keeps a stranger out, "" for nothing; pytest's own directories above are private."""
    way = trail(str(path))
    inside = tuple(step for step in way.steps if step.path.startswith(str(below)))
    step = obstacle(STRANGER, type(way)(path=way.path, steps=inside, failure=way.failure), wanted)
    return step.path if step else ""


def test_the_first_directory_that_denies_is_named(home: Path) -> None:
    model = home / "models" / "m.gguf"
    assert denied(model, home) == ""
    (home / "models").chmod(0o700)
    assert denied(model, home) == str(home / "models")
    home.chmod(0o750)
    assert denied(model, home) == str(home)
    home.chmod(0o711)
    (home / "models").chmod(0o711)
    assert denied(model, home) == ""


def test_the_file_itself_may_deny(home: Path) -> None:
    model = home / "models" / "m.gguf"
    model.chmod(0o600)
    assert denied(model, home) == str(model)


def test_a_link_leads_through_the_directories_of_its_target(home: Path) -> None:
    public = home.parent / "srv"
    public.mkdir(mode=0o755)
    (public / "m.gguf").symlink_to("../bob/models/m.gguf")
    (public / "all").symlink_to(home / "models")
    home.chmod(0o700)
    assert denied(public / "m.gguf", home.parent) == str(home)
    assert denied(public / "all" / "m.gguf", home.parent) == str(home)


def test_a_hard_link_needs_nothing_of_where_it_came_from(home: Path) -> None:
    store = home.parent / "store"
    store.mkdir(mode=0o755)
    os.link(home / "models" / "m.gguf", store / "m.gguf")
    home.chmod(0o700)
    assert denied(store / "m.gguf", home.parent) == ""
    (home / "models" / "m.gguf").chmod(0o600)  # but the mode is the file's own, wherever it is changed
    assert denied(store / "m.gguf", home.parent) == str(store / "m.gguf")


def test_what_is_not_there(home: Path) -> None:
    way = trail(str(home / "gone" / "m.gguf"))
    assert way.absent
    assert way.end is None
    assert way.steps[-1].path == str(home)
    (home / "dangling").symlink_to("nowhere")
    assert trail(str(home / "dangling")).absent
    assert trail(str(home / "models" / "m.gguf" / "x")).absent


def test_links_in_a_circle_end(home: Path) -> None:
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")
    assert trail(str(home / "a")).failure == "too many symbolic links"


def test_dots_are_walked_too(home: Path) -> None:
    way = trail(f"{home}/./models/../models//m.gguf")
    assert way.end
    assert way.end.path == str(home / "models" / "m.gguf")
    assert way.end.size == 4


def test_a_file_is_opened_where_that_is_asked(home: Path) -> None:
    assert trail(str(home / "models" / "m.gguf"), opened=True).failure == ""
    assert trail(str(home), opened=True).failure == ""


def test_entering_is_asked_of_a_directory_at_the_end(home: Path) -> None:
    home.chmod(0o744)
    assert denied(home, home, READ) == ""
    assert denied(home, home, ENTER) == str(home)


def test_mounts_are_read_with_the_blanks_in_their_names() -> None:
    content = "/dev/vda1 / ext4 rw,relatime 0 0\nnas:/m /mnt/my\\040models nfs4 ro,noexec 0 0\n"
    assert parse_mounts(content)[1] == ("/mnt/my models", "nfs4", ("ro", "noexec"))


def test_the_nearest_mount_counts_and_of_two_the_last(tmp_path: Path) -> None:
    mounts = f"a / ext4 rw 0 0\nb {tmp_path} tmpfs rw 0 0\nc {tmp_path} xfs rw,noexec 0 0\nd {tmp_path}x nfs rw 0 0\n"
    machine = RecordedMachine(files={"/proc/self/mounts": mounts.encode()})
    found = place(str(tmp_path / "not" / "yet"), machine)
    assert (found.mount, found.kind, found.options) == (str(tmp_path), "xfs", ("rw", "noexec"))
    assert found.free > 0
    assert place("/", machine).kind == "ext4"
