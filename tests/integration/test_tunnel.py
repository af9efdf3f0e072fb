"""The way out through a real proxy on loopback: what passes, and what a proxy's refusal becomes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.system import tunnel


@contextlib.asynccontextmanager
async def proxy(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy that says `answer` to CONNECT, then sends everything back in capitals."""
    heard: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        while part := await reader.read(100):
            writer.write(part.upper())
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", heard


async def through(socket: Path, address: str, words: bytes) -> bytes:
    serving = asyncio.create_task(tunnel.serve(str(socket), "api.example:443", address))
    await asyncio.sleep(0)  # it listens before it first waits
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(words)
        writer.write_eof()
        return await reader.read()
    finally:
        serving.cancel()


def test_what_is_sent_comes_out_at_the_other_end_and_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with proxy(b"HTTP/1.1 200 Connection established\r\n\r\n") as (address, heard):
            assert await through(tmp_path / "s", address, b"hello " * 50_000) == b"HELLO " * 50_000
        assert heard == [b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "refuses api.example:443: 407 Proxy Authentication"),
        (b"HTTP/1.1 503 No\r\nX: y\r\n\r\n", "refuses api.example:443: 503 No"),
    ],
)
def test_a_refusal_closes_the_connection_and_is_told(
    answer: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        async with proxy(answer) as (address, _):
            assert await through(tmp_path / "s", address, b"hello") == b""

    asyncio.run(run())
    assert said in capsys.readouterr().err


def test_a_proxy_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        assert await through(tmp_path / "s", "127.0.0.1:1", b"hello") == b""

    asyncio.run(run())
    assert "Connect call failed" in capsys.readouterr().err
