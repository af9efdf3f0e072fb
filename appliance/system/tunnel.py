"""Carries connections through an HTTP proxy: `python -m appliance.system.tunnel SOCKET HOST:PORT PROXY-HOST:PORT`.

nginx cannot ask a proxy for a way out. What passes here is encrypted between the gateway and the provider.
"""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

PATIENCE = 30.0
"""Seconds for the proxy to answer."""
LARGEST = 64 << 10
"""Bytes of a proxy's answer, and of what is carried at a time."""


class RefusedError(Exception):
    """The proxy does not open the way."""


async def way_out(target: str, proxy: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return an open way to `target`. Raises OSError, TimeoutError or RefusedError."""
    host, _, port = proxy.rpartition(":")
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), limit=LARGEST)
        try:
            writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.close()
            raise RefusedError(f"{proxy} gives no answer to CONNECT {target}") from None
    words = answer.split(b"\r\n", 1)[0].decode(errors="replace").split(maxsplit=2)
    if words[1:2] != ["200"]:
        writer.close()
        raise RefusedError(f"{proxy} refuses {target}: {' '.join(words[1:])}")
    return reader, writer


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until one side is done, then tell the other."""
    with suppress(OSError):
        while part := await reader.read(LARGEST):
            writer.write(part)
            await writer.drain()
        writer.write_eof()


async def serve(socket: str, target: str, proxy: str) -> None:
    """Listen until killed."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await way_out(target, proxy)
        except (OSError, RefusedError) as error:
            sys.stderr.write(f"{str(error) or f'{proxy} does not answer within {PATIENCE:.0f} s'}\n")
            sys.stderr.flush()
        else:
            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))
            far_writer.close()
        writer.close()

    server = await asyncio.start_unix_server(connected, socket)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Run until killed; only the group may connect."""
    os.umask(0o007)
    Path(sys.argv[1]).unlink(missing_ok=True)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(*sys.argv[1:]))


if __name__ == "__main__":
    main()
