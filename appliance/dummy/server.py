"""The server: connections, delays, failures on purpose, and a clean end on SIGTERM."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.dummy import shapes
from appliance.dummy.http import (
    MAX_HEADERS,
    BadRequestError,
    Request,
    Response,
    chunk,
    encode,
    read_request,
    stream_head,
    whole,
)
from appliance.dummy.shapes import ApiError, Task

Answer = Response | Task


@dataclass(frozen=True)
class Options:
    """How the engine behaves; the switches of the command line."""

    host: str
    """`unix:/path` or `address:port`."""
    model: str
    text: str = "The quick brown fox jumps over the lazy dog."
    echo: bool = False
    first_token_delay: float = 0.0
    token_delay: float = 0.0
    start_delay: float = 0.0
    """Seconds; /health says 503 until then."""
    fail_every: int = 0
    """0 = never, here and below; requests for text or embeddings are counted from 1."""
    die_after: int = 0
    hang_after: int = 0
    truncate_stream: int = 0
    grace: float = 30.0
    """Seconds that open requests get after SIGTERM."""


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class StreamCutError(Exception):
    """The connection is to be closed in the middle of an answer."""


@dataclass
class Counters:
    """What /metrics tells."""

    requests: int = 0
    tokens: int = 0
    aborted: int = 0
    in_flight: int = 0

    def text(self) -> bytes:
        """Return the counters in Prometheus' format."""
        return (
            f"dummy_requests_total {self.requests}\ndummy_tokens_total {self.tokens}\n"
            f"dummy_aborted_total {self.aborted}\ndummy_in_flight {self.in_flight}\n"
        ).encode()


@dataclass
class Connection:
    """One client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    busy: bool = False

    def check(self) -> None:
        """Raise ClientGoneError when the client has closed."""
        if self.reader.at_eof() or self.writer.is_closing():
            raise ClientGoneError

    async def send(self, data: bytes) -> None:
        """Write and wait until there is room. Raises ClientGoneError."""
        self.check()
        self.writer.write(data)
        try:
            await self.writer.drain()
        except ConnectionError as error:
            raise ClientGoneError from error


@dataclass
class Engine:
    """Answers requests the way the options say."""

    options: Options
    counters: Counters = field(default_factory=Counters)
    created: int = field(default_factory=lambda: int(time.time()))
    ready_at: float = 0.0
    streams: int = 0
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    stopping: bool = False
    connections: dict[asyncio.Task[None], Connection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ready_at = time.monotonic() + self.options.start_delay

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side closes it."""
        task = asyncio.current_task()
        assert task is not None
        connection = self.connections[task] = Connection(reader, writer)
        try:
            await self._serve(connection)
        except (ClientGoneError, StreamCutError, ConnectionError):
            pass
        except BadRequestError as error:
            writer.write(whole(ApiError(400, str(error)).response, keep_alive=False))
        finally:
            del self.connections[task]
            writer.close()

    async def stop(self) -> None:
        """Close idle connections and let the others finish, within the grace period."""
        self.stopping = True
        for connection in self.connections.values():
            if not connection.busy:
                connection.writer.close()
        if self.connections:
            await asyncio.wait(self.connections, timeout=self.options.grace)

    async def _serve(self, connection: Connection) -> None:
        keep_alive = True
        while keep_alive and not self.stopping:
            request = await read_request(connection.reader, connection.writer)
            if request is None:
                return
            connection.busy = True
            keep_alive = request.keep_alive and not self.stopping
            await self._respond(connection, request, keep_alive)
            connection.busy = False

    async def _respond(self, connection: Connection, request: Request, keep_alive: bool) -> None:
        works = request.method == "POST"
        self.counters.in_flight += works
        try:
            answer = await self._answer(connection, request)
            if isinstance(answer, Response):
                await connection.send(whole(answer, keep_alive=keep_alive))
            elif answer.stream:
                await self._stream(connection, answer, keep_alive)
            else:
                response = Response(200, encode(await self._complete(connection, answer)))
                await connection.send(whole(response, keep_alive=keep_alive))
        except ClientGoneError:
            self.counters.aborted += 1
            raise
        finally:
            self.counters.in_flight -= works

    async def _answer(self, connection: Connection, request: Request) -> Answer:
        try:
            handler = self._route(request.method, request.path)
            if request.method == "POST":
                await self._misbehave(connection)
            return handler(request)
        except ApiError as error:
            return error.response

    def _route(self, method: str, path: str) -> Callable[[Request], Answer]:
        routes: dict[str, tuple[str, Callable[[Request], Answer]]] = {
            "/health": ("GET", lambda _: Response(200, encode({"status": "ok"}))),
            "/metrics": ("GET", lambda _: Response(200, self.counters.text(), "text/plain; version=0.0.4")),
            "/v1/models": ("GET", lambda _: self._models()),
            "/v1/chat/completions": ("POST", self._chat),
            "/v1/completions": ("POST", self._completion),
            "/v1/embeddings": ("POST", self._embeddings),
        }
        if path not in routes:
            raise ApiError(404, f"no such route: {path}")
        expected, handler = routes[path]
        if method != expected:
            raise ApiError(405, f"{path} takes {expected}, not {method}")
        if path != "/metrics" and time.monotonic() < self.ready_at:
            raise shapes.LOADING
        return handler

    async def _misbehave(self, connection: Connection) -> None:
        self.counters.requests += 1
        count, options = self.counters.requests, self.options
        while options.hang_after and count >= options.hang_after:
            await asyncio.sleep(0.05)
            connection.check()
        if options.fail_every and count % options.fail_every == 0:
            raise ApiError(500, f"request {count} fails on purpose", kind="internal_error")

    def _models(self) -> Response:
        return Response(200, encode(shapes.models(self.options.model, self.created)))

    def _embeddings(self, request: Request) -> Response:
        body = shapes.read_json(request.body, self.options.model)
        return Response(200, encode(shapes.embeddings(body, self.options.model)))

    def _chat(self, request: Request) -> Task:
        body = shapes.read_json(request.body, self.options.model)
        return shapes.chat_task(body, self._origin("chatcmpl"))

    def _completion(self, request: Request) -> Task:
        body = shapes.read_json(request.body, self.options.model)
        return shapes.completion_task(body, self._origin("cmpl"))

    def _origin(self, kind: str) -> shapes.Origin:
        name = f"{kind}-{os.getpid()}-{next(self.ids)}"
        return shapes.Origin(name, int(time.time()), self.options.model)

    async def _complete(self, connection: Connection, task: Task) -> shapes.Json:
        texts, count = [], 0
        for prompt in task.prompts:
            words, reason = self._words(prompt, task.max_tokens)
            async for _ in self._generate(connection, words):
                count += 1
            texts.append(("".join(words), reason))
        return task.whole(texts, count)

    async def _stream(self, connection: Connection, task: Task, keep_alive: bool) -> None:
        self.streams += 1
        cut = bool(self.options.truncate_stream) and self.streams % self.options.truncate_stream == 0
        await connection.send(stream_head(keep_alive=keep_alive))
        count = 0
        for index, prompt in enumerate(task.prompts):
            words, reason = self._words(prompt, task.max_tokens)
            async for position, word in self._generate(connection, words):
                await self._send_event(connection, task.event(index, word, None, first=position == 0))
                count += 1
                if cut and position >= len(words) // 2:
                    raise StreamCutError
            await self._send_event(connection, task.event(index, "", reason))
        if task.include_usage:
            await self._send_event(connection, task.usage_event(count))
        await connection.send(chunk(b"data: [DONE]\n\n") + chunk(b""))

    async def _send_event(self, connection: Connection, event: shapes.Json) -> None:
        await connection.send(chunk(b"data: %s\n\n" % encode(event)))

    def _words(self, prompt: str, limit: int | None) -> tuple[list[str], str]:
        words = shapes.tokens(prompt if self.options.echo else self.options.text)
        return (words[:limit], "length") if limit is not None and limit < len(words) else (words, "stop")

    async def _generate(self, connection: Connection, words: list[str]) -> AsyncIterator[tuple[int, str]]:
        dies = self.counters.requests == self.options.die_after
        for position, word in enumerate(words):
            await asyncio.sleep(self.options.token_delay if position else self.options.first_token_delay)
            connection.check()
            if dies and position >= len(words) // 2:
                os._exit(1)
            self.counters.tokens += 1
            yield position, word


async def serve(options: Options) -> None:
    """Listen until SIGTERM or SIGINT. Raises OSError or ValueError when the address cannot be used."""
    engine = Engine(options)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await _listen(options.host, engine)
    await stopped.wait()
    server.close()
    await engine.stop()
    _remove_socket(options.host)


async def _listen(host: str, engine: Engine) -> asyncio.Server:
    if host.startswith("unix:"):
        # asyncio itself removes a socket that an earlier run has left there.
        path = host.removeprefix("unix:")
        return await asyncio.start_unix_server(engine.connected, path, limit=MAX_HEADERS, backlog=1024)
    address, colon, port = host.rpartition(":")
    if not colon:
        raise ValueError("neither unix:PATH nor ADDRESS:PORT")
    address = address.strip("[]")
    return await asyncio.start_server(engine.connected, address, int(port), limit=MAX_HEADERS, backlog=1024)


def _remove_socket(host: str) -> None:
    if host.startswith("unix:"):
        Path(host.removeprefix("unix:")).unlink(missing_ok=True)
