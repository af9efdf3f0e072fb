"""Who may enter and read, by mode, owner, groups and access control list; never by asking for ourselves."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.doctor.access import (
    ENTER,
    GROUP,
    GROUP_OWNER,
    MASK,
    OTHER,
    READ,
    USER,
    WRITE,
    Account,
    AclEntry,
    Step,
    may,
    obstacle,
    parse_acl,
)  # fmt: skip
from tests.unit.doctor.sound import LLM_ENGINE, file, step, trail

ROOT = Account(name="root", uid=0)
BOB = Account(name="bob", uid=1000, gids=(1000, 44))


@pytest.mark.parametrize(
    ("mode", "owner", "group", "wanted", "granted"),
    [
        (0o700, 1000, 0, READ | ENTER, True),
        (0o077, 1000, 0, READ, False),  # the owner's bits decide for the owner, however wide the rest is
        (0o750, 0, 44, READ | ENTER, True),
        (0o705, 0, 44, READ, False),  # and the group's for its members
        (0o751, 0, 0, ENTER, True),
        (0o751, 0, 0, READ, False),
        (0o2775, 0, 44, WRITE, True),
    ],
)
def test_bits(mode: int, owner: int, group: int, wanted: int, granted: bool) -> None:
    assert may(BOB, step("/x", mode, owner, group), wanted) is granted


def test_root_enters_and_reads_everything_and_runs_what_somebody_may_run() -> None:
    assert may(ROOT, step("/x", 0o000, 1000), READ | WRITE | ENTER)
    assert may(ROOT, file("/x", 0o000), READ | WRITE)
    assert not may(ROOT, file("/x", 0o644), ENTER)
    assert may(ROOT, file("/x", 0o611), ENTER)


def test_an_account_that_is_still_to_be_made_is_everybody_else() -> None:
    nobody_yet = Account(name="llm-engine")
    assert may(nobody_yet, step("/x", 0o755), READ | ENTER)
    assert not may(nobody_yet, step("/x", 0o750), ENTER)


def acl(*entries: tuple[int, int, int]) -> tuple[AclEntry, ...]:
    return tuple(AclEntry(tag=tag, permissions=permissions, id=number) for tag, permissions, number in entries)


def test_a_named_user_is_let_in_as_far_as_the_mask_goes() -> None:
    listed = acl((USER, ENTER, 996), (GROUP_OWNER, 0, 0), (MASK, ENTER, 0), (OTHER, 0, 0))
    assert may(LLM_ENGINE, step("/home/bob", 0o710, 1000, 1000, acl=listed), ENTER)
    masked = acl((USER, 7, 996), (GROUP_OWNER, 0, 0), (MASK, 0, 0), (OTHER, 7, 0))
    assert not may(LLM_ENGINE, step("/home/bob", 0o700, 1000, 1000, acl=masked), ENTER)


def test_one_of_several_groups_is_enough_and_then_nobody_else_s_bits_count() -> None:
    listed = acl((GROUP_OWNER, 0, 0), (GROUP, READ, 44), (MASK, 7, 0), (OTHER, 7, 0))
    assert may(BOB, step("/x", 0o070, 0, 1000, acl=listed), READ)
    assert not may(BOB, step("/x", 0o070, 0, 1000, acl=listed), WRITE)
    assert may(LLM_ENGINE, step("/x", 0o070, 0, 1000, acl=listed), WRITE)


def test_the_kernel_s_attribute_is_read() -> None:
    content = struct.pack("<I", 2) + struct.pack("<HHI", USER, 5, 996) + struct.pack("<HHI", OTHER, 0, 0xFFFFFFFF)
    assert parse_acl(content) == acl((USER, 5, 996), (OTHER, 0, 0xFFFFFFFF))


@given(st.binary(max_size=64))
def test_any_attribute_is_read_or_left_alone(content: bytes) -> None:
    assert isinstance(parse_acl(content), tuple)


@given(st.integers(0, 0o7777), st.integers(0, 3), st.integers(0, 3), st.integers(1, 7))
def test_without_a_list_it_is_as_the_minimal_list_says(mode: int, owner: int, group: int, wanted: int) -> None:
    account = Account(name="one", uid=1, gids=(2,))
    plain = step("/x", mode, owner, group)
    minimal = acl((1, mode >> 6 & 7, 0), (GROUP_OWNER, mode >> 3 & 7, 0), (OTHER, mode & 7, 0))
    assert may(account, plain, wanted) == may(account, step("/x", mode, owner, group, acl=minimal), wanted)


def test_the_first_obstacle_is_named() -> None:
    way = trail(step("/"), step("/home"), step("/home/bob", 0o700, 1000), file("/home/bob/m.gguf", 0o600, uid=1000))
    denied = obstacle(LLM_ENGINE, way, READ)
    assert isinstance(denied, Step)
    assert denied.path == "/home/bob"
    assert obstacle(BOB, way, READ) is None


def test_directories_on_the_way_need_no_reading() -> None:
    assert obstacle(LLM_ENGINE, trail(step("/"), step("/srv", 0o711), file("/srv/m.gguf")), READ) is None


def test_where_the_way_ends_early_what_is_there_still_counts() -> None:
    way = trail(step("/"), step("/srv", 0o700), failure="absent")
    assert way.end is None
    assert obstacle(LLM_ENGINE, way, READ) == way.steps[-1]
