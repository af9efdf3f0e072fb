"""Shows containers' logs together, and goes on over their restarts: run as a program, its output is the operator's.

Neither Docker's client nor Compose 2.26 does that: both have told all once a container stops.
"""

import argparse
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

from appliance.domain.host import Podman
from appliance.errors import ApplianceError, ExitCode
from appliance.system.docker import Daemon


def last(daemon: Daemon, names: tuple[str, ...], wanted: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (container, line): the last lines of each, in the order in which they were said."""
    rows = (
        (*line.partition(" ")[::2], name)
        for name in names
        for line in daemon.log(name, timestamps=True, follow=False, **wanted)
    )  # fmt: skip
    for _, line, name in sorted(rows, key=lambda row: row[0]):
        yield name, line


def follow(daemon: Daemon, names: tuple[str, ...], wanted: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (container, line) as lines come, without an end; what starts again, or anew, is taken up again."""
    said: queue.SimpleQueue[tuple[str, str] | Exception] = queue.SimpleQueue()

    def read(name: str, **more: Any) -> None:
        try:
            for line in daemon.log(name, follow=True, **more):
                said.put((name, line))
        except ApplianceError as error:
            said.put(error)

    def watch() -> None:
        died: dict[str, float] = {}
        try:
            for name, what, when in daemon.events(names):
                if what == "die":
                    died[name] = when
                elif what == "start":
                    # What it said before Docker tells that it has started counts as well.
                    begin(name, since=died.get(name, when - 1))
        except ApplianceError as error:
            said.put(error)

    def begin(name: str, **more: Any) -> None:
        threading.Thread(target=read, args=(name,), kwargs=more, daemon=True).start()

    threading.Thread(target=watch, daemon=True).start()
    for name in names:
        begin(name, **wanted)
    while True:
        one = said.get()
        if isinstance(one, Exception):
            raise one
        yield one


def main() -> int:
    """Print what the containers say, each line behind the name of its own where there are several."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--podman", default="")
    parser.add_argument("--project", required=True)
    parser.add_argument("--lines", type=int, default=0, help="0 = all that there are")
    parser.add_argument("--since", type=int, default=0, help="seconds since 1970")
    parser.add_argument("--follow", action="store_true")
    parser.add_argument("services", nargs="+")
    told = parser.parse_args()
    daemon = Daemon(Podman(socket=told.podman) if told.podman else None)
    shown = {f"{told.project}-{service}-1": service for service in told.services}
    wanted = {"tail": told.lines or "all"} | ({"since": told.since} if told.since else {})
    width = max(map(len, told.services))
    try:
        for name, line in (follow if told.follow else last)(daemon, (*shown,), wanted):
            head = f"{shown[name]:{width}} | " if len(shown) > 1 else ""
            sys.stdout.write(f"{head}{line}\n")
            sys.stdout.flush()
    except ApplianceError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return error.code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
