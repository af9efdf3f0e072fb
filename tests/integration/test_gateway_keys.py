"""Who may ask the gateway for what, and how much: real keys in a real key file, changed while it runs."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance import keyring
from appliance.keyring import Key
from tests.integration.gateway_rig import NOBODY, Gateway, Recorder, gateway, missing_ability, until

CHAT = "/v1/chat/completions"
SECRET = "sk-the-first-of-all-keys"


@pytest.fixture(scope="module", autouse=True)
def _nginx() -> None:
    reason = missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


class Ring:
    """A key file as `llm-appliance keys` writes it, beside a gateway."""

    def __init__(self, one: Gateway) -> None:
        self.one, self.path = one, one.directory / "keys.json"
        one.document["keys"] = str(self.path)
        one.write_routes()

    def write(self, **secrets: tuple[str, dict[str, Any]] | str) -> None:
        """Keep these keys, by who has them."""
        keys = []
        for name, value in secrets.items():
            secret, more = value if isinstance(value, tuple) else (value, {})
            keys.append(Key(name=name, sha256=keyring.digest(secret), created=1, **more))
        self.text(keyring.dump(tuple(keys)))

    def text(self, content: bytes) -> None:
        new = self.path.with_suffix(".new")
        new.write_bytes(content)
        new.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(new, NOBODY, NOBODY)
        new.rename(self.path)


@pytest.fixture
def fresh() -> Iterator[Gateway]:
    with gateway() as one:
        one.route("rec", one.recorder("rec"))
        one.route("other", one.recorder("other"))
        one.document["open"] = True
        yield one


@pytest.fixture
def ring(fresh: Gateway) -> Ring:
    """One key; the gateway runs and knows it."""
    ring = Ring(fresh)
    ring.write(first=SECRET)
    fresh.start()
    until(lambda: ask(fresh, "rec", SECRET).status_code == 200, what="the model up")
    return ring


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def ask(one: Gateway, model: str, secret: str = "", **headers: str) -> httpx.Response:
    return one.post(CHAT, {"model": model}, headers=(bearer(secret) if secret else {}) | headers)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def seen(one: Gateway) -> int:
    return sum(len(engine.seen) for engine in one.engines if isinstance(engine, Recorder))


# ---------------------------------------------------------------------------------------------------- who


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key", "Api-Key", "x-api-key"])
def test_a_key_is_taken_as_each_client_shows_it(fresh: Gateway, ring: Ring, header: str) -> None:
    value = f"Bearer {SECRET}" if header == "Authorization" else SECRET
    assert fresh.post(CHAT, {"model": "rec"}, headers={header: value}).status_code == 200
    for engine in fresh.engines:
        assert isinstance(engine, Recorder)
        for request in engine.seen:
            assert SECRET not in str(request.headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": SECRET},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": f"Bearer {SECRET}x"},
        {"Authorization": f"Bearer {SECRET[:-1]}"},
        {"Authorization": f"Bearer {SECRET.upper()}"},
        {"Authorization": f"Bearer {SECRET} {SECRET}"},
        {"Authorization": f"Bearer\t{SECRET}"},
        {"Authorization": "Bearer " + "x" * 7000},
        {"Authorization": "Bearer wrong", "X-API-Key": SECRET},
        {"X-API-Key": ""},
        {"X-API-Key": f"{SECRET}, {SECRET}"},
        {"Cookie": f"api-key={SECRET}"},
        {"X_API_Key": SECRET},
    ],
    ids=lambda headers: str(headers)[:50],
)
def test_nobody_comes_in_without_a_valid_key(fresh: Gateway, ring: Ring, headers: dict[str, str]) -> None:
    before = seen(fresh)
    answer = fresh.post(CHAT, {"model": "rec"}, headers=headers)
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "authentication_error"
    assert seen(fresh) == before


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/rec", "/rec/v1/models", "/api/tags", "/metrics", "/nowhere"]
)
def test_nothing_is_told_without_a_key(fresh: Gateway, ring: Ring, path: str) -> None:
    answer = httpx.get(fresh.url + path)
    assert answer.status_code == 401
    assert "rec" not in answer.text.replace("record", "")


def test_everybody_may_ask_whether_it_lives_but_not_which_models_there_are(fresh: Gateway, ring: Ring) -> None:
    assert httpx.get(f"{fresh.url}/health").json() == {"status": "ok"}
    assert set(httpx.get(f"{fresh.url}/health", headers=bearer(SECRET)).json()["models"]) == {"rec", "other"}


def test_a_key_in_the_query_is_none(fresh: Gateway, ring: Ring) -> None:
    assert fresh.post(f"{CHAT}?api_key={SECRET}&key={SECRET}", {"model": "rec"}).status_code == 401


def test_the_appliance_itself_asks_inside_without_a_key(fresh: Gateway, ring: Ring) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(fresh.run / "inside.sock"))) as client:
        assert client.post(f"http://inside{CHAT}", json={"model": "rec"}).status_code == 200
        assert client.get("http://inside/health").json()["models"] == {"rec": "up", "other": "up"}
        assert client.get("http://inside/metrics").status_code == 200


# ---------------------------------------------------------------------------------------------------- change


def test_keys_come_and_go_without_a_reload(fresh: Gateway, ring: Ring) -> None:
    workers = fresh.worker_pids()
    ring.write(first=SECRET, second="sk-second")
    until(lambda: ask(fresh, "rec", "sk-second").status_code == 200, what="the second key")
    assert ask(fresh, "rec", SECRET).status_code == 200
    ring.write(second="sk-second")
    until(lambda: ask(fresh, "rec", SECRET).status_code == 401, what="the first one gone")
    assert ask(fresh, "rec", "sk-second").status_code == 200
    assert fresh.worker_pids() == workers


def test_an_expired_key_is_none(fresh: Gateway, ring: Ring) -> None:
    ring.write(first=(SECRET, {"expires": int(time.time()) + 2}), late=("sk-late", {"expires": int(time.time()) - 1}))
    until(lambda: ask(fresh, "rec", SECRET).status_code == 401, what="its end")
    assert ask(fresh, "rec", "sk-late").status_code == 401


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version":2,"keys":[]}',
        b'{"version":1}',
        b'{"version":1,"keys":[{"name":"a"}]}',
        b'{"version":1,"keys":[{"name":"a","sha256":"zz"}]}',
        b'{"version":1,"keys":[{"name":"a","sha256":"%s","rpm":"x"}]}' % (b"0" * 64),
        b'{"version":1,"keys":[{"name":"a","sha256":"%s","models":"rec"}]}' % (b"0" * 64),
    ],
)
def test_a_broken_key_file_lets_nobody_in(fresh: Gateway, ring: Ring, content: bytes) -> None:
    ring.text(content)
    until(lambda: ask(fresh, "rec", SECRET).status_code == 503, what="nobody let in")
    assert code(ask(fresh, "rec")) == (503, "keys_unavailable")
    assert code(httpx.get(f"{fresh.url}/v1/models")) == (503, "keys_unavailable")
    ring.write(first=SECRET)
    until(lambda: ask(fresh, "rec", SECRET).status_code == 200, what="the key back")


def test_a_key_file_that_cannot_be_read_lets_nobody_in(fresh: Gateway, ring: Ring) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can write what the gateway cannot read")
    new = ring.path.with_suffix(".new")
    new.write_bytes(ring.path.read_bytes())
    new.chmod(0o600)
    new.rename(ring.path)
    until(lambda: ask(fresh, "rec", SECRET).status_code == 503, what="nobody let in")


OURS = ("127.0.0.1", "127.0.0.1:8080", "127.8.8.8", "LOCALHOST:1", "a.localhost", "[::1]:8080", "[fe80::1]", "192.168.1.9", "Chat.Example:8443",
        "chat.example.", socket.gethostname())  # fmt: skip
OTHERS = ("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "chat.example.evil.example", "evil-localhost",
          "1.2.3.4.5", "evil.example?127.0.0.1", "evil.example@localhost")  # fmt: skip


def called(one: Gateway, host: str, path: str = "/v1/models", key: str = "") -> tuple[int, str]:
    header = f"Authorization: Bearer {key}\r\n" if key else ""
    said = one.raw(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{header}Connection: close\r\n\r\n".encode())
    return int(said.split(b" ", 2)[1]), said.partition(b"\r\n\r\n")[2].decode()


def test_without_keys_a_web_page_gets_nothing_by_a_name_of_its_own(fresh: Gateway, ring: Ring) -> None:
    """What a browser sends when somebody has his own name lead to 127.0.0.1."""
    fresh.document["hosts"] = ["chat.example"]
    fresh.write_routes()
    ring.write()
    until(lambda: called(fresh, "evil.example")[0] == 421, what="names")
    assert {host: called(fresh, host)[0] for host in OURS} == dict.fromkeys(OURS, 200)
    assert {host: called(fresh, host)[0] for host in OTHERS} == dict.fromkeys(OTHERS, 421)
    assert fresh.raw(b"GET /v1/models HTTP/1.0\r\n\r\n").split(b" ", 2)[1] == b"200"

    status, text = called(fresh, "evil.example")
    assert json.loads(text)["error"]["code"] == "host_unknown"
    assert "config set gateway.hosts" in text
    for path in ("/metrics", "/gateway/stat", "/gateway/page", "/v1/nothing", "/rec/v1/models"):
        assert called(fresh, "evil.example", path)[0] == 421, path
    assert json.loads(called(fresh, "evil.example", "/health")[1]) == {"status": "ok"}, "it tells no models"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(fresh.run / "inside.sock"))) as client:
        assert client.get("http://inside/v1/models").status_code == 200

    ring.write(first=SECRET)
    until(lambda: called(fresh, "localhost")[0] == 401, what="the key")
    assert called(fresh, "evil.example")[0] == 401
    assert called(fresh, "evil.example", key=SECRET)[0] == 200, "who has a key may call it whatever he likes"

    ring.path.unlink()
    until(lambda: called(fresh, "evil.example")[0] == 421, what="no key")
    del fresh.document["hosts"]
    fresh.write_routes()
    until(lambda: called(fresh, "evil.example")[0] == 200, what="any name")


def test_without_keys_the_operator_decides_whether_it_is_open(fresh: Gateway) -> None:
    ring = Ring(fresh)
    fresh.start()
    until(lambda: ask(fresh, "rec").status_code == 200, what="open")
    fresh.document["open"] = False
    fresh.write_routes()
    until(lambda: ask(fresh, "rec").status_code == 401, what="closed")
    ring.write(first=SECRET)
    until(lambda: ask(fresh, "rec", SECRET).status_code == 200, what="the key")
    fresh.document["open"] = True
    fresh.write_routes()
    time.sleep(0.6)
    assert ask(fresh, "rec").status_code == 401
    ring.path.unlink()
    until(lambda: ask(fresh, "rec").status_code == 200, what="open again")


def test_ten_thousand_keys(fresh: Gateway) -> None:
    ring = Ring(fresh)
    ring.write(**{f"k{number}": f"sk-{number}" for number in range(10_000)})
    fresh.start()
    until(lambda: ask(fresh, "rec", "sk-9999").status_code == 200, what="the last key")
    assert ask(fresh, "rec", "sk-0").status_code == 200
    assert ask(fresh, "rec", "sk-10000").status_code == 401


# ---------------------------------------------------------------------------------------------------- what


def test_a_model_that_a_key_may_not_use_does_not_exist(fresh: Gateway, ring: Ring) -> None:
    fresh.document["aliases"] = {"recorder": "rec", "another": "other"}
    fresh.document["splits"] = {"both": {"rec": 1, "other": 1}}
    fresh.write_routes()
    ring.write(first=(SECRET, {"models": ("rec",)}))
    until(lambda: code_of(ask(fresh, "other", SECRET)) == "model_not_found", what="the limit")
    until(lambda: ask(fresh, "recorder", SECRET).status_code == 200, what="the alias")
    headers = bearer(SECRET)
    unknown = ask(fresh, "nothing", SECRET).json()["error"]
    for name in ("other", "another", "both"):
        assert ask(fresh, name, SECRET).json()["error"] == unknown | {
            "message": unknown["message"].replace("nothing", name)
        }
    assert httpx.get(f"{fresh.url}/v1/models/other", headers=headers).status_code == 404
    assert fresh.post(f"/other{CHAT}", {"n": 1}, headers=headers).status_code == 404
    assert fresh.post(f"/rec{CHAT}", {"model": "other"}, headers=headers).status_code == 200
    listed = [model["id"] for model in httpx.get(f"{fresh.url}/v1/models", headers=headers).json()["data"]]
    assert listed == ["rec", "recorder"]
    assert "did you mean" not in ask(fresh, "othe", SECRET).text
    assert set(httpx.get(f"{fresh.url}/health", headers=headers).json()["models"]) == {"rec", "recorder"}


def code_of(answer: httpx.Response) -> str:
    return str(answer.json().get("error", {}).get("code"))


@pytest.mark.parametrize("path", ["/metrics", "/gateway/stat"])
def test_counters_are_for_keys_that_may_see_them(fresh: Gateway, ring: Ring, path: str) -> None:
    assert code(httpx.get(fresh.url + path, headers=bearer(SECRET))) == (403, "not_allowed")
    ring.write(first=SECRET, ops=("sk-ops", {"metrics": True}))
    until(lambda: httpx.get(fresh.url + path, headers=bearer("sk-ops")).status_code == 200, what="the right")


# ---------------------------------------------------------------------------------------------------- how much


def test_requests_a_minute(fresh: Gateway, ring: Ring) -> None:
    ring.write(first=(SECRET, {"rpm": 5}), free="sk-free")
    until(lambda: "x-ratelimit-limit-requests" in ask(fresh, "rec", SECRET).headers, what="the limit")
    answers = [ask(fresh, "rec", SECRET) for _ in range(6)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert code(refused[0]) == (429, "request_limit")
    assert refused[0].json()["error"]["type"] == "rate_limit_error"
    assert 0 < int(refused[0].headers["retry-after"]) <= 60
    assert refused[0].headers["x-ratelimit-remaining-requests"] == "0"
    assert {ask(fresh, "rec", "sk-free").status_code for _ in range(10)} == {200}


def test_tokens_a_minute(fresh: Gateway, ring: Ring) -> None:
    [rec] = [engine for engine in fresh.engines if engine.name == "rec"]
    assert isinstance(rec, Recorder)
    rec.reply = b'{"usage":{"prompt_tokens":30,"completion_tokens":70,"total_tokens":100}}'
    ring.write(first=(SECRET, {"tpm": 150}))
    until(lambda: "x-ratelimit-limit-tokens" in ask(fresh, "rec", SECRET).headers, what="the limit")
    until(lambda: ask(fresh, "rec", SECRET).status_code == 429, what="the end of them")
    assert code(ask(fresh, "rec", SECRET)) == (429, "token_limit")
    lines = [line for line in fresh.logged() if line["tokens_in"] == 30]
    assert lines
    assert {(line["key"], line["tokens_out"]) for line in lines} == {("first", 70)}


def test_requests_at_the_same_time() -> None:
    with gateway(workers=2) as one:
        one.route("slow", one.engine("slow", "--token-delay", "0.05"))
        ring = Ring(one)
        ring.write(first=(SECRET, {"parallel": 2}))
        one.start()
        until(lambda: ask_slow(one) == 200, what="the model up")
        with ThreadPoolExecutor(8) as pool:
            answers = Counter(pool.map(lambda _: ask_slow(one), range(8)))
        assert answers[200] >= 2
        assert set(answers) == {200, 429}
        until(lambda: ask_slow(one) == 200, what="what was taken given back")


def ask_slow(one: Gateway) -> int:
    body = {"model": "slow", "messages": [{"role": "user", "content": "x"}]}
    return one.post(CHAT, body, headers=bearer(SECRET)).status_code


def test_no_key_is_ever_logged(fresh: Gateway, ring: Ring) -> None:
    ask(fresh, "rec", "sk-a-wrong-one")
    ask(fresh, "rec", **{"X-API-Key": "sk-in-another-header"})
    ring.text(b'{"version":1,"keys":[{"name":"sk-as-a-name"')
    until(lambda: ask(fresh, "rec", SECRET).status_code == 503, what="nobody let in")
    logged = fresh.log.read_text() + fresh.errors()
    assert '"key":"first"' in logged
    for secret in (SECRET, "sk-a-wrong-one", "sk-in-another-header", "sk-as-a-name"):
        assert secret not in logged
    assert keyring.digest(SECRET) not in logged


def test_the_key_file_that_the_appliance_writes_is_the_one_that_lua_reads(fresh: Gateway, ring: Ring) -> None:
    key = Key(
        name="all", sha256=keyring.digest("sk-all"), created=int(time.time()), expires=int(time.time()) + 1000,
        models=("rec",), rpm=100, tpm=1000, parallel=3, metrics=True,
    )  # fmt: skip
    ring.text(keyring.dump((key,)))
    until(lambda: ask(fresh, "rec", "sk-all").status_code == 200, what="the key")
    assert keyring.load(Path(ring.path).read_bytes(), "keys.json") == (key,)
