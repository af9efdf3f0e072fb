"""The gateway as the outside sees it: certificates, browsers, counters, what is measured of each request."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.gateway_rig import Gateway, Recorder, certificates, gateway, missing_ability, until

CHAT = "/v1/chat/completions"
PAGE = "https://chat.example"


@pytest.fixture(scope="module", autouse=True)
def _nginx() -> None:
    reason = missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def fresh() -> Iterator[Gateway]:
    with gateway() as one:
        one.route("rec", one.recorder("rec"))
        yield one


# ---------------------------------------------------------------------------------------------------- certificates


@pytest.fixture(scope="module")
def secure() -> Iterator[tuple[Gateway, Path]]:
    with certificates("localhost") as (certificate, key):
        tls = {"certificate": str(certificate), "key": str(key), "http2_listens": True}
        with gateway(tls=tls) as one:
            one.route("echo", one.engine("echo", "--echo", "--token-delay", "0.02"))
            one.start()
            yield one, certificate


def client(secure: tuple[Gateway, Path]) -> httpx.Client:
    one, certificate = secure
    context = ssl.create_default_context(cafile=str(certificate))
    return httpx.Client(base_url=f"https://localhost:{one.port}", verify=context, timeout=30)


def test_it_speaks_tls(secure: tuple[Gateway, Path]) -> None:
    with client(secure) as asking:
        until(lambda: asking.get("/health").json()["models"] == {"echo": "up"}, what="the model up")
        body = {"model": "echo", "messages": [{"role": "user", "content": "over tls"}]}
        answer = asking.post(CHAT, json=body)
        assert answer.json()["choices"][0]["message"]["content"] == "over tls"


@pytest.mark.parametrize(("version", "works"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_old_versions_of_tls_are_refused(secure: tuple[Gateway, Path], version: str, works: bool) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{secure[0].port}", version, "-cipher", "ALL:@SECLEVEL=0"]
    done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=20)
    assert (b"BEGIN CERTIFICATE" in done.stdout) == works


def test_it_speaks_http2_and_streams(secure: tuple[Gateway, Path]) -> None:
    one, certificate = secure
    command = ["curl", "--silent", "--show-error", "--no-buffer", "--http2", "--cacert", str(certificate)]
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "a b c"}], "stream": True})
    url = f"https://localhost:{one.port}{CHAT}"
    done = subprocess.run([*command, "--include", "--data", body, url], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("HTTP/2 200")
    assert done.stdout.rstrip().endswith("data: [DONE]")


def test_plain_http_on_its_port_is_told_so(secure: tuple[Gateway, Path]) -> None:
    answer = httpx.get(f"http://127.0.0.1:{secure[0].port}/health")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "tls_expected"


def test_the_appliance_itself_needs_no_certificate(secure: tuple[Gateway, Path]) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(secure[0].run / "inside.sock"))) as asking:
        assert asking.get("http://inside/health").json()["models"] == {"echo": "up"}


# ---------------------------------------------------------------------------------------------------- browsers


def test_a_page_may_ask_where_it_is_allowed(fresh: Gateway) -> None:
    fresh.document |= {"cors": [PAGE], "open": False}
    fresh.write_routes()
    fresh.start()
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = httpx.options(fresh.url + CHAT, headers=asks)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-headers"] == "authorization"
    assert "POST" in answer.headers["access-control-allow-methods"]
    refused = fresh.chat("rec", headers={"Origin": PAGE})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE


def test_an_engines_own_word_on_browsers_is_dropped(fresh: Gateway) -> None:
    [recorder] = [engine for engine in fresh.engines if isinstance(engine, Recorder)]
    recorder.headers |= {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true"}
    fresh.document["cors"] = [PAGE]
    fresh.write_routes()
    fresh.start()
    fresh.wait_for("rec")
    assert fresh.chat("rec", headers={"Origin": PAGE}).headers.get_list("access-control-allow-origin") == [PAGE]
    for origin in ("https://evil.example", "null", f"{PAGE}.evil.example"):
        answer = fresh.chat("rec", headers={"Origin": origin})
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert httpx.options(fresh.url + CHAT, headers=asks).status_code == 405


def test_every_page_may_ask_where_all_may(fresh: Gateway) -> None:
    fresh.document["cors"] = ["*"]
    fresh.write_routes()
    fresh.start()
    fresh.wait_for("rec")
    assert fresh.chat("rec", headers={"Origin": "https://any"}).headers["access-control-allow-origin"] == "https://any"


# ---------------------------------------------------------------------------------------------------- counters

LINE = re.compile(r'[a-z_]+(\{([a-z]+="[^"]*",?)+\})? [0-9.e+-]+')


def test_counters_are_as_prometheus_reads_them(fresh: Gateway) -> None:
    [recorder] = [engine for engine in fresh.engines if isinstance(engine, Recorder)]
    recorder.reply = b'{"usage": {"prompt_tokens": 30, "completion_tokens": 70}}'
    fresh.start()
    fresh.wait_for("rec")
    for _ in range(3):
        assert fresh.chat("rec").status_code == 200
    recorder.status = 500
    assert fresh.chat("rec").status_code == 500

    def told() -> dict[str, str]:
        answer = httpx.get(f"{fresh.url}/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        assert [line for line in lines if not LINE.fullmatch(line)] == []
        return dict(line.rsplit(" ", 1) for line in lines)

    until(lambda: told().get('gateway_requests_total{model="rec",code="500"}') == "1", what="the last one counted")
    counters = told()
    assert counters['gateway_requests_total{model="rec",code="200"}'] == "3"
    assert counters['gateway_input_tokens_total{model="rec"}'] == "120"
    assert counters['gateway_output_tokens_total{model="rec"}'] == "280"
    assert counters['gateway_first_byte_seconds_count{model="rec"}'] == "4"
    assert counters['gateway_first_byte_seconds_bucket{model="rec",le="+Inf"}'] == "4"
    assert counters['gateway_replica_up{model="rec",replica="rec"}'] == "1"
    assert counters['gateway_replica_in_flight{model="rec",replica="rec"}'] == "0"
    assert counters['gateway_queue_length{model="rec"}'] == "0"


def test_what_each_replica_does_is_told(fresh: Gateway) -> None:
    fresh.route("slow", fresh.engine("slow", "--token-delay", "0.02"), limit=4)
    fresh.start()
    fresh.wait_for("slow")
    body = {"model": "slow", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with httpx.stream("POST", fresh.url + CHAT, json=body | {"stream_options": {"include_usage": True}}) as answer:
        lines = answer.iter_lines()
        next(lines)
        stat = httpx.get(f"{fresh.url}/gateway/stat").json()["models"]["slow"]
        assert (stat["strategy"], stat["total"], stat["up"], stat["busy"], stat["idle"]) == ("lru", 1, 1, 1, 0)
        assert stat["replicas"][0]["in_flight"] == 1
        list(lines)

    def replica() -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{fresh.url}/gateway/stat").json()["models"]["slow"]["replicas"][0]
        return found

    until(lambda: replica()["requests"] == 1, what="the request counted")
    found = replica()
    assert (found["name"], found["state"], found["limit"], found["max_concurrency"]) == ("slow", "up", 4, 1)
    assert found["tokens_per_second"] > 1
    assert found["ttft"] > 0
    assert found["seconds_since_last"] < 60


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (b'{"usage":{"prompt_tokens":1,"completion_tokens":2}}', (1, 2)),
        (b'{"usage" : { "prompt_tokens" : 1 , "completion_tokens" : 2 } }', (1, 2)),
        (b'{"object":"list","usage":{"prompt_tokens":7,"total_tokens":7},"data":"%s"}' % (b"x" * 10_000), (7, 0)),
        (b'{"text":"%s","usage":{"input_tokens":3,"output_tokens":4}}' % (b"x" * 10_000), (3, 4)),
        (b'{"prompt_eval_count":5,"eval_count":6}', (5, 6)),
        (b'{"text":"\\"prompt_tokens\\":9","timings":{"prompt_n":3,"predicted_n":4}}', (3, 4)),
        (b'{"usage":null}', (None, None)),
        (b"no json", (None, None)),
        (b"", (None, None)),
    ],
)
def test_tokens_are_what_the_engine_says(fresh: Gateway, said: bytes, tokens: tuple[int | None, int | None]) -> None:
    [recorder] = [engine for engine in fresh.engines if isinstance(engine, Recorder)]
    recorder.reply = said
    fresh.start()
    fresh.wait_for("rec")
    assert fresh.chat("rec").content == said
    until(lambda: [line for line in fresh.logged() if line["model"]], what="the log")
    [line] = [line for line in fresh.logged() if line["model"]]
    assert (line["tokens_in"], line["tokens_out"]) == tokens


@pytest.mark.parametrize("before", [1990, 2010, 2030, 2047, 2048, 2049, 4080])
def test_tokens_are_found_wherever_a_stream_is_cut(fresh: Gateway, before: int) -> None:
    """The end that is kept is 2048 bytes long, and begins anew there."""
    [recorder] = [engine for engine in fresh.engines if isinstance(engine, Recorder)]
    recorder.pieces = (
        b"x" * (before // 2),
        b"x" * (before - before // 2),
        b'{"usage":{"prompt_tokens":12,"comple',
        b'tion_tokens":34}}\n\n',
    )
    fresh.start()
    fresh.wait_for("rec")
    assert fresh.chat("rec").content == b"".join(recorder.pieces)
    until(lambda: [line for line in fresh.logged() if line["model"]], what="the log")
    [line] = [line for line in fresh.logged() if line["model"]]
    assert (line["tokens_in"], line["tokens_out"]) == (12, 34)


EVENT = b'data: {"delta":"%s"}\n\n'


@pytest.mark.parametrize(
    ("pieces", "tokens"),
    [
        ((EVENT % b"a", b'data: {"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n', b"data: [DONE]\n\n"), (1, 2)),
        ((EVENT % b"a", b'data: {"usage":{"prompt_tokens":1', b'2,"completion_tokens":3}}\n\n', EVENT % b"b"), (12, 3)),
        ((EVENT % b"a", b'data: {"usage":{"prompt_tok', b'ens":1,"completion_tok', b'ens":2', b"3}}\n\n"), (1, 23)),
        ((b'data: {"input_tokens":4}\r\n\r\n', *[EVENT % (b"x" * 2000)] * 3, b'data: {"output_tokens":5}\n\n'), (4, 5)),
        ((b'data: {"usage":{"prompt_tokens":1,"completion_tokens":2},"text":"%s"}\n\n' % (b"x" * 3000),), (1, 2)),
        ((b'{"response":"a"}\n', b'{"prompt_eval_count":5,"eval_count":6}\n'), (5, 6)),
        ((EVENT % b"a", b'data: {"timings":{"prompt_n":3,"predicted_n":4}}\n\n'), (3, 4)),
        ((EVENT % b"a", EVENT % b"b"), (None, None)),
    ],
)
def test_tokens_of_a_stream_are_what_its_events_say(
    fresh: Gateway, pieces: tuple[bytes, ...], tokens: tuple[int | None, int | None]
) -> None:
    """Events that tell no numbers are not kept, so those that do are found however much came in between."""
    [recorder] = [engine for engine in fresh.engines if isinstance(engine, Recorder)]
    recorder.pieces = pieces
    fresh.start()
    fresh.wait_for("rec")
    assert fresh.chat("rec").content == b"".join(pieces)
    until(lambda: [line for line in fresh.logged() if line["model"]], what="the log")
    [line] = [line for line in fresh.logged() if line["model"]]
    assert (line["tokens_in"], line["tokens_out"]) == tokens


@pytest.mark.parametrize("path", ['/a"b', "/a\\b", "/\xff\xfe", "/%00", "/\u00e9", '/","status":0,"x":"'])
def test_the_log_is_json_whatever_is_asked(fresh: Gateway, path: str) -> None:
    fresh.start()
    fresh.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode("latin-1"))
    fresh.raw(f'{path} "\\ HTTP/1.1\r\n\r\n'.encode("latin-1"))
    until(lambda: len([line for line in fresh.logged() if line["status"] in (400, 404)]) == 2, what="two lines")


def test_a_thousand_models(fresh: Gateway) -> None:
    [recorder] = [engine for engine in fresh.engines if isinstance(engine, Recorder)]
    for number in range(1000):
        fresh.models[f"m{number}"] = {"upstream_model": "x", "replicas": [recorder.replica]}
    fresh.write_routes()
    fresh.start()
    fresh.wait_for("m999")
    assert fresh.chat("m0").status_code == fresh.chat("m999").status_code == 200
    assert len(httpx.get(f"{fresh.url}/v1/models").json()["data"]) == 1001
    assert fresh.errors() == ""
