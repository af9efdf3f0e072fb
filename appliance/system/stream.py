"""Streams of server-sent events from what runs here: one at a time for a person, many at once to measure.

HTTP/1.0 on purpose: what comes is the stream itself, line by line, without the lengths of chunks to be taken out.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, Final

LONGEST: Final = 1 << 20
"""Bytes of one line."""


class StreamError(Exception):
    """A stream that did not come, or broke off; `status` 0 = nobody answered."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.message, self.status = message, status


def events(address: str, path: str, payload: dict[str, Any], *, timeout: float) -> Iterator[dict[str, Any]]:
    """Yield the JSON of each event; `timeout` is in seconds, for each piece. Raises StreamError."""
    try:
        with _connect(address, timeout) as link, link.makefile("rb") as lines:
            link.sendall(_request(path, payload))
            status = _status(lines.readline(LONGEST))
            while lines.readline(LONGEST).strip():
                pass
            if status != 200:
                raise StreamError(_told(lines.read(LONGEST), status), status)
            for line in lines:
                if (event := _event(line)) is not None:
                    yield event
    except OSError as error:
        raise StreamError(str(error) or type(error).__name__) from error


async def events_at_once(address: str, path: str, payload: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Yield the same, for many streams in one thread. Raises StreamError."""
    writer: asyncio.StreamWriter | None = None
    try:
        reader, writer = await _open(address)
        writer.write(_request(path, payload))
        await writer.drain()
        status = _status(await reader.readline())
        while (await reader.readline()).strip():
            pass
        if status != 200:
            raise StreamError(_told(await reader.read(LONGEST), status), status)
        while line := await reader.readline():
            if (event := _event(line)) is not None:
                yield event
    except (OSError, ValueError) as error:
        raise StreamError(str(error) or type(error).__name__) from error
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def _connect(address: str, timeout: float) -> socket.socket:
    if address.startswith("unix:"):
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(timeout)
        link.connect(address.removeprefix("unix:"))
        return link
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout)


async def _open(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"), limit=LONGEST)
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port), limit=LONGEST)


def _request(path: str, payload: dict[str, Any]) -> bytes:
    body = json.dumps(payload).encode()
    head = (
        f"POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    return f"{head}\r\n".encode() + body


def _status(line: bytes) -> int:
    words = line.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        raise StreamError("no answer came" if not line else f"{line[:80]!r} is no answer")
    return int(words[1])


def _event(line: bytes) -> dict[str, Any] | None:
    """Read one line of a stream; None for all that is no event. Raises StreamError for an error within it."""
    if not line.startswith(b"data: {"):
        return None
    try:
        event: dict[str, Any] = json.loads(line[6:])
    except ValueError as error:
        raise StreamError("a piece of the stream is no JSON") from error
    if "error" in event:
        raise StreamError(_said(event), 200)
    return event


def _told(body: bytes, status: int) -> str:
    with suppress(ValueError):
        document = json.loads(body)
        if isinstance(document, dict) and "error" in document:
            return _said(document)
    return f"HTTP {status}: {body[:200].decode(errors='replace')}".strip()


def _said(document: dict[str, Any]) -> str:
    error = document["error"]
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)
