"""Leads from a unix socket to a port of a network of its own: `python -m appliance.system.relay SOCKET HOST:PORT`.

For engines that know no unix sockets: nobody on the machine reaches their port, and only our group comes in here.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from appliance.system.tunnel import LARGEST, carry


async def serve(socket: str, target: str) -> None:
    """Listen until told to stop, then until the last connection has ended: answers on their way are finished."""
    host, _, port = target.rpartition(":")
    there: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        there.add(task)
        task.add_done_callback(there.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port), limit=LARGEST)
        except OSError as error:
            sys.stderr.write(f"{target}: {error.strerror or error}\n")
            sys.stderr.flush()
        else:
            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))
            far_writer.close()
        writer.close()

    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    server = await asyncio.start_unix_server(connected, socket, backlog=512)
    await end.wait()
    server.close()
    while there:
        await asyncio.wait(there)


def main() -> None:
    """Run until told to stop; only the group may connect."""
    os.umask(0o007)
    Path(sys.argv[1]).unlink(missing_ok=True)
    asyncio.run(serve(*sys.argv[1:]))


if __name__ == "__main__":
    main()
