"""Where things are kept: room, and what the file system allows."""

import pytest

from appliance.doctor.facts import Place, Source
from tests.unit.doctor.sound import LLM_ENGINE, SOUND, facts, file, installed, look, only, step, trail
from tests.unit.samples import GIB

STATE = "/var/lib/llm-appliance"


def place(path: str = STATE, **more: object) -> Place:
    return Place(**{"path": path, "mount": "/", "kind": "ext4"} | more)  # type: ignore[arg-type]


def test_too_little_room_for_a_first_installation() -> None:
    found = only("disk-full", SOUND, facts(state=place(free=GIB)))
    assert found.message == "1.0 GiB free on /, 2.0 GiB wanted (engines and logs 2.0 GiB)"
    assert not found.prevents  # install counts exactly, and says so itself
    assert look(SOUND, facts(state=place(free=3 * GIB))) == {}


def test_weights_that_are_copied_want_room_too() -> None:
    weights = Source(model="big", path="/m", trails=(trail(step("/"), file("/m", uid=1000, size=70 * GIB)),))
    found = look(SOUND, facts(state=place(free=70 * GIB), sources=(weights,), engine=LLM_ENGINE))
    assert found["disk-full"][0].message.endswith("72.0 GiB wanted (engines and logs 2.0 GiB, weights 70.0 GiB)")


def test_less_is_wanted_once_it_is_installed() -> None:
    assert look(SOUND, installed()) == {}


def test_inodes_run_out_before_bytes_do() -> None:
    assert only("inodes-low", SOUND, facts(state=place(inodes=10**6, inodes_free=1000))).severity == "error"
    assert only("inodes-low", SOUND, facts(state=place(inodes=10**6, inodes_free=50_000))).severity == "warning"
    assert look(SOUND, facts(state=place(inodes=0, inodes_free=0))) == {}  # btrfs


@pytest.mark.parametrize(
    ("name", "kind", "severity", "prevents"),
    [
        ("state-volatile", "tmpfs", "warning", False),
        ("state-network", "nfs4", "warning", False),
        ("state-network", "fuse.sshfs", "warning", False),
        ("state-filesystem", "exfat", "error", True),
    ],
)
def test_file_systems_that_are_not_made_for_it(name: str, kind: str, severity: str, prevents: bool) -> None:
    found = only(name, SOUND, facts(state=place(kind=kind)))
    assert (found.severity, found.prevents) == (severity, prevents)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", ""])
def test_file_systems_that_are(kind: str) -> None:
    assert look(SOUND, facts(state=place(kind=kind, options=("rw", "relatime")))) == {}


def test_read_only() -> None:
    assert only("state-readonly", SOUND, facts(state=place(options=("ro", "relatime")))).prevents


def test_programs_cannot_be_started_there() -> None:
    noexec = ("rw", "noexec")
    found = only("state-noexec", SOUND, facts(state=place(mount="/var", options=noexec)))
    assert found.remedy == ("mount -o remount,exec /var   # and in /etc/fstab, to stay",)
    assert found.prevents
    assert only("state-noexec", SOUND, facts(cache=place("/var/cache/llm-appliance", options=noexec))).prevents
    assert only("tmp-noexec", SOUND, facts(temporary=place("/tmp", options=noexec))).severity == "warning"
