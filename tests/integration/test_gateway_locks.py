"""The key check, and every way round it that is known: nothing without a valid key reaches an engine."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.gateway_rig import Gateway, Json, Recorder, gateway, missing_ability, until

CHAT = "/v1/chat/completions"
KEY = "sk-locks-8b1a9953c4611296a827abf8c47804d7"
NARROW = "sk-narrow-5eb63bbbe01eeed093cb22bb8f5acdc3"
"""May use the model `small` only."""
BODY = b'{"model": "large", "messages": []}'
LENGTH = f"Content-Length: {len(BODY)}"
BASIC = base64.b64encode(KEY.encode()).decode()
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()

# What is no valid key, however near it comes; a request may say several things.
SHOWN = (
    "", "Authorization:", "Authorization: Bearer", "Authorization: Bearer ", f"Authorization: {KEY}",
    f"Authorization: Basic {BASIC}", f"Authorization: Token {KEY}", f"Authorization: Bearer{KEY}",
    f"Authorization: Bearer,{KEY}", f"Authorization: Bearer {KEY} x", f"Authorization: Bearer {KEY}x",
    f"Authorization: Bearer {KEY[:-1]}", f"Authorization: Bearer {KEY.upper()}", f'Authorization: Bearer "{KEY}"',
    f"Authorization: Bearer {DIGEST}", f"Authorization: Bearer {DIGEST[:16]}", f"Authorization: Bearer {KEY}\x00",
    f"Authorization: Bearer {KEY}%00", f"Authorization: Bearer {'a' * 600}", "Authorization: Bearer null",
    f"Proxy-Authorization: Bearer {KEY}", f"Cookie: api-key={KEY}", f"x_api_key: {KEY}", f"api_key: {KEY}",
    f"X-Api-Key: {KEY[:-1]}", f"api-key: Bearer {KEY}x", f"X-Auth: {KEY}", f"Authorization : Bearer {KEY}",
    "X-Forwarded-For: 127.0.0.1", "X-Real-IP: unix:", 'Forwarded: for="unix:"', "X-Original-URL: /health",
    "X-Rewrite-URL: /health", "X-HTTP-Method-Override: GET", "Origin: http://a\r\nAccess-Control-Request-Method: POST",
    f"Referer: http://a/?key={KEY}", f"Content-Type: multipart/form-data; boundary={KEY}",
    "Upgrade: websocket\r\nConnection: Upgrade", "Connection: Authorization",
)  # fmt: skip
LINES = (
    f"POST {CHAT} HTTP/1.1", f"POST /large{CHAT} HTTP/1.1", f"POST /{CHAT} HTTP/1.1",
    "POST /v1/%63hat/completions HTTP/1.1", f"POST /health/..{CHAT} HTTP/1.1", f"POST /health/%2e%2e{CHAT} HTTP/1.1",
    f"POST /health/..;{CHAT} HTTP/1.1", f"POST /health%00{CHAT} HTTP/1.1", f"POST http://127.0.0.1{CHAT} HTTP/1.1",
    f"POST http://unix:/health{CHAT} HTTP/1.1", f"POST {CHAT}/ HTTP/1.1",
    f"POST {CHAT}?api_key={KEY}&key={KEY}&access_token={KEY} HTTP/1.1", f"POST {CHAT}#/health HTTP/1.1",
    f"POST {CHAT} HTTP/1.0", f"post {CHAT} HTTP/1.1", f"GET {CHAT} HTTP/1.1", f"HEAD {CHAT} HTTP/1.1",
    f"OPTIONS {CHAT} HTTP/1.1", f"PUT {CHAT} HTTP/1.1", "GET /v1/models HTTP/1.1", "GET /v1/models/large HTTP/1.1",
    "GET /large/v1/models HTTP/1.1", "GET /api/tags HTTP/1.1", "HEAD /v1/models HTTP/1.1", "GET /failure HTTP/1.1",
    "POST /V1/chat/completions HTTP/1.1", "POST /v1\\chat\\completions HTTP/1.1",
)  # fmt: skip
HOSTS = ("gateway", "localhost", "unix:", "inside.sock", "engine", "")


@pytest.fixture(scope="module", autouse=True)
def _nginx() -> None:
    reason = missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def digest(name: str, key: str, **more: object) -> Json:
    return {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}


class Locked:
    """A gateway with keys, and one engine behind two models."""

    def __init__(self, one: Gateway) -> None:
        self.one, self.keys = one, one.prefix / "keys.json"
        self.engine: Recorder = one.recorder("engine")
        one.document |= {"keys": str(self.keys), "cors": ["*"], "aliases": {"big": "large"}}
        paths = {path: path for path in (CHAT, "/v1/audio/transcriptions")}
        for name in ("large", "small"):
            one.models[name] = {"upstream_model": name, "replicas": [self.engine.replica], "paths": paths}
        self.write([digest("all", KEY), digest("narrow", NARROW, models=["small"])])
        one.write_routes()
        one.start()
        until(lambda: self.ask(KEY).status_code == 200, what="the first answer")
        self.engine.forget()

    def write(self, keys: object) -> None:
        self.write_text(json.dumps({"version": 1, "keys": keys}))

    def write_text(self, text: str) -> None:
        new = self.keys.with_suffix(".new")
        new.write_text(text)
        new.rename(self.keys)

    def ask(self, key: str = "", path: str = CHAT, body: bytes = BODY) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.post(self.one.url + path, content=body, headers=headers)

    def ask_with_form(self, body: bytes, kind: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {NARROW}", "Content-Type": kind}
        return httpx.post(f"{self.one.url}/v1/audio/transcriptions", content=body, headers=headers)

    def get(self, path: str, key: str) -> httpx.Response:
        return httpx.get(self.one.url + path, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture(scope="module")
def shared() -> Iterator[Locked]:
    with gateway(workers=2) as one:
        yield Locked(one)


@pytest.fixture
def locked(shared: Locked) -> Locked:
    shared.engine.forget()
    return shared


async def status_of(port: int, data: bytes, gate: asyncio.Semaphore) -> int:
    """Send a request; return the status of its answer, 0 where there is none."""
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            line = await asyncio.wait_for(reader.readline(), 20)
            return int(line.split(b" ")[1]) if line.startswith(b"HTTP/") else 0
        except ConnectionError:
            return 0
        finally:
            writer.close()


async def statuses(port: int, requests: list[bytes]) -> list[int]:
    gate = asyncio.Semaphore(64)
    return await asyncio.gather(*(status_of(port, data, gate) for data in requests))


def test_no_path_method_host_or_header_stands_in_for_a_key(locked: Locked) -> None:
    requests = [
        "\r\n".join(filter(None, (line, f"Host: {host}", "Connection: close", shown, LENGTH))).encode()
        + b"\r\n\r\n"
        + BODY
        for line, host, shown in itertools.product(LINES, HOSTS, SHOWN)
    ]
    found = asyncio.run(statuses(locked.one.port, requests))
    print(f"{len(requests)} tries to come in without a key: {dict(sorted(Counter(found).items()))}")
    assert locked.engine.seen == []
    # 204 answers a browser that asks what it may ask.
    wrong = [
        (status, data)
        for status, data in zip(found, requests, strict=True)
        if status not in (0, 204, 400, 401, 404, 405, 414)
    ]
    assert wrong == [], wrong[:5]
    assert Counter(found)[401] > len(requests) // 4


@pytest.mark.parametrize(
    "shown", ["Authorization: Bearer KEY", "authorization: bearer KEY", "x-api-key: KEY", "API-Key: KEY"]
)
def test_a_key_opens_in_each_of_the_three_headers_and_goes_no_further(locked: Locked, shown: str) -> None:
    name, _, value = shown.replace("KEY", KEY).partition(": ")
    answer = httpx.post(locked.one.url + CHAT, content=BODY, headers={name: value})
    assert answer.status_code == 200
    [seen] = locked.engine.seen
    assert KEY not in str(seen.headers)
    assert KEY not in locked.one.log.read_text()


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "large"}',
        b'{"mod\\u0065l": "large"}',
        b'{"model": "l\\u0061rge"}',
        b'{"model": "big"}',
        b'{"model": "small", "model": "large"}',
        b'{"model": "large", "model": "small"}',
        b'{"model": "small", "\\u006dodel": "large"}',
        b'{"model": "small"}{"model": "large"}',
        b'\xef\xbb\xbf{"model": "large"}',
        b'{"model": "large\\u0000"}',
        b'{"model": ["large"]}',
        b'{"model": "LARGE"}',
        b'{"model": " large"}',
        b'[{"model": "large"}]',
    ],  # fmt: skip
)
def test_a_key_for_one_model_opens_no_other(locked: Locked, body: bytes) -> None:
    for path in (CHAT, f"/large{CHAT}", f"/big{CHAT}", f"/l%61rge{CHAT}"):
        assert locked.ask(NARROW, path, body).status_code in (400, 404)
    assert locked.engine.seen == []


def test_on_its_own_path_a_model_is_that_one_whatever_the_body_says(locked: Locked) -> None:
    assert locked.ask(NARROW, f"/small{CHAT}", b'{"model": "large"}').status_code == 200
    [seen] = locked.engine.seen
    assert json.loads(seen.body) == {"model": "small"}


FORMS = {
    "twice": [b'form-data; name="model"\r\n\r\nsmall', b'form-data; name="model"\r\n\r\nlarge'],
    "bare": [b'form-data; name="model"\r\n\r\nsmall', b"form-data; name=model\r\n\r\nlarge"],
    "a file": [b'form-data; name="model"\r\n\r\nsmall', b'form-data; name="model"; filename="a"\r\n\r\nlarge'],
    "capitals": [b'form-data; name="model"\r\n\r\nsmall', b'FORM-DATA; NAME="model"\r\n\r\nlarge'],
    "two names": [b'form-data; name="x"; name="model"\r\n\r\nlarge', b'form-data; name="model"\r\n\r\nsmall'],
    "starred": [b'form-data; name="model"\r\n\r\nsmall', b"form-data; name*=utf-8''model\r\n\r\nlarge"],
    "escaped": [b'form-data; name="model"\r\n\r\nsmall', b'form-data; name="mo\\del"\r\n\r\nlarge'],
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_cannot_name_two_models(locked: Locked, name: str) -> None:
    body = b"".join(b"--edge\r\nContent-Disposition: " + part + b"\r\n" for part in FORMS[name]) + b"--edge--\r\n"
    answer = locked.ask_with_form(body, "multipart/form-data; boundary=edge")
    assert answer.status_code in (400, 404), answer.text
    assert locked.engine.seen == []


@pytest.mark.parametrize(
    "more",
    [
        '; boundary="other"',
        "; boundary=other",
        "; BOUNDARY=other",
        "; boundary*=other",
        ", multipart/form-data; boundary=other",
    ],  # fmt: skip
)
def test_a_form_has_one_boundary_for_us_and_for_the_engine(locked: Locked, more: str) -> None:
    """Between two boundaries lie two forms: we must not read one and the engine the other."""
    inner = b'--other\r\nContent-Disposition: form-data; name="model"\r\n\r\nlarge\r\n--other--\r\n'
    body = b'--edge\r\nContent-Disposition: form-data; name="model"\r\n\r\nsmall\r\n--edge--\r\n'
    for first, second in ((body, inner), (inner, body)):
        locked.engine.forget()
        locked.ask_with_form(first + second, f"multipart/form-data; boundary=edge{more}")
        for seen in locked.engine.seen:
            assert seen.header("content-type") == ["multipart/form-data; boundary=edge"]
            assert seen.body.startswith(b"--edge")


def test_a_key_for_one_model_is_told_of_no_other(locked: Locked) -> None:
    assert [card["id"] for card in locked.get("/v1/models", NARROW).json()["data"]] == ["small"]
    for path in ("/v1/models/large", "/large/v1/models", "/v1/models/big"):
        assert locked.get(path, NARROW).status_code == 404
    assert "large" not in locked.ask(NARROW, body=b'{"model": "larg"}').text
    assert "large" not in locked.get("/health", NARROW).text
    assert "large" not in httpx.get(f"{locked.one.url}/health").text
    forbidden, absent = (locked.ask(NARROW, body=b'{"model": "%b"}' % name).text for name in (b"large", b"nolle"))
    assert forbidden.replace("large", "nolle") == absent


BROKEN = (
    "", "{", "null", "[]", '{"version": 2, "keys": []}', '{"version": 1}', '{"version": 1, "keys": [{}]}',
    '{"version": 1, "keys": {"a": 1}}',
    json.dumps({"version": 1, "keys": [digest("all", KEY), {"name": "b", "sha256": "zz"}]}),
    json.dumps({"version": 1, "keys": [digest("all", KEY) | {"models": "small"}]}),
    json.dumps({"version": 1, "keys": [digest("all", KEY) | {"expires": "never"}]}),
)  # fmt: skip


def test_a_key_file_that_is_broken_lets_nobody_in_until_it_is_whole() -> None:
    with gateway() as one:
        locked = Locked(one)
        for broken in BROKEN:
            locked.write_text(broken)
            until(lambda: locked.ask(KEY).status_code != 200, timeout=3, what=f"nobody is let in by {broken!r}")
            locked.engine.forget()
            assert {locked.ask(KEY).status_code, locked.ask().status_code, locked.ask("wrong").status_code} <= {
                401,
                503,
            }
            assert locked.engine.seen == []
            locked.write([digest("all", KEY)])
            until(lambda: locked.ask(KEY).status_code == 200, timeout=3, what="the key works again")


def test_keys_expire_and_are_revoked_at_once() -> None:
    with gateway(workers=2) as one:
        locked = Locked(one)
        locked.write([digest("old", KEY, expires=1), digest("new", NARROW)])
        until(lambda: locked.ask(NARROW).status_code == 200, timeout=3, what="the new key")
        until(lambda: locked.ask(KEY).status_code == 401, timeout=3, what="the old one refused")
        one.document["open"] = False
        one.write_routes()
        locked.write([])
        until(lambda: locked.ask(NARROW).status_code == 401, timeout=3, what="nobody let in where there is no key")


def test_no_key_is_readable_anywhere(locked: Locked) -> None:
    locked.ask(KEY)
    texts = [path.read_bytes() for path in Path(locked.one.directory).rglob("*") if path.is_file()]
    assert texts
    assert not any(KEY.encode() in text for text in texts)
