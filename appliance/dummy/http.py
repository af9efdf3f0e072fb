"""Just enough HTTP/1.1 for a server: requests in, whole or chunked answers out."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus

MAX_HEADERS = 64 * 1024
MAX_BODY = 256 * 1024 * 1024


class BadRequestError(Exception):
    """The request cannot be read; the connection has to be closed."""


@dataclass(frozen=True)
class Request:
    """One request with its whole body."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to use the connection again."""
        return self.headers.get("connection", "").lower() != "close"


@dataclass(frozen=True)
class Response:
    """An answer that is known as a whole."""

    status: int
    body: bytes
    content_type: str = "application/json"


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """Return the next request of a connection; None when the client has closed it. Raises BadRequestError."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise BadRequestError("the request ends within its headers") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise BadRequestError("the headers are too long") from error
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequestError(f"not a request line: {first!r}")
    headers = dict(_header(line) for line in lines)
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    path = words[1].partition("?")[0]
    return Request(words[0], path, headers, await _read_body(reader, headers))


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise BadRequestError(f"not a header: {line!r}")
    return name.lower(), value.strip()


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    try:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return await _read_chunks(reader)
        size = int(headers.get("content-length", "0"))
        if not 0 <= size <= MAX_BODY:
            raise BadRequestError(f"a body of {size} bytes")
        return await reader.readexactly(size)
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise BadRequestError(f"the body cannot be read: {error}") from error


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        if size < 0 or len(body) + size > MAX_BODY:
            raise BadRequestError(f"a chunk of {size} bytes")
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return bytes(body)
        body += await reader.readexactly(size)
        await reader.readexactly(2)


def whole(response: Response, *, keep_alive: bool) -> bytes:
    """Return the bytes of an answer of known length."""
    head = _head(response.status, response.content_type, keep_alive=keep_alive)
    return head + b"content-length: %d\r\n\r\n" % len(response.body) + response.body


def stream_head(*, keep_alive: bool) -> bytes:
    """Return what comes before the first event of a stream."""
    return _head(200, "text/event-stream", keep_alive=keep_alive) + b"transfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one piece of a chunked body; the empty piece ends the body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def encode(value: object) -> bytes:
    """Return JSON as engines write it: UTF-8, nothing escaped that need not be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _head(status: int, content_type: str, *, keep_alive: bool) -> bytes:
    connection = "keep-alive" if keep_alive else "close"
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {content_type}\r\nconnection: {connection}\r\n"
    ).encode()
