"""Ten thousand requests that should not be: whatever comes, nginx lives, errors are ours, and engines see none of it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import re
import socketserver
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from tests.integration.gateway_rig import Gateway, Json, gateway, missing_ability, until
from tests.integration.malformed import SMUGGLED, Request, malformed

COUNT = int(os.environ.get("LLM_APPLIANCE_FUZZ", "10000"))
SEED = int(os.environ.get("LLM_APPLIANCE_FUZZ_SEED", "20"))
AT_ONCE = 64
KEY = "sk-fuzz-5d41402abc4b2a76b9719d911017c592"
QUIET = 0.3
"""Seconds without a byte after which a client says that it will send no more."""
LONGEST = 30
"""Seconds after which an answer is taken to be missing: nginx itself waits 10 for the rest of a head."""

ENGINE_PATHS = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/responses", "/v1/messages",
    "/v1/audio/transcriptions", "/v1/images/edits", "/api/chat",
)  # fmt: skip
ENGINE_HEADERS = {b"host", b"connection", b"content-length", b"content-type", b"accept", b"x-request-id"}
PROVIDER, PROVIDER_KEY = "provider.test", "sk-provider-7d793037a0760186574b0282f2f435e7"
PROVIDER_HEADERS = ENGINE_HEADERS | {b"authorization", b"accept-encoding", b"user-agent"}
STATUSES = {100, 200, 204, 400, 401, 404, 405, 408, 411, 413, 414, 415, 431, 501, 505}
"""All that may be answered: the engines are well, so no 502, 503 or 504; a 500 would be a fault in Lua."""


@dataclass
class Arrived:
    """A request as an engine read it, byte by byte."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def head(self) -> bytes:
        return b"\n".join([self.line, *(name + b": " + value for name, value in self.headers)])


class StrictEngine:
    """Reads requests exactly as they are written, keeps connections, and believes whatever comes next to be a request."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.seen: list[Arrived] = []
        engine = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while line := self.rfile.readline():
                    headers = []
                    while (field := self.rfile.readline()).strip():
                        name, _, value = field.rstrip(b"\r\n").partition(b":")
                        headers.append((name.lower(), value.strip()))
                    lengths = [int(value) for name, value in headers if name == b"content-length"]
                    body = self.rfile.read(sum(lengths))
                    if not line.startswith(b"GET /health "):
                        engine.seen.append(Arrived(line.rstrip(b"\r\n"), headers, body))
                    self.wfile.write(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                    )

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, *_: object) -> None:
                """A client that leaves in the middle is no matter here."""

        self.server = Server(str(path), Handler)
        path.chmod(0o777)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def kill(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def replica(self) -> Json:
        return {"name": self.name, "address": f"unix:{self.path}"}


@dataclass
class Guarded:
    """A gateway that lets nobody in without a key, and what is behind it.

    `m` is asked by the body's `model`; `p` by its own path, so its bodies need not name it; `r` is a provider's.
    """

    one: Gateway
    engines: list[StrictEngine]

    def is_up(self) -> bool:
        answer = httpx.get(f"{self.one.url}/health", headers={"x-api-key": KEY})
        return bool(answer.json().get("models") == {"m": "up", "p": "up", "r": "up"})

    @property
    def seen(self) -> list[Arrived]:
        return [arrived for engine in self.engines for arrived in engine.seen]


@pytest.fixture(scope="module", autouse=True)
def _nginx() -> None:
    reason = missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def write_keys(one: Gateway, keys: dict[str, str]) -> None:
    """Let in whoever has one of these keys, and nobody else."""
    path = one.prefix / "keys.json"
    entries = [{"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in keys.items()]
    path.write_text(json.dumps({"version": 1, "keys": entries}))
    one.document["keys"] = str(path)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    upstream = f"http-{PROVIDER}-80"
    with gateway(workers=2, remotes=(upstream,)) as one:
        engines = [StrictEngine(name, one.directory / f"{name}.sock") for name in ("m", "p", "r")]
        one.engines += engines  # type: ignore[arg-type]
        write_keys(one, {"fuzz": KEY})
        paths = {path: path for path in ENGINE_PATHS}
        for engine in engines:
            name = engine.name
            one.models[name] = {"upstream_model": name, "replicas": [engine.replica], "paths": paths, "keepalive": True}
        # A key that may not see counters: no request for them comes to an engine either.
        one.models["m"]["metrics"] = "/metrics"
        one.show()
        secret = one.prefix / "provider.key"
        secret.write_text(PROVIDER_KEY)
        # Behind a socket, as one is that a proxy leads to.
        one.models["r"] |= {
            "health": "",
            "remote": {
                "scheme": "http", "host": PROVIDER, "port": 80, "authority": PROVIDER, "path": "/base/v1", "query": "",
                "header": "authorization", "key_file": str(secret), "upstream": upstream,
            },
        }  # fmt: skip
        one.write_routes()
        one.start()
        guarded = Guarded(one, engines)
        until(guarded.is_up, what="all models up")
        yield guarded


async def talk(port: int, data: bytes) -> bytes:
    """Send bytes, wait until it is quiet, say that no more come, and return all that was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        writer.write(data)
        while True:
            try:
                piece = await asyncio.wait_for(reader.read(65536), QUIET)
            except TimeoutError:
                writer.write_eof()
                async with asyncio.timeout(LONGEST):
                    return received + await reader.read()
            if not piece:
                return received
            received += piece
    except ConnectionError:
        return received
    finally:
        writer.close()


async def ask_all(port: int, requests: list[Request]) -> list[bytes]:
    """Send all requests, some at once, each over a connection of its own."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(request: Request) -> bytes:
        async with gate:
            return await talk(port, request.bytes())

    return await asyncio.gather(*(ask(request) for request in requests))


def answers(received: bytes) -> list[tuple[int, bytes, bytes]]:
    """Split what came over a connection: status, head and body of each answer; a body alone is HTTP/0.9's, status 0."""
    pieces = re.split(rb"HTTP/1\.[01] (\d\d\d)[^\r\n]*\r\n", received)
    found = [(0, b"", pieces[0])] if pieces[0] else []
    for status, rest in zip(pieces[1::2], pieces[2::2], strict=True):
        head, _, body = rest.partition(b"\r\n\r\n")
        found.append((int(status), head.lower(), body))
    return found


def problem_of(answer: tuple[int, bytes, bytes], request: Request) -> str | None:
    """Return what is wrong with an answer, if anything is."""
    status, head, body = answer
    if status and status not in STATUSES:
        return f"answered with {status}"
    if status >= 400 or (status == 0 and b"error" in body):
        if status and b"content-type: application/json" not in head:
            return f"{status} is not JSON"
        if not body and request.method == "HEAD":
            return None
        try:
            error = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            return f"{status} has no error in it: {body[:200]!r}"
        if set(error) != {"message", "type", "param", "code"}:
            return f"{status} is not shaped as OpenAI's: {body[:200]!r}"
    return None


def sent_and_judged(guarded: Guarded, requests: list[Request]) -> tuple[Counter[int], list[str]]:
    """Send requests; return how often each status came, and what is wrong with answers."""
    statuses: Counter[int] = Counter()
    problems = []
    for request, received in zip(requests, asyncio.run(ask_all(guarded.one.port, requests)), strict=True):
        for answer in answers(received):
            statuses[answer[0]] += 1
            if problem := problem_of(answer, request):
                problems.append(f"{problem}: {request.spoiled} {request.bytes()[:300]!r}")
    print(
        f"{len(requests)} requests, answers by status: {dict(sorted(statuses.items()))}, engines saw {len(guarded.seen)}"
    )
    return statuses, problems


def faults(guarded: Guarded) -> list[str]:
    """Return the lines of nginx's log that tell of something that should never happen."""
    lines = guarded.one.errors().splitlines()
    return [line for line in lines if re.search(r"exited on signal|\[(alert|crit|emerg)\]|lua |\.lua:", line)]


def nginx_is_well(guarded: Guarded, workers: set[int]) -> None:
    """The same processes, and nothing in the log that tells of a fault."""
    assert guarded.one.worker_pids() == workers
    lines = faults(guarded)
    assert lines == [], f"{len(lines)} lines of nginx's log tell of a fault, the first:\n" + "\n".join(lines[:5])


def only_one_model(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len(pairs) == len({name for name, _ in pairs}) or [name for name, _ in pairs].count("model") < 2, pairs
    return dict(pairs)


def models_of_form(arrived: Arrived) -> list[str]:
    """Return what another parser takes for the model, nothing where it takes the form for broken."""
    [header] = [value.decode("latin-1") for name, value in arrived.headers if name == b"content-type"]
    kind, options = parse_options_header(header)
    try:
        _, fields, _ = FormDataParser(silent=False).parse(io.BytesIO(arrived.body), kind, len(arrived.body), options)
    except (ValueError, RequestEntityTooLarge):
        return []
    return list(fields.getlist("model"))


def is_proper(arrived: Arrived, engine: str) -> None:
    """What may be seen: one of the paths, a Host of ours, listed headers, no client's key, and in a body the one model."""
    method, path, version = arrived.line.decode().split(" ")
    host, prefix, listed = ("engine", "", ENGINE_HEADERS)
    if engine == "r":
        host, prefix, listed = PROVIDER, "/base", PROVIDER_HEADERS
        assert dict(arrived.headers)[b"authorization"].decode() == f"Bearer {PROVIDER_KEY}", arrived
    assert (method, version) == ("POST", "HTTP/1.1"), arrived
    assert path.removeprefix(prefix) in ENGINE_PATHS, arrived
    assert [value.decode() for name, value in arrived.headers if name == b"host"] == [host], arrived
    names = [name for name, _ in arrived.headers]
    assert set(names) <= listed, arrived
    assert len(names) == len(set(names)), arrived
    assert SMUGGLED not in arrived.head, arrived
    assert KEY.encode() not in arrived.head, arrived
    if b"form-data" in arrived.head:
        assert models_of_form(arrived) in ([engine], []), arrived
    else:
        try:
            body = json.loads(arrived.body, object_pairs_hook=only_one_model)
        except (ValueError, RecursionError):
            return  # the engine's own parser refuses it
        assert body.get("model", engine if engine != "m" else None) == engine, arrived


def test_nothing_without_a_key_reaches_an_engine(guarded: Guarded) -> None:
    workers = guarded.one.worker_pids()
    _, problems = sent_and_judged(guarded, [malformed(number, SEED, None) for number in range(COUNT // 2)])
    assert [arrived.head for arrived in guarded.seen] == []
    nginx_is_well(guarded, workers)
    assert not problems, "\n".join(problems[:10])


def test_with_a_key_engines_see_only_what_is_proper(guarded: Guarded) -> None:
    workers = guarded.one.worker_pids()
    statuses, problems = sent_and_judged(guarded, [malformed(number, SEED, KEY) for number in range(COUNT // 2, COUNT)])
    assert statuses[200] > COUNT // 50, "hardly anything was let in: the grammar spoils too much to show something"
    for engine in guarded.engines:
        assert engine.seen
        for arrived in engine.seen:
            is_proper(arrived, engine.name)
    nginx_is_well(guarded, workers)
    assert guarded.is_up()
    assert not problems, "\n".join(problems[:10])
