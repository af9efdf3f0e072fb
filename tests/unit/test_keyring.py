"""Clients' keys: what is kept of them, and how they come, change and go."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import keyring
from appliance.errors import SpecError
from appliance.keyring import Key
from appliance.serving import ALIAS

KEY = Key(name="ann", sha256="a" * 64, created=1000)
COUNT = st.none() | st.integers(1, 10**9)
KEYS = st.builds(
    Key,
    name=st.from_regex(ALIAS, fullmatch=True),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    created=st.integers(0, 2**33),
    expires=COUNT,
    models=st.none() | st.lists(st.sampled_from(["a", "b"]), min_size=1, unique=True).map(tuple),
    rpm=COUNT,
    tpm=COUNT,
    parallel=COUNT,
    metrics=st.booleans(),
)


@given(st.lists(KEYS, max_size=5).map(tuple))
def test_what_is_written_is_read_again(keys: tuple[Key, ...]) -> None:
    assert keyring.load(keyring.dump(keys), "keys.json") == keys


def test_no_file_is_no_keys() -> None:
    assert keyring.load(None, "keys.json") == ()


def test_the_file_holds_a_line_for_each_key_and_nothing_that_is_not_said() -> None:
    lines = keyring.dump((KEY, replace(KEY, name="ben", rpm=5))).decode().splitlines()
    assert json.loads(lines[1].rstrip(",")) == {"name": "ann", "sha256": "a" * 64, "created": 1000}
    assert json.loads(lines[2]) == {"name": "ben", "sha256": "a" * 64, "created": 1000, "rpm": 5}


def test_the_key_itself_is_not_kept() -> None:
    digest = keyring.digest("sk-secret")
    assert len(digest) == 64
    assert "secret" not in digest


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version":1,"keys":[{"name":"a"}]}', b'{"version":9}'])
def test_a_broken_file_is_refused(content: bytes) -> None:
    with pytest.raises(SpecError, match=r"keys\.json"):
        keyring.load(content, "keys.json")


def test_a_name_is_given_once() -> None:
    keys = keyring.added((), KEY)
    with pytest.raises(SpecError, match="there is a key ann already") as caught:
        keyring.added(keys, KEY)
    assert "rotate ann" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "cannot be a key's name"),
        ({"name": ""}, "cannot be a key's name"),
        ({"name": '"'}, "cannot be a key's name"),
        ({"rpm": 0}, "--rpm: 0 is not between"),
        ({"tpm": -1}, "--tpm: -1 is not between"),
        ({"parallel": 10**10}, "--parallel: 10000000000 is not between"),
        ({"expires": 1000}, "that day is over"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        keyring.added((), replace(KEY, **changes))  # type: ignore[arg-type]


def test_there_is_an_end_to_keys() -> None:
    keys = tuple(replace(KEY, name=f"k{number}") for number in range(keyring.MOST))
    with pytest.raises(SpecError, match="10000 is the limit"):
        keyring.added(keys, KEY)


def test_a_rotated_key_is_valid_beside_the_new_one_for_a_while() -> None:
    other = replace(KEY, name="ben")
    limited = replace(KEY, rpm=5, models=("a",))
    keys = keyring.rotated((limited, other), "ann", "b" * 64, now=5000, keep=60)
    assert keys == (
        other,
        replace(limited, expires=5060),
        replace(limited, sha256="b" * 64, created=5000),
    )


def test_rotating_lengthens_no_life() -> None:
    old, new = keyring.rotated((replace(KEY, expires=5010),), "ann", "b" * 64, now=5000, keep=60)
    assert (old.expires, new.expires) == (5010, 5010)


def test_a_key_can_be_rotated_at_once_and_again() -> None:
    (only,) = keyring.rotated((KEY,), "ann", "b" * 64, now=5000, keep=0)
    assert only.sha256 == "b" * 64
    twice = keyring.rotated(keyring.rotated((KEY,), "ann", "b" * 64, 5000, 60), "ann", "c" * 64, 5010, 60)
    assert [(key.sha256[0], key.expires) for key in twice] == [("a", 5060), ("b", 5070), ("c", None)]
    later = keyring.rotated(twice, "ann", "d" * 64, 9000, 60)
    assert [(key.sha256[0], key.expires) for key in later] == [("c", 9060), ("d", None)]


def test_what_is_revoked_is_gone_with_all_that_it_replaced() -> None:
    keys = keyring.rotated((KEY, replace(KEY, name="ben")), "ann", "b" * 64, 5000, 60)
    assert [key.name for key in keyring.without(keys, "ann")] == ["ben"]
