"""Models of providers: a stand-in for one answers on this machine, with a certificate of its own."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance import gateway as product
from tests.integration.gateway_rig import NOBODY, Gateway, Provider, certificates, gateway, missing_ability, until

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module", autouse=True)
def _nginx() -> None:
    reason = missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def certificate() -> Iterator[tuple[Path, Path]]:
    with certificates("localhost") as pair:
        yield pair


@contextmanager
def beside(provider: Provider, *hosts: str, ca: str = "", **more: Any) -> Iterator[Gateway]:
    """Yield a gateway that knows this provider, by each of these hosts."""
    names = tuple(product.upstream(provider.remote(host)) for host in hosts or ("localhost",))
    with gateway(remotes=names, ca_file=ca, **more) as one:
        one.engines.append(provider)
        yield one


@pytest.fixture
def provider() -> Provider:
    return Provider("cloud")


@pytest.fixture
def one(provider: Provider) -> Iterator[Gateway]:
    """A provider without a certificate, its model and its key."""
    with beside(provider) as one:
        key = key_file(one, "sk-of-the-provider\n")
        one.place("kimi", provider.remote(key_file=str(key)))
        one.start()
        yield one


def key_file(one: Gateway, content: str) -> Path:
    new = one.directory / "kimi.new"
    new.write_text(content)
    new.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(new, NOBODY, NOBODY)
    return new.rename(one.directory / "kimi.key")


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_provider_is_asked_as_it_wants_to_be(one: Gateway, provider: Provider) -> None:
    provider.headers |= {"Set-Cookie": "a=b", "X-Secret": "c", "X-RateLimit-Remaining-Requests": "7"}
    headers = {"Authorization": "Bearer sk-of-the-client", "X-API-Key": "sk-of-the-client", "Cookie": "a=b"}
    headers |= {
        "X-Forwarded-For": "10.0.0.1",
        "OpenAI-Organization": "ours",
        "User-Agent": "me",
        "X-Request-Id": "req-12345",
    }
    answer = one.chat("kimi", headers=headers)
    assert answer.status_code == 200, answer.text
    [seen] = provider.seen
    assert seen.path == "/api/v1/chat/completions"
    assert json.loads(seen.body)["model"] == "theirs"
    assert seen.header("authorization") == ["Bearer sk-of-the-provider"]
    assert seen.header("host") == [f"localhost:{provider.port}"]
    assert seen.header("x-request-id") == ["req-12345"]
    names = {name.lower() for name, _ in seen.headers}
    assert names == {
        *("host", "content-type", "content-length", "accept", "accept-encoding", "user-agent", "authorization"),
        "x-request-id",
    }
    assert "sk-of-the-client" not in str(seen.headers)
    assert {"set-cookie", "x-secret"}.isdisjoint(answer.headers)
    assert answer.headers["x-ratelimit-remaining-requests"] == "7"


def test_a_key_may_be_wanted_in_another_header_and_a_query_after_every_path(one: Gateway, provider: Provider) -> None:
    key = key_file(one, "secret-of-azure")
    one.place("azure", provider.remote(key_file=str(key), header="api-key", query="api-version=2024-10-21"))
    until(lambda: one.chat("azure", headers={"api-key": "mine"}).status_code == 200, what="the model")
    assert provider.seen[-1].header("api-key") == ["secret-of-azure"]
    assert provider.seen[-1].header("authorization") == []
    assert provider.seen[-1].path == "/api/v1/chat/completions?api-version=2024-10-21"
    assert one.post(f"/azure{CHAT}?x=1", {"messages": []}).status_code == 200
    assert provider.seen[-1].path == "/api/v1/chat/completions?api-version=2024-10-21"


def test_a_new_key_holds_at_once(one: Gateway, provider: Provider) -> None:
    assert one.chat("kimi").status_code == 200
    key_file(one, "sk-another-one")
    until(
        lambda: (
            one.chat("kimi").status_code == 200
            and provider.seen[-1].header("authorization") == ["Bearer sk-another-one"]
        )
    )
    key_file(one, "two\nlines")
    until(lambda: one.chat("kimi").status_code == 502, what="no key")
    assert code(one.chat("kimi")) == (502, "provider_key_missing")
    assert "sk-another-one" not in one.errors() + one.log.read_text()


def test_connections_to_a_provider_are_kept(one: Gateway, provider: Provider) -> None:
    for _ in range(5):
        assert one.chat("kimi").status_code == 200
    assert provider.connections == 1


@pytest.mark.parametrize(
    ("status", "kind", "said", "message"),
    [
        (429, "application/json", '{"error":{"message":"slow down","type":"x","code":"y"}}', "slow down"),
        (400, "application/json", '{"message":"no such thing"}', "the provider answers 400: no such thing"),
        (422, "application/json", '{"detail":[{"loc":1}]}', 'the provider answers 422: {"detail":[{"loc":1}]}'),
        (502, "text/html", "<html><h1>Bad gateway</h1></html>", "the provider answers 502:  Bad gateway "),
        (503, "text/plain", "", "the provider answers 503: "),
        (401, "application/json", '{"error":{"message":"bad key","code":"k"}}', "bad key"),
    ],
)
def test_a_providers_error_comes_in_one_form(
    one: Gateway, provider: Provider, status: int, kind: str, said: str, message: str
) -> None:
    provider.status, provider.reply = status, said.encode()
    provider.headers = {"Content-Type": kind, "Retry-After": "7"}
    answer = one.chat("kimi")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "7"
    assert answer.json()["error"]["message"] == message


def test_a_provider_that_is_away_is_left_alone_for_a_while(one: Gateway, provider: Provider) -> None:
    assert one.states() == {"kimi": "up"}
    provider.kill()
    assert code(one.chat("kimi")) == (502, "model_unavailable")
    assert one.states() == {"kimi": "down"}


def test_a_stream_of_a_provider_passes_at_once(one: Gateway, provider: Provider) -> None:
    provider.pieces = (b"data: 1\n\n", b"data: 2\n\n")
    times = []
    with one.streaming("kimi") as answer:
        for line in answer.iter_lines():
            if line:
                times.append(time.monotonic())
    assert times[1] - times[0] > 0.1


def test_each_place_with_a_provider_has_its_limit(provider: Provider) -> None:
    with beside(provider) as one:
        one.place("kimi", provider.remote(), replicas=2, limit=1)
        one.start()
        assert {one.chat("kimi").status_code for _ in range(4)} == {200}
        assert {line["replica"] for line in one.logged() if line["model"]} == {"kimi_1", "kimi_2"}


# ---------------------------------------------------------------------------------------------------- certificates


def test_the_certificate_of_the_right_host_is_taken(certificate: tuple[Path, Path]) -> None:
    provider = Provider("cloud", certificate)
    with beside(provider, ca=str(certificate[0])) as one:
        one.place("kimi", provider.remote())
        one.start()
        answer = one.chat("kimi")
        assert answer.status_code == 200, answer.text + one.errors()


def test_the_certificate_of_another_host_is_refused(certificate: tuple[Path, Path]) -> None:
    provider = Provider("cloud", certificate)
    with beside(provider, "localhost", "127.0.0.1", ca=str(certificate[0])) as one:
        one.place("good", provider.remote())
        one.place("bad", provider.remote("127.0.0.1"))
        one.start()
        for _ in range(3):
            # The first one's connection is kept, to the same address: the other host must not go out on it.
            assert one.chat("good").status_code == 200
            assert one.chat("bad").status_code == 502
        assert len(provider.seen) == 3


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: tuple[Path, Path]) -> None:
    provider = Provider("cloud", certificate)
    with certificates("localhost") as (other, _), beside(provider, ca=str(other)) as one:
        one.place("kimi", provider.remote())
        one.start()
        assert code(one.chat("kimi")) == (502, "model_unavailable")
        assert provider.seen == []


def test_a_tunnel_leads_to_the_same_host(certificate: tuple[Path, Path]) -> None:
    """A relay on a socket stands for the way through a proxy: it carries bytes and cannot read them."""
    provider = Provider("cloud", certificate)
    with beside(provider, ca=str(certificate[0])) as one:
        path = one.directory / "tunnel.sock"
        with relay(path, provider.port):
            one.place("kimi", provider.remote(url=f"https://localhost:{provider.port}/v1"), address=f"unix:{path}")
            one.start()
            answer = one.chat("kimi")
            assert answer.status_code == 200, answer.text + one.errors()
            assert provider.seen[0].header("host") == [f"localhost:{provider.port}"]


@contextmanager
def relay(path: Path, port: int) -> Iterator[None]:
    import asyncio
    import threading

    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    async def serve() -> None:
        await asyncio.start_unix_server(connected, str(path))

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop).result(5)
    path.chmod(0o777)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


# ---------------------------------------------------------------------------------------------------- names


def test_a_host_that_nobody_knows_is_told_and_stops_nothing(provider: Provider) -> None:
    with beside(provider, "localhost", "no-such-host.invalid") as one:
        one.place("lost", provider.remote("no-such-host.invalid"))
        one.place("kimi", provider.remote())
        one.start()
        assert one.chat("kimi").status_code == 200
        answer = one.chat("lost")
        assert code(answer) == (502, "provider_unknown")
        assert "no-such-host.invalid" in answer.json()["error"]["message"]
