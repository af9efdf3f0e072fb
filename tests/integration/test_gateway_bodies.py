"""A body is read in one way however long it is: two scanners, one for memory and one for files, must say the same.

Each body goes through a real nginx twice, as it is and with white space behind it that does not fit into nginx's buffer.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.gateway_rig import Gateway, Recorder, gateway, missing_ability

CHAT = "/v1/chat/completions"
SEED, COUNT = 20261128, 300
BUFFER = 4096
"""Bytes of a body that nginx keeps in memory here, and up to a quarter more; what is made below is shorter."""

NAMES = ('"m"', '"renamed"', '"\\u006d"', '"none"', '"m\\"', '""', "null", "1", '["m"]', '{"model":"m"}', '"\\x"')
KEYS = (
    '"model"',
    '"mod\\u0065l"',
    '"\\u006d\\u006f\\u0064\\u0065\\u006c"',
    '"Model"',
    '"model "',
    '"mode\\l"',
    '"stop"',
)
VALUES = (
    '"x"', '"\\\\"', '"\\""', '"\\\\\\""', '"a\\\\\\\\"', '"model"', '"\\"model\\": \\"m\\""', "1", "-1.5e+9", "true", "null",
    "[]", "{}", "[1, 2,3]", '[{"role":"user","content":"a ]}{[ b"}]', '{"model": "none", "a": {"model": ["]"]}}', '["\\"]"]',
    "[[[]],[{}]]", "nul", "+", "", '"open', "[1", '{"a":1', "]", "1 2", "\x00", "\x01", '"é"', "'m'",
)  # fmt: skip
SPACES = ("", "", "", " ", "\n", "\t \r\n", "\x0b", "\x00")
BREAKS = '{}[]",:\\ \n\x00m1'


@pytest.fixture(scope="module", autouse=True)
def _nginx() -> None:
    reason = missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def small_buffer() -> Iterator[Gateway]:
    with gateway(changes={"client_body_buffer_size 512k": f"client_body_buffer_size {BUFFER}"}) as one:
        recorder = one.recorder("rec")
        one.route("m", recorder)
        one.route("renamed", recorder, upstream='a "longer" name')
        one.start()
        one.wait_for("m")
        yield one


def body(dice: random.Random) -> bytes:
    """Return what is nearly a JSON object with a model: in half of all cases it is one."""
    well = dice.random() < 0.5
    members = [
        f"{dice.choice(KEYS[3:])}:{space(dice, well)}{dice.choice(VALUES[:18] if well else VALUES)}"
        for _ in range(dice.randrange(4))
    ]
    for _ in range(1 if well else dice.choice((0, 1, 1, 1, 2))):
        key, name = dice.choice(KEYS[:3]), dice.choice(NAMES[:4] if well else NAMES)
        members.insert(dice.randrange(len(members) + 1), f"{key}{space(dice, well)}:{space(dice, well)}{name}")
    gap = space(dice, well)
    text = f"{space(dice, well)}{{{gap}{(gap + ',' + space(dice, well)).join(members)}{gap}}}{space(dice, well)}"
    if not well and dice.random() < 0.3:
        at = dice.randrange(len(text))
        text = text[:at] + dice.choice(BREAKS) + text[at + dice.randrange(2) :]
    return text.encode()


def space(dice: random.Random, well: bool) -> str:
    return dice.choice(SPACES[:6] if well else SPACES)


def said(one: Gateway, recorder: Recorder, content: bytes) -> tuple[int, object, bytes]:
    """Return the status, the error's message, and what came to the engine, without white space at the end."""
    recorder.seen.clear()
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(one.url + CHAT, content=content, headers=headers, timeout=30)
    arrived = recorder.seen[0].body.rstrip(b" ") if recorder.seen else b""
    return answer.status_code, answer.json().get("error", {}).get("message"), arrived


def test_a_body_in_a_file_is_read_as_one_in_memory(small_buffer: Gateway) -> None:
    (recorder,) = small_buffer.engines
    assert isinstance(recorder, Recorder)
    dice, statuses, different = random.Random(SEED), Counter[int](), []
    for _ in range(COUNT):
        content = body(dice)
        assert len(content) < BUFFER
        short = said(small_buffer, recorder, content)
        long = said(small_buffer, recorder, content + b" " * 2 * BUFFER)
        statuses[short[0]] += 1
        if short != long and not same_document(short, long):
            different.append((content, short, long))
    print(f"{COUNT} bodies, answered {dict(statuses)}")
    assert not different, f"{len(different)} of {COUNT}, first: {different[0]}"
    assert min(statuses[200], statuses[400], statuses[404]) > COUNT / 20, "the bodies are all of one kind"


def same_document(short: tuple[int, object, bytes], long: tuple[int, object, bytes]) -> bool:
    """Return whether both were let in alike: a shorter name in a file is followed by white space."""
    if short[:2] != long[:2] or not short[2] or not long[2]:
        return False
    try:
        return bool(json.loads(short[2]) == json.loads(long[2]))
    except ValueError:
        return False
