"""What the gateway promises, tried with a real nginx, engines in processes of their own and the clients people use."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.integration.gateway_rig import (
    ELSEWHERE,
    REPOSITORY,
    Engine,
    Gateway,
    Recorder,
    gateway,
    missing_ability,
    until,
)

CHAT, TEXT, VECTORS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "one two three four"}]


@pytest.fixture(scope="module", autouse=True)
def _nginx() -> None:
    reason = missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def shared() -> Iterator[Gateway]:
    """Three models that stay well: `qwen3` echoes, `fox` has another name upstream, `rec` notes what arrives."""
    with gateway(workers=2) as one:
        one.route("qwen3", one.engine("qwen3", "--echo", "--token-delay", "0.02"))
        one.route("fox", one.engine("fox", model="fox-v2"), upstream="fox-v2")
        recorder = one.recorder("rec")
        one.route("rec", recorder)
        one.route("alias", recorder, upstream='up"stream/v1')
        one.start()
        for model in one.models:
            one.wait_for(model)
        yield one


@pytest.fixture
def recorder(shared: Gateway) -> Recorder:
    found = next(engine for engine in shared.engines if isinstance(engine, Recorder))
    found.forget()
    return found


@pytest.fixture
def fresh() -> Iterator[Gateway]:
    """A gateway of its own, for a test that breaks something; one nginx worker, so that order is certain."""
    with gateway() as one:
        yield one


@pytest.fixture
def client(shared: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="sk-secret-key", max_retries=0) as one:
        yield one


def error(answer: httpx.Response, status: int, code: str) -> str:
    """Assert that an answer is an error as OpenAI shapes it; return its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()["error"]
    kind = "invalid_request_error" if status < 500 else "server_error"
    assert body == {"message": body["message"], "type": kind, "param": None, "code": code}
    return str(body["message"])


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


# ---------------------------------------------------------------------------------------------------- the models


def test_the_models_are_listed_sorted(shared: Gateway) -> None:
    answer = httpx.get(f"{shared.url}/v1/models").json()
    assert answer["object"] == "list"
    assert [model["id"] for model in answer["data"]] == ["alias", "fox", "qwen3", "rec"]
    for model in answer["data"]:
        assert model == {"id": model["id"], "object": "model", "created": model["created"], "owned_by": "llm-appliance"}
        assert abs(model["created"] - time.time()) < 600


def test_no_models_are_an_empty_list(fresh: Gateway) -> None:
    fresh.start()
    assert httpx.get(f"{fresh.url}/v1/models").json() == {"object": "list", "data": []}
    assert httpx.get(f"{fresh.url}/health").json() == {"status": "ok", "models": {}}


def test_one_model_is_shown(shared: Gateway) -> None:
    listed = {model["id"]: model for model in httpx.get(f"{shared.url}/v1/models").json()["data"]}
    assert httpx.get(f"{shared.url}/v1/models/fox").json() == listed["fox"]
    assert httpx.get(f"{shared.url}/fox/v1/models/fox").json() == listed["fox"]
    assert httpx.get(f"{shared.url}/fox/v1/models").json() == {"object": "list", "data": [listed["fox"]]}


@pytest.mark.parametrize("path", ["/v1/models/nope", "/nope/v1/models", "/v1/models/NAME", "/v1/models/*"])
def test_a_model_that_is_not_there_is_not_shown(shared: Gateway, path: str) -> None:
    error(httpx.get(shared.url + path), 404, "model_not_found")


# ---------------------------------------------------------------------------------------------------- routing


def test_the_model_in_the_body_decides(shared: Gateway, recorder: Recorder) -> None:
    assert text_of(shared.chat("qwen3", "hello there")) == "hello there"
    answer = shared.post(TEXT, {"model": "qwen3", "prompt": "a b c", "max_tokens": 2}).json()
    assert (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == ("a b", "length")
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert len(shared.post(VECTORS, {"model": "qwen3", "input": "a"}).json()["data"][0]["embedding"]) == 8
    assert shared.post(CHAT, {"model": "rec"}).json() == {"ok": True}
    assert [(seen.method, seen.path) for seen in recorder.seen] == [("POST", CHAT)]


def test_the_engine_gets_the_name_that_it_knows(shared: Gateway) -> None:
    answer = shared.chat("fox")
    assert (answer.status_code, answer.json()["model"]) == (200, "fox-v2")


@pytest.mark.parametrize(
    "body",
    [
        '{"messages":[{"role":"user","content":"\\"model\\":\\"qwen3\\""}],"model":"rec"}',
        '{"messages":[{"model":"qwen3"}],"metadata":{"a":[{"model":"qwen3"}]},"model":"rec"}',
        '{"model":"rec","x":{"model":"qwen3"}}',
        '{"a":"\\\\","model":"rec","b":"\\\\\\",\\"model\\":\\"qwen3"}',
        '{"model ":"qwen3","model":"rec"}',
        '{"models":"qwen3","Model":"qwen3","model":"rec"}',
        ' \r\n\t{ "n" : -1.5e+3 , "s":true,"e":{},"l":[[],["]"]] , "model" \n:\t"rec" } \n',
        '{"mod\\u0065l":"rec"}',
        '{"model":"r\\u0065c"}',
        '{"\\u006d\\u006f\\u0064\\u0065\\u006c":"rec"}',
    ],
)
def test_only_the_top_level_model_counts(shared: Gateway, recorder: Recorder, body: str) -> None:
    assert shared.post(CHAT, content=body).status_code == 200
    assert [seen.body for seen in recorder.seen] == [body.encode()]


@pytest.mark.parametrize("second", ["model", "mod\\u0065l", "\\u006d\\u006f\\u0064\\u0065\\u006c"])
def test_two_models_in_one_body_are_refused(shared: Gateway, recorder: Recorder, second: str) -> None:
    answer = shared.post(CHAT, content=f'{{"model":"rec","messages":[],"{second}":"qwen3"}}')
    assert "twice" in error(answer, 400, "invalid_body")
    assert recorder.seen == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"model=rec",
        b'["model","rec"]',
        b'"model"',
        b"{",
        b'{"model"',
        b'{"model":',
        b'{"model":"rec"',
        b'{"model":"rec',
        b'{"model":"rec",}',
        b'{"model":"rec"}}',
        b'{"model":"rec"}{"model":"qwen3"}',
        b'{"model" "rec"}',
        b"{'model':'rec'}",
        b'{model:"rec"}',
        b'{"a":[1,2,"model":"rec"}',
        b'{"a" "model":"rec"}',
        b'{"a":,"model":"rec"}',
        b'\xef\xbb\xbf{"model":"rec"}',
        '{"model":"rec"}'.encode("utf-16"),
        b"\x1f\x8b\x08\x00gzip",
        b'{"model":' + b"[" * 300_000,
        b'{"model":"\\x"}',
        b'{"model":5}',
        b'{"model":null}',
        b'{"model":["rec"]}',
    ],
)
def test_a_body_that_is_no_json_object_is_refused(shared: Gateway, recorder: Recorder, body: bytes) -> None:
    error(shared.post(CHAT, content=body), 400, "invalid_body")
    assert recorder.seen == []


@pytest.mark.parametrize("body", ["{}", '{"messages":[{"model":"rec"}]}', '{"Model":"rec"}'])
def test_a_body_without_a_model_is_refused(shared: Gateway, body: str) -> None:
    assert "/v1/models" in error(shared.post(CHAT, content=body), 400, "model_missing")


def test_a_wrong_name_is_answered_with_the_name_that_was_meant(shared: Gateway) -> None:
    assert "'qwen'" in error(shared.chat("qwen"), 404, "model_not_found")
    assert "did you mean 'qwen3'?" in error(shared.chat("Qwen-3"), 404, "model_not_found")
    assert "did you mean" not in error(shared.chat("llama-70b"), 404, "model_not_found")
    assert len(error(shared.chat("x" * 100_000), 404, "model_not_found")) < 200
    error(shared.post(CHAT, content=b'{"model":"\xff\xfe\\n\xe2\x82\xac"}'), 404, "model_not_found")


@pytest.mark.parametrize("size", [0, 1_000, 600_000, 8_000_000])
@pytest.mark.parametrize("model", ["rec", "alias"])
def test_nothing_but_the_name_changes_in_a_body_of_any_size(
    shared: Gateway, recorder: Recorder, size: int, model: str
) -> None:
    head = b'{"messages":[{"content":"' + b"x" * size + b'\\"y"}], "model" : '
    tail = b' ,"seed":12345678901234567890}'
    assert shared.post(CHAT, content=head + json.dumps(model).encode() + tail).status_code == 200
    [seen] = recorder.seen
    assert (seen.body[: len(head)] == head, seen.body[-len(tail) :] == tail) == (True, True)
    assert json.loads(seen.body[len(head) : -len(tail)]) == shared.models[model]["upstream_model"]
    assert seen.header("content-length") == [str(len(seen.body))]


def test_a_chunked_body_is_routed_too(shared: Gateway, recorder: Recorder) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"messages":"' + b"x" * 700_000
        yield b'","model":"rec"}'

    assert shared.post(CHAT, content=pieces()).status_code == 200
    assert len(recorder.seen[0].body) == 700_000 + 29
    assert recorder.seen[0].header("transfer-encoding") == []


def test_a_model_has_an_endpoint_of_its_own(shared: Gateway, recorder: Recorder) -> None:
    for body in ({"model": "qwen3", "n": 1}, {"n": 1}, {"model": "rec", "n": 1}):
        assert shared.post(f"/rec{CHAT}", body).status_code == 200
    assert [json.loads(seen.body).get("model") for seen in recorder.seen] == ["rec", None, "rec"]
    assert {seen.path for seen in recorder.seen} == {CHAT}
    assert shared.post(f"/fox{TEXT}", {"model": "anything", "prompt": "x"}).json()["model"] == "fox-v2"
    error(shared.post(f"/nope{CHAT}", {"model": "rec"}), 404, "model_not_found")
    error(shared.post(f"/rec{CHAT}", content="nope"), 400, "invalid_body")


def test_a_body_that_is_too_large_is_refused(shared: Gateway, recorder: Recorder) -> None:
    size = 65 * 1024 * 1024
    declared = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), size)
    assert_raw_error(shared.raw(declared), 413, "request_too_large")
    chunked = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (CHAT.encode(), size)
    assert_raw_error(shared.raw(chunked + b" " * 100_000), 413, "request_too_large")
    assert recorder.seen == []


# ---------------------------------------------------------------------------------------------------- what is let in


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "/v1",
            "/v1/",
            "/v1/models/",
            "/v1/chat",
            "/v1/chat/completions/",
            "/V1/models",
            "/metrics/",
            "/gateway",
        ),
        *("/invocations", "/v1/files", "/v1/audio", "/api/pull", "/api/create", "/api/push", "/api/delete", "/pooling"),
        *("/rec/metrics", "/rec/health", "/rec/gateway/stat", "/rec", "/rec/v1/models/fox", "/x/rec/v1/models"),
        *("/rec/v1/v1/models", "/health/", "/v1/models%00", "/v1/models;x", "/v1%2fmodels%2f..%2f..%2finvocations"),
        *("/%2e%2e/invocations", "/v1/..;/metrics", "/rec/v1/*", "/v1/tokenize"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_other_path_exists(shared: Gateway, recorder: Recorder, method: str, path: str) -> None:
    words = b"%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % (method.encode(), path.encode())
    answer = shared.raw(words)
    assert status(answer) in (400, 404), answer
    assert "error" in json.loads(answer.partition(b"\r\n\r\n")[2])
    assert recorder.seen == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("PUT", TEXT, "POST"),
        ("DELETE", f"/rec{CHAT}", "POST"),
        ("OPTIONS", VECTORS, "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/rec", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
    ],
)
def test_the_wrong_method_is_refused_and_the_right_one_named(
    shared: Gateway, method: str, path: str, allowed: str
) -> None:
    answer = httpx.request(method, shared.url + path)
    error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


def test_head_is_get_without_the_body(shared: Gateway) -> None:
    answer = httpx.head(f"{shared.url}/health")
    assert (answer.status_code, answer.content) == (200, b"")


# ---------------------------------------------------------------------------------------------------- what goes through


def test_the_engine_sees_no_secret_and_no_forged_header(shared: Gateway, recorder: Recorder) -> None:
    forged = {
        "Host": "a?x=",
        "Authorization": "Bearer sk-secret",
        "X-API-Key": "sk-secret",
        "API-Key": "sk-secret",
        "Cookie": "session=sk-secret",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Host": "evil",
        "X-Real-IP": "127.0.0.1",
        "Forwarded": "for=127.0.0.1",
        "Accept-Encoding": "gzip",
        "Expect": "",
        "X-Accel-Redirect": "/x",
    }
    body = {"model": "rec"}
    assert shared.post(f"{CHAT}?api_key=sk-secret&x=1", body, headers=forged).status_code == 200
    [seen] = recorder.seen
    names = {name.lower() for name, _ in seen.headers}
    assert names == {"host", "connection", "content-type", "accept", "x-request-id", "content-length"}
    assert (seen.path, seen.header("host"), seen.header("connection")) == (CHAT, ["engine"], ["close"])
    assert seen.header("content-type") == ["application/json"]


def test_the_request_id_is_kept_when_it_is_harmless_and_made_when_not(shared: Gateway, recorder: Recorder) -> None:
    for given in ("req-12345678.A_b", "short", "x" * 65, "bad id here", 'quo"ted-id', None):
        headers = {"X-Request-Id": given} if given else {}
        answer = shared.chat("rec", headers=headers)
        kept = answer.headers.get_list("x-request-id")
        assert kept == recorder.seen[-1].header("x-request-id")
        assert len(kept) == 1
        assert (kept == [given]) == (given == "req-12345678.A_b")
        assert len(kept[0]) >= 8


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 429, 500, 502, 503, 504])
def test_what_an_engine_says_of_an_error_is_passed_on_untouched(
    shared: Gateway, recorder: Recorder, status: int
) -> None:
    recorder.status, recorder.reply = status, b'{"error": {"message": "engine speaking", "code": 7}}  \n'
    answer = shared.chat("rec")
    assert (answer.status_code, answer.content) == (status, recorder.reply)
    assert ("retry-after" in answer.headers) == (status == 503)


def test_what_an_engine_says_cannot_steer_nginx(shared: Gateway, recorder: Recorder) -> None:
    recorder.headers |= {"X-Accel-Redirect": "/health", "Set-Cookie": "a=b", "X-Request-Id": "from-the-engine"}
    answer = shared.chat("rec")
    assert answer.json() == {"ok": True}
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-request-id"] != "from-the-engine"
    assert answer.headers["server"] == "nginx"


def test_a_stream_arrives_word_by_word(shared: Gateway) -> None:
    times, words = [], []
    with shared.streaming("qwen3", messages=MESSAGES) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                times.append(time.monotonic())
                words.append(json.loads(line[6:])["choices"][0]["delta"].get("content", ""))
    assert (line, "".join(words)) == ("", "one two three four")
    assert times[3] - times[0] > 0.04


def test_a_stream_is_not_held_back_whatever_its_framing(shared: Gateway, recorder: Recorder) -> None:
    recorder.pieces = (b"data: 1\n\n", b"data: 2\n\n")
    times = []
    with shared.streaming("rec") as answer:
        for line in answer.iter_lines():
            if line:
                times.append(time.monotonic())
    assert len(times) == 2
    assert times[1] - times[0] > 0.1


def test_a_client_that_leaves_stops_the_engine(fresh: Gateway) -> None:
    engine = fresh.engine("slow", "--token-delay", "0.05", "--text", "word " * 500)
    fresh.route("slow", engine)
    fresh.start()
    with fresh.streaming("slow") as answer:
        lines = answer.iter_lines()
        next(lines)
        assert engine.metric("in_flight") == 1
    until(lambda: engine.metric("aborted_total") == 1, timeout=2, what="the engine noticing")
    assert engine.metric("in_flight") == 0


def test_a_client_that_leaves_before_the_answer_stops_the_engine(fresh: Gateway) -> None:
    engine = fresh.engine("slow", "--token-delay", "0.05", "--text", "word " * 500)
    fresh.route("slow", engine)
    fresh.start()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(fresh.url + CHAT, json={"model": "slow", "messages": MESSAGES}, timeout=0.3)
    until(lambda: engine.metric("aborted_total") == 1, timeout=2, what="the engine noticing")
    assert engine.metric("in_flight") == 0


def test_a_stream_that_breaks_ends(fresh: Gateway) -> None:
    fresh.route("cut", fresh.engine("cut", "--truncate-stream", "1"))
    fresh.start()
    with fresh.streaming("cut") as answer:
        assert answer.status_code == 200
        *events, last = answer.read().decode().strip().split("\n\n")
    assert len([event for event in events if event.startswith("data: {")]) > 1
    name, _, data = last.strip().partition("\ndata: ")
    assert name == "event: error"
    assert json.loads(data)["error"]["code"] == "stream_broken"
    with openai.OpenAI(base_url=f"{fresh.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(model="cut", messages=[{"role": "user", "content": "x"}], stream=True)
        with pytest.raises(openai.APIError, match="broke off"):
            list(stream)
    assert fresh.chat("cut").status_code == 200
    [line] = [line for line in fresh.logged() if line["status"] == 200 and line["tokens_out"] is not None]
    assert line["model"] == "cut"


# ---------------------------------------------------------------------------------------------------- real clients


def test_openai_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="qwen3", messages=[{"role": "user", "content": "hello you"}])
    assert answer.choices[0].message.content == "hello you"
    assert answer.usage
    assert answer.usage.total_tokens == 4


def test_openai_chat_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="qwen3",
        messages=[{"role": "user", "content": "a b c"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "a b c"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 3
    assert {chunk.usage for chunk in chunks[:-1]} == {None}


def test_openai_completions_embeddings_models(client: openai.OpenAI) -> None:
    assert client.completions.create(model="fox", prompt="x", max_tokens=2).choices[0].text == "The quick"
    parts = client.completions.create(model="fox", prompt="x", max_tokens=2, stream=True)
    assert "".join(part.choices[0].text for part in parts) == "The quick"
    first, second, again = client.embeddings.create(model="qwen3", input=["a", "b", "a"]).data
    assert first.embedding == again.embedding != second.embedding
    assert [model.id for model in client.models.list()] == ["alias", "fox", "qwen3", "rec"]
    assert client.models.retrieve("fox").owned_by == "llm-appliance"


def test_openai_at_a_models_own_endpoint(shared: Gateway) -> None:
    with openai.OpenAI(base_url=f"{shared.url}/fox/v1", api_key="none", max_retries=0) as client:
        [only] = client.models.list()
        answer = client.chat.completions.create(model=only.id, messages=[{"role": "user", "content": "x"}])
        assert answer.model == "fox-v2"


def test_openai_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean 'fox'") as caught:
        client.chat.completions.create(model="foxx", messages=[])
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="fox", messages=[])


def test_langchain(shared: Gateway) -> None:
    chat = ChatOpenAI(model="qwen3", base_url=f"{shared.url}/v1", api_key=SecretStr("none"), max_retries=0)
    assert chat.invoke("hello from langchain").content == "hello from langchain"
    pieces = [str(piece.content) for piece in chat.stream("one two three")]
    assert "".join(pieces) == "one two three"
    assert len([piece for piece in pieces if piece]) == 3


# ---------------------------------------------------------------------------------------------------- hostile bytes


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def assert_raw_error(answer: bytes, expected: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status(answer) == expected, answer
    assert b"application/json" in head
    assert b"X-Request-Id: " in head
    assert json.loads(body)["error"]["code"] == code, body


BODY = b'{"model":"rec"}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return line + b"\r\n" + b"".join(header.strip() + b"\r\n" for header in headers) + b"\r\n" + body


POST = f"POST {CHAT} HTTP/1.1".encode()


@pytest.mark.parametrize(
    ("sent", "expected", "code"),
    [
        (request(POST, b"Host: a", LENGTH, b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400, "bad_request"),
        (request(POST, b"Host: a", LENGTH, b"Content-Length: 3", body=BODY), 400, "bad_request"),
        (request(POST, b"Host: a", b"Content-Length: -1"), 400, "bad_request"),
        (request(POST, b"Host: a", b"Transfer-Encoding: gzip", body=BODY), 501, "not_implemented"),
        (request(POST, b"Host: a", b"Transfer-Encoding: chunked", body=b"zz\r\n"), 400, "bad_request"),
        (request(POST, LENGTH, body=BODY), 400, "bad_request"),
        (request(POST, b"Host: a", b"Host: b", LENGTH, body=BODY), 400, "bad_request"),
        (request(POST, b"Host: a/b", LENGTH, body=BODY), 400, "bad_request"),
        (request(POST, b"Host: a", b"X: " + b"x" * 100_000), 431, "headers_too_large"),
        (request(POST, b"Host: a", *[b"X-%d: y" % n for n in range(10_000)]), 431, "headers_too_large"),
        (request(b"GET /" + b"x" * 40_000 + b" HTTP/1.1", b"Host: a"), 414, "uri_too_long"),
        (request(b"TRACE /v1/models HTTP/1.1", b"Host: a"), 405, "method_not_allowed"),
        (request(b"CONNECT engine:80 HTTP/1.1", b"Host: a"), 400, "bad_request"),
        (request(b"GET /v1/models HTTP/3.0", b"Host: a"), 505, "version_not_supported"),
        (request(b"GET /../v1/models HTTP/1.1", b"Host: a"), 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),
    ],
    ids=lambda value: value[:40].decode("latin-1").splitlines()[0] if isinstance(value, bytes) else str(value),
)
def test_a_broken_request_is_refused_as_json(
    shared: Gateway, recorder: Recorder, sent: bytes, expected: int, code: str
) -> None:
    assert_raw_error(shared.raw(sent), expected, code)
    assert recorder.seen == []


@pytest.mark.parametrize(
    "target",
    [
        *("//v1/chat/completions", "/v1/../v1/chat/completions", "/v1/./chat//completions", "/v1%2fchat%2fcompletions"),
        *("/v1/%63hat/completions", "http://evil/v1/chat/completions", "/v1/chat/completions?x=/metrics"),
        *("/rec/v1/chat/completions", "/x/../rec/v1/chat/completions", "/v1/chat/completions#/metrics"),
    ],
)
@pytest.mark.parametrize("host", ["evil", "a?x=", "a#f", "a\\b", "a@b", "127.0.0.1:1"])
def test_however_a_known_path_and_host_are_written_the_engine_sees_one_form(
    shared: Gateway, recorder: Recorder, target: str, host: str
) -> None:
    line = f"POST {target} HTTP/1.1".encode()
    answer = shared.raw(request(line, f"Host: {host}".encode(), LENGTH, b"Connection: close", body=BODY))
    if status(answer) == 200:
        [seen] = recorder.seen
        assert (seen.path, seen.header("host"), seen.body) == (CHAT, ["engine"], BODY)
    else:
        assert_raw_error(answer, 400, "bad_request")
        assert recorder.seen == []


@pytest.mark.parametrize(
    "line", [b"POST /nowhere HTTP/1.1", b"PUT /v1/chat/completions HTTP/1.1", b"GET /health HTTP/1.1"]
)
def test_a_body_that_nobody_reads_is_not_taken_for_a_request(shared: Gateway, recorder: Recorder, line: bytes) -> None:
    inner = request(POST, b"Host: a", LENGTH, body=BODY)
    answer = shared.raw(request(line, b"Host: a", b"Content-Length: %d" % len(inner), body=inner))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert recorder.seen == []


def test_requests_in_a_row_on_one_connection_do_not_mix(shared: Gateway, recorder: Recorder) -> None:
    one = request(POST, b"Host: a", LENGTH, body=BODY)
    other = request(b"GET /v1/models/fox HTTP/1.1", b"Host: a")
    wrong = request(POST, b"Host: a", b"Content-Length: 2", body=b"{}")
    answer = shared.raw(one + other + wrong + one)
    assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 200, 400, 200]
    assert len(recorder.seen) == 2


# ---------------------------------------------------------------------------------------------------- health


def test_an_engine_is_starting_then_up_then_dead_then_back(fresh: Gateway) -> None:
    engine = Engine("qwen3", "qwen3", fresh.directory / "qwen3.sock", ("--start-delay", "1"))
    engine.kill()
    engine.socket.unlink()
    fresh.engines.append(engine)
    fresh.route("qwen3", engine)
    fresh.start()

    fresh.wait_for("qwen3", "starting")  # no socket
    answer = fresh.chat("qwen3")
    assert "starting" in error(answer, 503, "model_starting")
    assert int(answer.headers["retry-after"]) > 0

    engine.start()  # its /health says 503
    assert fresh.states() == {"qwen3": "starting"}
    error(fresh.chat("qwen3"), 503, "model_starting")

    fresh.wait_for("qwen3", "up")
    assert fresh.chat("qwen3").status_code == 200

    engine.kill()
    answer = fresh.chat("qwen3")
    error(answer, 502, "model_unavailable")
    fresh.wait_for("qwen3", "down")
    error(fresh.chat("qwen3"), 502, "model_unavailable")

    engine.start()
    until(lambda: fresh.states()["qwen3"] == "starting", what="a new life")
    error(fresh.chat("qwen3"), 503, "model_starting")
    fresh.wait_for("qwen3", "up")
    assert fresh.chat("qwen3").status_code == 200


def test_a_dead_engine_is_noticed_at_once_when_somebody_asks(fresh: Gateway) -> None:
    engine = fresh.engine("qwen3")
    fresh.route("qwen3", engine)
    fresh.start()
    fresh.wait_for("qwen3")
    until(lambda: fresh.states()["qwen3"] == "up")
    engine.kill()
    error(fresh.chat("qwen3"), 502, "model_unavailable")
    time.sleep(0.1)
    assert fresh.states() == {"qwen3": "down"}


def test_an_engine_that_refuses_and_never_was_up_is_starting(fresh: Gateway) -> None:
    engine = fresh.engine("qwen3")
    engine.kill()  # its socket stays, and refuses
    fresh.route("qwen3", engine)
    fresh.start()
    error(fresh.chat("qwen3"), 503, "model_starting")
    time.sleep(0.2)
    assert fresh.states() == {"qwen3": "starting"}


def test_an_engine_that_says_loading_before_we_knew(shared: Gateway, recorder: Recorder) -> None:
    recorder.status = 503
    recorder.reply = b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}'
    answer = shared.chat("rec")
    error(answer, 503, "model_starting")
    assert int(answer.headers["retry-after"]) > 0


def test_a_silent_engine_is_a_timeout_and_stays_up() -> None:
    with gateway(changes={"proxy_read_timeout 3600s": "proxy_read_timeout 300ms"}) as one:
        one.route("stuck", one.engine("stuck", "--hang-after", "1"))
        one.start()
        one.wait_for("stuck")
        error(one.chat("stuck"), 504, "model_timeout")
        assert one.states() == {"stuck": "up"}


def test_an_engine_too_busy_to_say_how_it_is_stays_up(fresh: Gateway) -> None:
    engine = fresh.engine("qwen3")
    fresh.route("qwen3", engine)
    fresh.start()
    fresh.wait_for("qwen3")
    engine.freeze()
    time.sleep(2.5)
    assert fresh.states() == {"qwen3": "up"}


def test_an_engine_that_answers_nobody_for_long_is_stuck_and_another_stands_in(fresh: Gateway) -> None:
    rules = fresh.prefix / "gateway" / "health.lua"
    text = rules.read_text()
    for old, new in (("LONGEST_SILENCE = 60", "LONGEST_SILENCE = 3"), ("UP_ROUNDS = 20", "UP_ROUNDS = 2")):
        assert old in text
        text = text.replace(old, new)
    rules.write_text(text)
    engine = fresh.engine("qwen3")
    fresh.route("spare", fresh.engine("spare"))
    fresh.route("qwen3", engine, fallback="spare")
    fresh.start()
    fresh.wait_for("qwen3")
    fresh.wait_for("spare")
    engine.freeze()
    fresh.wait_for("qwen3", "down")
    assert "qwen3 takes connections and has answered nobody for 3 s" in fresh.errors()
    assert fresh.chat("qwen3").json()["model"] == "spare"
    engine.process.send_signal(signal.SIGCONT)
    fresh.wait_for("qwen3")
    assert fresh.chat("qwen3").json()["model"] == "qwen3"


def test_an_engine_that_dies_in_the_middle(fresh: Gateway) -> None:
    engine = fresh.engine("mortal", "--die-after", "1")
    fresh.route("mortal", engine)
    fresh.start()
    fresh.wait_for("mortal")
    error(fresh.chat("mortal"), 502, "model_unavailable")
    assert engine.process.wait(5) == 1
    engine.start()
    fresh.wait_for("mortal")
    with fresh.streaming("mortal") as answer:
        assert "stream_broken" in answer.read().decode()
    assert engine.process.wait(5) == 1


def test_an_address_may_be_a_tcp_port(fresh: Gateway) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fresh.route("tcp", fresh.engine("tcp", address=f"127.0.0.1:{port}"))
    fresh.start()
    fresh.wait_for("tcp")
    assert fresh.chat("tcp").status_code == 200


def test_an_address_that_makes_no_sense_breaks_only_its_model(fresh: Gateway) -> None:
    fresh.route("fine", fresh.engine("fine"))
    fresh.models["odd"] = {"upstream_model": "odd", "replicas": [{"name": "odd", "address": "unix:"}]}
    fresh.write_routes()
    fresh.start()
    assert fresh.chat("odd").status_code in (502, 503)
    assert fresh.chat("fine").status_code == 200


# ---------------------------------------------------------------------------------------------------- replicas


def pair(one: Gateway, *switches: str) -> list[Engine]:
    engines = [one.engine(f"a_{number}", *switches, model="a") for number in (1, 2)]
    one.route("a", *engines)
    one.start()
    one.wait_for("a")
    return engines


def replicas_used(one: Gateway, count: int) -> list[str]:
    """Which replicas served the last requests; a log line comes a moment after the answer."""
    time.sleep(0.1)
    return [line["replica"] for line in one.logged() if line["model"]][-count:]


def test_idle_replicas_take_turns(fresh: Gateway) -> None:
    pair(fresh)
    for _ in range(6):
        assert fresh.chat("a").status_code == 200
        time.sleep(0.02)
    used = replicas_used(fresh, 6)
    assert used in (["a_1", "a_2"] * 3, ["a_2", "a_1"] * 3)


def test_the_replica_with_least_to_do_is_taken(fresh: Gateway) -> None:
    engines = pair(fresh, "--token-delay", "0.05", "--text", "word " * 100)
    with fresh.streaming("a") as first:
        lines = first.iter_lines()
        next(lines)
        [idle] = [engine for engine in engines if not engine.metric("in_flight")]
        for _ in range(4):
            short = {"model": "a", "messages": MESSAGES, "max_tokens": 1}
            assert fresh.post(CHAT, short).status_code == 200
            time.sleep(0.02)
        assert replicas_used(fresh, 4) == [idle.name] * 4


def test_in_flight_requests_spread_evenly_over_nginx_workers() -> None:
    with gateway(workers=2) as one:
        engines = pair(one, "--token-delay", "0.1")
        with ThreadPoolExecutor(12) as pool:
            answers = [pool.submit(one.chat, "a") for _ in range(12)]
            until(lambda: [engine.metric("in_flight") for engine in engines] == [6, 6], what="six for each")
            assert {answer.result().status_code for answer in answers} == {200}


def test_a_request_that_cannot_be_sent_goes_to_another_replica(fresh: Gateway) -> None:
    first, _ = pair(fresh)
    first.kill()
    assert [fresh.chat("a").status_code for _ in range(4)] == [200] * 4
    assert Counter(replicas_used(fresh, 4)) == {"a_2": 4}


def test_a_killed_replica_costs_only_its_requests_in_flight(fresh: Gateway) -> None:
    first, second = pair(fresh, "--token-delay", "0.02", "--text", "word " * 10)
    results: list[tuple[float, int]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            begun = time.monotonic()
            results.append((begun, fresh.chat("a").status_code))

    askers = [threading.Thread(target=ask) for _ in range(6)]
    for asker in askers:
        asker.start()
    time.sleep(0.6)
    in_flight = first.metric("in_flight")
    killed = time.monotonic()
    first.kill()
    until(lambda: sum(begun > killed + 0.02 for begun, _ in [*results]) > 10, timeout=30, what="ten more answers")
    stop.set()
    for asker in askers:
        asker.join()
    failed = [begun for begun, code in results if code != 200]
    assert {code for _, code in results} <= {200, 502}
    assert len(failed) <= in_flight + 2
    assert all(begun < killed + 0.02 for begun in failed)
    assert fresh.states() == {"a": "up"}
    assert second.metric("requests_total") > 0


def test_a_replica_that_is_not_ready_gets_nothing(fresh: Gateway) -> None:
    ready = fresh.engine("a_1", model="a")
    late = fresh.engine("a_2", "--start-delay", "60", model="a")
    fresh.route("a", ready, late)
    fresh.start()
    fresh.wait_for("a")
    until(lambda: late.metric("in_flight") == 0)
    time.sleep(0.2)
    assert [fresh.chat("a").status_code for _ in range(4)] == [200] * 4
    assert Counter(replicas_used(fresh, 4)) == {"a_1": 4}


def test_a_request_is_never_sent_twice(fresh: Gateway) -> None:
    first, second = pair(fresh, "--die-after", "1")
    assert fresh.chat("a").status_code == 502
    until(lambda: first.process.poll() is not None or second.process.poll() is not None, what="the death")
    time.sleep(0.1)
    assert sorted(engine.process.poll() is None for engine in (first, second)) == [False, True]


# ---------------------------------------------------------------------------------------------------- change


def test_routes_change_without_a_reload(fresh: Gateway) -> None:
    fresh.route("a", fresh.engine("a"))
    fresh.start()
    fresh.wait_for("a")
    workers = fresh.worker_pids()
    fresh.route("b", fresh.engine("b"))
    until(lambda: fresh.chat("b").status_code == 200, timeout=2, what="the new model")
    del fresh.models["a"]
    fresh.write_routes()
    until(lambda: fresh.chat("a").status_code == 404, timeout=2, what="the old model gone")
    assert fresh.states() == {"b": "up"}
    assert fresh.worker_pids() == workers


BROKEN_ROUTES = [
    "{",
    "",
    "[]",
    "null",
    '{"version":2,"models":{}}',
    '{"version":1}',
    '{"version":1,"models":{"a":{}}}',
    '{"version":1,"models":{"a":{"upstream_model":"a","replicas":[]}}}',
    '{"version":1,"models":{"a":{"upstream_model":"a","replicas":[{"name":"a"}]}}}',
    '{"version":1,"models":{"a":{"upstream_model":1,"replicas":[{"name":"a","address":"unix:/x"}]}}}',
]


def test_routes_that_make_no_sense_are_not_taken_and_logged_once(fresh: Gateway) -> None:
    fresh.route("a", fresh.engine("a"))
    fresh.start()
    fresh.wait_for("a")
    for number, broken in enumerate(BROKEN_ROUTES, start=1):
        fresh.write_routes(broken)
        until(lambda: fresh.errors().count("is not taken") == number, timeout=2, what=f"complaint about {broken}")
        assert fresh.chat("a").status_code == 200
    fresh.prefix.joinpath("gateway.json").unlink()
    until(lambda: "No such file" in fresh.errors(), timeout=2, what="complaint about no file")
    time.sleep(0.8)
    assert fresh.errors().count("is not taken") == len(BROKEN_ROUTES) + 1
    assert fresh.states() == {"a": "up"}


def test_the_first_request_after_a_start_is_routed() -> None:
    with gateway(workers=2) as one:
        one.route("a", one.engine("a"))
        for _ in range(3):
            one.start()
            assert [one.chat("a").status_code for _ in range(4)] == [200] * 4
            assert one.process
            one.process.terminate()
            one.process.wait(10)


def test_a_reload_cuts_no_stream() -> None:
    with gateway(workers=2) as one:
        one.route("a", one.engine("a", "--token-delay", "0.05", "--text", "word" + " word" * 38))
        one.start()
        one.wait_for("a")

        def read(_: int) -> str:
            with one.streaming("a") as answer:
                return answer.read().decode()

        with ThreadPoolExecutor(10) as pool:
            streams = [pool.submit(read, number) for number in range(10)]
            for _ in range(2):
                time.sleep(0.3)
                one.reload()
                assert one.states() == {"a": "up"}
            texts = [stream.result() for stream in streams]
        assert {text.count("data: ") for text in texts} == {39 + 2}
        assert all(text.endswith("data: [DONE]\n\n") for text in texts)


def test_a_killed_nginx_worker_leaves_no_count_behind(fresh: Gateway) -> None:
    pair(fresh, "--token-delay", "0.05", "--text", "word " * 100)
    [worker] = fresh.worker_pids()
    with fresh.streaming("a") as answer:
        lines = answer.iter_lines()
        next(lines)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            list(lines)
    until(lambda: fresh.worker_pids() not in ({worker}, set()), what="a new nginx worker")
    time.sleep(1.5)
    for _ in range(4):
        assert fresh.post(CHAT, {"model": "a", "messages": MESSAGES, "max_tokens": 1}).status_code == 200
        time.sleep(0.02)
    assert Counter(replicas_used(fresh, 4)) == {"a_1": 2, "a_2": 2}


# ---------------------------------------------------------------------------------------------------- the dummy engine


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dummy-", dir="/tmp") as name:
        yield Path(name)


@contextmanager
def dummy(place: Path, *switches: str) -> Iterator[Engine]:
    engine = Engine("m", "m", place / "m.sock", switches)
    try:
        yield engine
    finally:
        engine.kill()


def ask(engine: Engine, body: bytes = b'{"prompt":"a b"}') -> int:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(engine.socket))) as client:
        return client.post(f"http://engine{TEXT}", content=body, timeout=10).status_code


def test_dummy_fails_when_told_to(place: Path) -> None:
    with dummy(place, "--fail-every", "3") as engine:
        assert [ask(engine) for _ in range(6)] == [200, 200, 500, 200, 200, 500]
        assert ask(engine, b"{") == 400
        assert engine.metric("requests_total") == 7


def test_dummy_replaces_a_stale_socket_and_honours_umask(place: Path) -> None:
    with dummy(place) as engine:
        engine.kill()
        assert engine.socket.exists()
        command = [sys.executable, "-m", "appliance.dummy", "--host", engine.address, "--model", "m"]
        engine.process = subprocess.Popen(command, cwd=REPOSITORY, umask=0o027)
        until(lambda: engine.get("/health").status_code == 200 if is_served(engine) else False)
        assert engine.socket.stat().st_mode & 0o777 == 0o750


def is_served(engine: Engine) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(engine.socket)) == 0


def test_dummy_finishes_open_streams_on_sigterm(place: Path) -> None:
    with dummy(place, "--token-delay", "0.05") as engine, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, engine)
        until(lambda: engine.metric("in_flight") == 1)
        engine.process.terminate()
        until(lambda: not is_served(engine), what="no new connections")
        assert answer.result() == 200
        assert engine.process.wait(5) == 0
        assert not engine.socket.exists()


def test_dummy_does_not_wait_longer_than_its_grace(place: Path) -> None:
    with dummy(place, "--hang-after", "1", "--grace", "0.2") as engine, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, engine)
        until(lambda: engine.metric("in_flight") == 1)
        engine.process.terminate()
        assert engine.process.wait(5) == 0
        with pytest.raises(httpx.TransportError):
            answer.result()


# ---------------------------------------------------------------------------------------------------- log and process


def test_the_log_tells_who_and_how_long_but_no_secret(shared: Gateway) -> None:
    headers = {"Authorization": "Bearer sk-in-the-header", "X-Request-Id": "logged-request-1"}
    shared.chat("fox", "a private question", headers=headers)
    shared.raw(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    shared.post(f"{CHAT}?key=sk-in-the-query", {"model": "none"})
    until(lambda: any(line["id"] == "logged-request-1" for line in shared.logged()))
    [line] = [line for line in shared.logged() if line["id"] == "logged-request-1"]
    assert (line["model"], line["replica"], line["method"], line["path"]) == ("fox", "fox", "POST", CHAT)
    assert line["status"] == 200
    assert line["bytes"] > 100
    assert 0 <= line["ttft"] <= line["request_time"]
    assert set(line) == {
        *("time", "id", "key", "model", "replica", "method", "path", "status", "bytes", "request_time", "ttft"),
        *("tokens_in", "tokens_out", "retries"),
    }
    log = shared.log.read_text()
    for secret in ("private", "sk-in-the-header", "sk-in-the-query"):
        assert secret not in log


def test_time_to_first_token_is_logged(shared: Gateway) -> None:
    with shared.streaming("qwen3", messages=MESSAGES) as answer:
        name = answer.headers["x-request-id"]
        answer.read()
    until(lambda: any(line["id"] == name for line in shared.logged()))
    [line] = [line for line in shared.logged() if line["id"] == name]
    assert line["ttft"] < line["request_time"] - 0.04


def test_the_configuration_passes_nginx_own_check(shared: Gateway) -> None:
    environment = {"LD_LIBRARY_PATH": shared.ld_library_path}
    done = subprocess.run(shared.argv("-t"), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


@pytest.mark.skipif(ELSEWHERE != "", reason="it is locked in, and sees none")
def test_nothing_of_a_system_nginx_is_used(shared: Gateway) -> None:
    for pid in shared.worker_pids():
        mapped = {line.split()[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()}
        ours = {path for path in mapped if any(word in path for word in ("nginx", "lua", "pcre"))}
        assert shared.program in ours
        assert {path for path in ours if not path.startswith(shared.root)} == set()
    assert "/etc/nginx" not in (shared.prefix / "nginx.conf").read_text()


def test_no_lua_error_was_logged(shared: Gateway) -> None:
    """Runs last: all that the tests above did to the shared gateway."""
    lines = [line for line in shared.errors().splitlines() if "is not taken" not in line]
    assert [line for line in lines if "lua" in line.lower() or "[alert]" in line or "[emerg]" in line] == []
