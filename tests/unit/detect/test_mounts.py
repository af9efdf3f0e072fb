"""File systems: the real ones, each once, and one that hangs does not hold up the rest."""

import threading
from pathlib import Path

import pytest

from appliance.detect import mounts, together
from appliance.domain.host import Filesystem
from tests.unit.recorded import RecordedMachine

DISKS = (
    b"29 1 259:2 / / rw - ext4 /dev/a rw\n"
    b"41 29 8:1 / /data rw - xfs /dev/b rw\n"
    b"42 29 8:1 /models /srv/models rw - xfs /dev/b rw\n"
    b"43 29 0:52 / /mnt/weights rw - nfs4 10.0.0.5:/weights rw\n"
    b"44 29 0:53 / /tmp rw - tmpfs tmpfs rw\n"
)


def room(path: str) -> mounts.Room | None:
    return {"/": (100, 10), "/data": (200, 20), "/mnt/weights": (300, 30)}.get(path)


def found(content: bytes) -> list[tuple[str, str, int, int]]:
    machine = RecordedMachine(files={"/proc/self/mountinfo": content})
    every, silent = mounts.filesystems(machine, room)
    assert silent == ()
    return [(one.path, one.kind, one.total, one.free) for one in every]


def test_each_file_system_once_at_its_root() -> None:
    assert found(DISKS) == [("/", "ext4", 100, 10), ("/data", "xfs", 200, 20), ("/mnt/weights", "nfs4", 300, 30)]


def test_what_was_mounted_last_hides_what_was_there() -> None:
    assert found(b"1 1 0:2 / / rw - rootfs rootfs rw\n29 1 8:1 / / rw - btrfs /dev/a rw\n") == [("/", "btrfs", 100, 10)]
    assert found(b"29 1 8:1 / /data rw - ext4 /dev/a rw\n30 1 0:9 / /data rw - tmpfs tmpfs rw\n") == []


def test_a_place_that_can_be_written_to_is_better() -> None:
    both = b"30 29 8:1 / /ro ro - ext4 /dev/a rw\n31 29 8:1 /models /data rw - ext4 /dev/a rw\n"
    assert found(both) == [("/data", "ext4", 200, 20)]


def test_a_file_that_is_mounted_in_a_container_is_no_place() -> None:
    files = (
        b"238 221 254:0 /x /etc/hosts rw - ext4 /dev/vda rw\n240 221 254:0 /srv/models /data rw - ext4 /dev/vda rw\n"
    )
    assert found(b"221 195 0:61 / / rw - overlay overlay rw\n" + files) == [
        ("/", "overlay", 100, 10),
        ("/data", "ext4", 200, 20),
    ]


def test_a_server_that_went_away_is_named_and_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "ANSWER", 0.1)
    over = threading.Event()

    def hang(path: str) -> mounts.Room | None:
        if path == "/mnt/weights":
            over.wait(60)
        return room(path)

    every, silent = mounts.filesystems(RecordedMachine(files={"/proc/self/mountinfo": DISKS}), hang)
    over.set()
    assert [one.path for one in every] == ["/", "/data"]
    assert silent == ("/mnt/weights (nfs4)",)


def test_room_is_asked_of_directories_only(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert mounts.room(str(file)) is None
    assert mounts.room(str(tmp_path / "absent")) is None
    assert mounts.room("/nul\0") is None
    total, free = mounts.room(str(tmp_path)) or (0, 0)
    assert total > free > 0


def test_free_is_that_of_the_nearest_directory_that_is_there(tmp_path: Path) -> None:
    assert mounts.free(str(tmp_path / "not" / "yet")) > 0


def test_an_empty_file_system_is_none() -> None:
    mount = mounts.parse_mountinfo("29 1 8:1 / / rw - ext4 /dev/a rw")
    assert mounts.measure(mount, lambda _: (0, 0)) is None
    assert mounts.measure(mount, lambda _: (2, 1)) == Filesystem(path="/", kind="ext4", total=2, free=1)


def test_a_probe_of_file_systems_ends_before_who_waits_for_it() -> None:
    assert together.ANSWER < together.PATIENCE
