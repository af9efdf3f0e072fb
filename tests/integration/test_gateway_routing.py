"""Which model a request reaches: forms with files, aliases, splits, fallbacks, paths that only some engines have."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.integration.gateway_rig import Gateway, Recorder, gateway, missing_ability, until

CHAT, HEAR = "/v1/chat/completions", "/v1/audio/transcriptions"
EVERYTHING = {path: path for path in (CHAT, HEAR, "/v1/images/edits", "/v1/responses", "/tokenize")}


@pytest.fixture(scope="module", autouse=True)
def _nginx() -> None:
    reason = missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def shared() -> Iterator[Gateway]:
    """`ear` has every path and another name upstream, `mouth` the usual ones."""
    with gateway() as one:
        recorder = one.recorder("ear")
        one.route("ear", recorder, paths=EVERYTHING, upstream="whisper-large-v3-turbo")
        one.route("short", recorder, paths=EVERYTHING, upstream="w")
        one.route("mouth", recorder)
        one.route("ranks", recorder, paths={"/v1/rerank": "/rerank"})
        one.route("llama", recorder, paths={"/api/chat": "/api/chat", "/api/embed": "/api/embed"})
        one.document["aliases"] = {"whisper-1": "ear", "GPT-4o": "mouth"}
        one.write_routes()
        one.start()
        one.wait_for("ear")
        yield one


@pytest.fixture
def recorder(shared: Gateway) -> Recorder:
    found = next(engine for engine in shared.engines if isinstance(engine, Recorder))
    found.forget()
    return found


@pytest.fixture
def fresh() -> Iterator[Gateway]:
    with gateway() as one:
        yield one


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# ---------------------------------------------------------------------------------------------------- forms


def form(*parts: tuple[str, bytes], edge: bytes = b"edge7") -> bytes:
    """Each part: what follows `form-data; ` in its head, and its bytes."""
    return (
        b"".join(
            b"--" + edge + b"\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + body + b"\r\n"
            for head, body in parts
        )
        + b"--"
        + edge
        + b"--\r\n"
    )


FORM = {"Content-Type": "multipart/form-data; boundary=edge7"}
NOISE = b'\r\n--edge\r\nContent-Disposition: form-data; name="model"\r\n\r\nmouth\r\n--edge--\r\n name="model" '


@pytest.mark.parametrize("size", [0, 1_000, 600_000, 25_000_000])
@pytest.mark.parametrize("model", ["ear", "short"])
def test_a_forms_model_may_come_after_a_file_of_any_size(
    shared: Gateway, recorder: Recorder, size: int, model: str
) -> None:
    sound = os.urandom(size).replace(b"edge7", b"edge8") + NOISE
    body = form(('name="file"; filename="a.wav"', sound), ('name="model"', model.encode()), ('name="language"', b"zh"))
    answer = shared.post(HEAR, content=body, headers=FORM)
    assert answer.status_code == 200, answer.text
    [seen] = recorder.seen
    upstream = shared.models[model]["upstream_model"].encode()
    wanted = form(('name="file"; filename="a.wav"', sound), ('name="model"', upstream), ('name="language"', b"zh"))
    assert hashlib.sha256(seen.body).digest() == hashlib.sha256(wanted).digest()
    assert seen.header("content-type") == [FORM["Content-Type"]]
    assert seen.header("content-length") == [str(len(wanted))]
    assert seen.path == HEAR


def test_the_openai_client_sends_sounds(shared: Gateway, recorder: Recorder) -> None:
    recorder.reply = b'{"text":"hello"}'
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        heard = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF" + bytes(100_000)))
    assert heard.text == "hello"
    assert b"whisper-large-v3-turbo" in recorder.seen[0].body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (form(('name="model"', b"ear"), ('name="model"', b"mouth")), "invalid_body"),
        (form(('name="file"; filename="model"', b"ear")), "model_missing"),
        (form(('name="model_name"', b"ear")), "model_missing"),
        (form(('name="x"; name="model"', b"ear")), "invalid_body"),
        (form(("name*=utf-8''model", b"ear")), "invalid_body"),
        (form(("filename=a", b"ear")), "invalid_body"),
        (form(('name="model"', b"ear"))[:-9], "invalid_body"),
        (b"", "invalid_body"),
        (b"--edge7", "invalid_body"),
        (b"--edge7\r\n\r\n\r\n--edge7--", "invalid_body"),
        (b'{"model":"ear"}', "invalid_body"),
        (form(('name="model"', b"e" * 10_000)), "invalid_body"),
        (form(*[(f'name="f{n}"', b"") for n in range(100)], ('name="model"', b"ear")), "invalid_body"),
        (form(('name="model"; filename="x"\r\nContent-Disposition: form-data; name="y"', b"ear")), "invalid_body"),
    ],
)
def test_a_form_that_could_be_read_in_two_ways_is_refused(
    shared: Gateway, recorder: Recorder, body: bytes, expected: str
) -> None:
    assert code(shared.post(HEAR, content=body, headers=FORM)) == (400, expected)
    assert recorder.seen == []


@pytest.mark.parametrize("kind", ["multipart/form-data", 'multipart/form-data; boundary=""', "multipart/form-data; x"])
def test_a_form_without_a_boundary_is_refused(shared: Gateway, recorder: Recorder, kind: str) -> None:
    body = form(('name="model"', b"ear"))
    assert code(shared.post(HEAR, content=body, headers={"Content-Type": kind})) == (400, "invalid_body")
    assert recorder.seen == []


def test_a_form_is_no_body_for_a_chat(shared: Gateway, recorder: Recorder) -> None:
    body = form(('name="model"', b"ear"))
    assert code(shared.post(CHAT, content=body, headers=FORM)) == (400, "invalid_body")
    assert recorder.seen == []


def test_a_models_own_endpoint_takes_forms_too(shared: Gateway, recorder: Recorder) -> None:
    body = form(('name="model"', b"whatever"), ('name="file"; filename="a"', b"x"))
    assert shared.post(f"/short{HEAR}", content=body, headers=FORM).status_code == 200
    assert recorder.seen[0].body == form(('name="model"', b"w"), ('name="file"; filename="a"', b"x"))


# ---------------------------------------------------------------------------------------------------- paths


def test_a_path_that_a_models_engine_lacks_is_named(shared: Gateway, recorder: Recorder) -> None:
    answer = shared.post("/v1/responses", {"model": "mouth"})
    assert code(answer) == (404, "path_not_served")
    assert "'mouth' does not serve /v1/responses" in answer.json()["error"]["message"]
    assert shared.post("/v1/responses", {"model": "ear"}).status_code == 200
    assert code(shared.post("/tokenize", {"model": "mouth"})) == (404, "path_not_served")
    assert shared.post("/ear/tokenize", {"model": "x"}).status_code == 200
    assert [seen.path for seen in recorder.seen] == ["/v1/responses", "/tokenize"]


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/ranks/v1/rerank", "/ranks/rerank"])
def test_an_engine_is_asked_by_its_own_path(shared: Gateway, recorder: Recorder, path: str) -> None:
    assert shared.post(path, {"model": "ranks"}).status_code == 200
    assert [seen.path for seen in recorder.seen] == ["/rerank"]


def test_ollamas_routes_are_for_its_models_only(shared: Gateway, recorder: Recorder) -> None:
    assert shared.post("/api/chat", {"model": "llama"}).status_code == 200
    assert shared.post("/llama/api/embed", {"model": "llama"}).status_code == 200
    assert code(shared.post("/api/chat", {"model": "mouth"})) == (404, "path_not_served")
    assert httpx.get(f"{shared.url}/api/tags").json() == {"models": [{"name": "llama", "model": "llama"}]}
    for path in ("/api/pull", "/api/create", "/api/push", "/api/delete", "/api/copy", "/api/blobs/sha256:0"):
        assert code(shared.post(path, {"model": "llama"})) == (404, "not_found")
    assert [seen.path for seen in recorder.seen] == ["/api/chat", "/api/embed"]


# ---------------------------------------------------------------------------------------------------- names


def test_an_alias_is_the_model(shared: Gateway, recorder: Recorder) -> None:
    assert shared.chat("GPT-4o").status_code == 200
    assert json.loads(recorder.seen[0].body)["model"] == "mouth"
    assert shared.post(f"/GPT-4o{CHAT}", {"n": 1}).status_code == 200
    listed = [model["id"] for model in httpx.get(f"{shared.url}/v1/models").json()["data"]]
    assert listed == sorted([*shared.models, "whisper-1", "GPT-4o"])


def test_a_split_shares_by_weight(fresh: Gateway) -> None:
    for name in ("a", "b"):
        fresh.route(name, fresh.recorder(name))
    fresh.document["splits"] = {"fast": {"a": 9, "b": 1}, "one": {"a": 1, "b": 0}}
    fresh.write_routes()
    fresh.start()
    fresh.wait_for("a")
    fresh.wait_for("b")
    with httpx.Client(base_url=fresh.url) as client:
        answers = [client.post(CHAT, json={"model": "fast"}) for _ in range(300)]
        assert {answer.status_code for answer in answers} == {200}
        seen = {engine.name: len(engine.seen) for engine in fresh.engines if isinstance(engine, Recorder)}
        # 30 are expected; less than 5 or more than 70 come once in a hundred million runs.
        assert 5 <= seen["b"] <= 70
        assert {client.post(CHAT, json={"model": "one"}).status_code for _ in range(20)} == {200}
    [b] = [engine for engine in fresh.engines if engine.name == "b"]
    assert isinstance(b, Recorder)
    assert len(b.seen) == seen["b"]
    assert "fast" in [model["id"] for model in httpx.get(f"{fresh.url}/v1/models").json()["data"]]


def test_another_model_answers_while_one_does_not(fresh: Gateway) -> None:
    first, second = fresh.engine("big"), fresh.engine("small")
    fresh.route("small", second)
    fresh.route("big", first, fallback="small")
    fresh.start()
    fresh.wait_for("big")
    fresh.wait_for("small")
    assert fresh.chat("big").json()["model"] == "big"
    first.kill()
    fresh.chat("big")
    fresh.wait_for("big", "down")
    assert fresh.chat("big").json()["model"] == "small"
    second.kill()
    fresh.chat("small")
    fresh.wait_for("small", "down")
    assert code(fresh.chat("big")) == (502, "model_unavailable")
    first.start()
    fresh.wait_for("big")
    assert fresh.chat("big").json()["model"] == "big"


# ---------------------------------------------------------------------------------------------------- balance


def replicas(one: Gateway, count: int, *switches: str, **more: Any) -> None:
    one.route("a", *[one.engine(f"a_{n}", *switches, model="a") for n in range(1, count + 1)], **more)
    one.start()
    one.wait_for("a")
    until(lambda: all(state == "up" for state in states(one)), what="all replicas up")


def states(one: Gateway) -> list[str]:
    return [replica["state"] for replica in stat(one)["replicas"]]


def stat(one: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{one.url}/gateway/stat").json()["models"]["a"]
    return found


def used(one: Gateway, count: int) -> list[str]:
    until(lambda: len([line for line in one.logged() if line["model"]]) >= count, what="the log")
    return [line["replica"] for line in one.logged() if line["model"]][-count:]


def test_round_robin_goes_round(fresh: Gateway) -> None:
    replicas(fresh, 3, balance="round_robin")
    for _ in range(6):
        assert fresh.chat("a").status_code == 200
    names = used(fresh, 6)
    assert names[:3] == names[3:]
    assert sorted(names[:3]) == ["a_1", "a_2", "a_3"]


def test_the_lottery_prefers_by_weight(fresh: Gateway) -> None:
    replicas(fresh, 2, balance="lottery")
    for replica, weight in zip(fresh.models["a"]["replicas"], (0, 5), strict=True):
        replica["weight"] = weight
    fresh.write_routes()
    time.sleep(0.6)
    for _ in range(10):
        assert fresh.chat("a").status_code == 200
    assert Counter(used(fresh, 10)) == {"a_2": 10}


def test_the_same_conversation_stays_with_its_replica(fresh: Gateway) -> None:
    replicas(fresh, 3, balance="prefix")

    def converse(number: int) -> set[str]:
        messages = [{"role": "system", "content": "x" * 50}, {"role": "user", "content": f"question {number}"}]
        for turn in range(4):
            answer = fresh.post(CHAT, {"temperature": turn, "messages": messages, "model": "a"})
            assert answer.status_code == 200
            messages += [{"role": "assistant", "content": "so"}, {"role": "user", "content": f"and {turn}"}]
        return set(used(fresh, 4 * (number + 1))[-4:])

    places = [converse(number) for number in range(8)]
    assert {len(place) for place in places} == {1}
    assert len(set.union(*places)) > 1


@pytest.mark.parametrize("balance", ["lru", "lottery", "shortest_queue", "round_robin", "prefix"])
def test_every_strategy_passes_over_a_dead_replica(fresh: Gateway, balance: str) -> None:
    replicas(fresh, 3, balance=balance)
    dead = fresh.engines[1]
    dead.kill()
    assert {fresh.chat("a", str(number)).status_code for number in range(12)} == {200}
    assert "a_2" not in used(fresh, 12)[3:]


def test_a_replica_gets_no_more_than_its_limit_and_the_others_wait_their_turn(fresh: Gateway) -> None:
    from concurrent.futures import ThreadPoolExecutor

    replicas(fresh, 2, "--token-delay", "0.02", "--text", "word " * 10, limit=2, queue=100)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: fresh.chat("a").status_code, range(32)))
    assert Counter(answers) == {200: 32}
    found = stat(fresh)
    assert {replica["max_concurrency"] for replica in found["replicas"]} == {2}
    assert (found["busy"], found["idle"], found["queue"]) == (0, 2, 0)


def test_a_queue_that_is_full_says_so(fresh: Gateway) -> None:
    from concurrent.futures import ThreadPoolExecutor

    replicas(fresh, 1, "--token-delay", "0.05", "--text", "word " * 20, limit=1, queue=2)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: fresh.chat("a"), range(8)))
    counted = Counter(answer.status_code for answer in answers)
    assert counted[200] >= 3
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {code(answer) for answer in refused} == {(429, "queue_full")}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)


def test_who_waits_too_long_is_told(fresh: Gateway) -> None:
    replicas(fresh, 1, "--token-delay", "0.05", "--text", "word " * 200, limit=1, patience=0.3)
    with fresh.streaming("a") as answer:
        lines = answer.iter_lines()
        next(lines)
        assert code(fresh.chat("a")) == (503, "queue_timeout")


def test_who_leaves_the_queue_makes_room(fresh: Gateway) -> None:
    replicas(fresh, 1, "--token-delay", "0.05", "--text", "word " * 100, limit=1, queue=1)
    with fresh.streaming("a") as answer:
        lines = answer.iter_lines()
        next(lines)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(fresh.url + CHAT, json={"model": "a", "messages": []}, timeout=0.3)
        until(lambda: stat(fresh)["queue"] == 0, what="the place given up")
    until(lambda: stat(fresh)["busy"] == 0, what="the replica idle")
    assert fresh.post(CHAT, {"model": "a", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).is_success


def test_what_was_not_answered_is_sent_once_more_where_that_is_wanted(fresh: Gateway) -> None:
    replicas(fresh, 2, "--die-after", "1", retry="before_first_byte")
    healthy = fresh.engine("a_3", model="a")
    fresh.route("a", fresh.engines[0], healthy, balance="round_robin", retry="before_first_byte")
    names = [("a_1", "up"), ("a_3", "up")]
    until(lambda: [(one["name"], one["state"]) for one in stat(fresh)["replicas"]] == names, what="both up")
    assert [fresh.chat("a").status_code for _ in range(4)] == [200] * 4
    assert fresh.engines[0].process.wait(5) == 1  # type: ignore[union-attr]
    assert [line["retries"] for line in fresh.logged() if line["model"]].count(1) == 1


def test_a_request_that_kills_replicas_does_not_visit_them_all(fresh: Gateway) -> None:
    replicas(fresh, 3, "--die-after", "1", retry="before_first_byte")
    assert fresh.chat("a").status_code == 502
    time.sleep(0.2)
    alive = [engine.process.poll() is None for engine in fresh.engines]  # type: ignore[union-attr]
    assert sorted(alive) == [False, False, True]


def test_an_engine_that_takes_no_names_of_requests_is_told_none(fresh: Gateway) -> None:
    named, nameless = fresh.recorder("named"), fresh.recorder("nameless")
    fresh.route("named", named)
    fresh.route("nameless", nameless, nameless=True)
    fresh.start()
    for name in ("named", "nameless"):
        fresh.wait_for(name)
        answered = fresh.chat(name, headers={"X-Request-Id": "ticket-4711"})
        assert answered.headers["x-request-id"] == "ticket-4711"
    assert named.seen[-1].header("x-request-id") == ["ticket-4711"]
    assert nameless.seen[-1].header("x-request-id") == []
