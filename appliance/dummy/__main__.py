"""`python -m appliance.dummy`: reads the switches and serves until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import sys

from appliance.dummy.server import Options, serve


def parse(argv: list[str]) -> Options:
    """Return the options that a command line asks for; exit with 2 when it makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m appliance.dummy", description=__doc__)
    add = parser.add_argument
    add("--host", required=True, metavar="unix:PATH|ADDRESS:PORT", help="where to listen")
    add("--model", required=True, help="the model name to answer for; any other is a 404")
    add("--text", default=Options.text, help="what to answer; a word is one token")
    add("--echo", action="store_true", help="answer with the last user message or the prompt")
    add("--first-token-delay", type=_seconds, default=0.0, metavar="S")
    add("--token-delay", type=_seconds, default=0.0, metavar="S")
    add("--start-delay", type=_seconds, default=0.0, metavar="S", help="503 'Loading model' until then")
    add("--fail-every", type=_count, default=0, metavar="N", help="each Nth request is answered with 500")
    add("--die-after", type=_count, default=0, metavar="N", help="exit abruptly in the middle of request N")
    add("--hang-after", type=_count, default=0, metavar="N", help="request N and all later ones hang")
    add("--truncate-stream", type=_count, default=0, metavar="N", help="each Nth stream is cut half way")
    add("--grace", type=_seconds, default=Options.grace, metavar="S", help="for open requests after SIGTERM")
    return Options(**vars(parser.parse_args(argv)))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"not a positive number: {text}")
    return value


def main() -> int:
    """Serve; 0 after SIGTERM or SIGINT, 1 when the address cannot be listened on."""
    options = parse(sys.argv[1:])
    try:
        asyncio.run(serve(options))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"cannot listen on {options.host}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
