"""What every command shares: where it works, and how a Result is printed."""

import glob
import os
import re
import shlex
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import HostError, UsageError
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.domain.layout import Layout
    from appliance.flows.site import Site

MARKER = "llm-appliance-prefix"
"""File in the environment's directory that names the prefix it was installed under."""


def layout(prefix: str) -> "Layout":
    """Return where things live for --prefix, or for the environment that we run from."""
    from appliance.domain.layout import Layout

    chosen = prefix or os.environ.get("LLM_APPLIANCE_PREFIX", "") or _own_prefix()
    if chosen == "/":
        return Layout(
            prefix="/",
            etc="/etc/llm-appliance",
            state="/var/lib/llm-appliance",
            cache="/var/cache/llm-appliance",
            run="/run/llm-appliance",
            log="/var/log/llm-appliance",
        )
    base = os.path.abspath(os.path.expanduser(chosen))  # noqa: PTH100, PTH111 - links stay as the operator wrote them
    if not re.fullmatch(r"[\w/.+@-]+", base):
        raise UsageError(
            f"--prefix {base!r}: configuration files cannot hold that path", hint="letters, digits, / - _ ."
        )
    return Layout(
        prefix=base,
        etc=f"{base}/etc",
        state=f"{base}/state",
        cache=f"{base}/cache",
        run=f"{base}/run",
        log=f"{base}/log",
    )


def site(prefix: str, *, as_json: bool = False) -> "Site":
    """Return the real machine under a prefix."""
    from appliance import report
    from appliance.flows.site import Site
    from appliance.system.machine import RealMachine

    words = " ".join(shlex.quote(word) for word in ("llm-appliance", *sys.argv[1:]))
    return Site(
        layout=layout(prefix), machine=RealMachine(), progress=report.progress(json_lines=as_json), command=words
    )


def known_models(incomplete: str) -> list[str]:
    """Return the models' names that begin so, for the shells' completion."""
    names = Path(layout("").etc, "models.d").glob(f"{glob.escape(incomplete)}*.yaml")
    return sorted(path.name.removesuffix(".yaml") for path in names)


def finish(result: Result, *, as_json: bool) -> int:
    """Print a Result on stdout and return the exit code."""
    try:
        print(result.envelope() if as_json else result.text, flush=True)  # noqa: T201 - the one place for stdout
    except BrokenPipeError:
        # Whoever read our output went away; what was done is done all the same.
        let_go()
    return int(result.exit_code)


def remove_program(prefix: str) -> None:
    """Hand over to the script that removes what we run from, where install.sh put it there; returns otherwise.

    What was installed below another prefix by the same program leaves the program alone.
    """
    from appliance import resources

    home = Path(sys.prefix).parent
    if not Path(sys.prefix, MARKER).is_file() or layout(_own_prefix()).prefix != prefix:
        return
    link = "/usr/local/bin/llm-appliance" if _own_prefix() == "/" else str(home / "bin" / "llm-appliance")
    os.execv("/bin/sh", ("sh", str(resources.data("installers/uninstall.sh")), str(home), link))  # noqa: S606


def say(text: str) -> None:
    """Write to stderr; a terminal that went away is nobody's error."""
    with suppress(OSError, ValueError):
        if sys.stderr:
            print(text, file=sys.stderr, flush=True)  # noqa: T201


def let_go() -> None:
    """Drop what a stream that went away did not take: Python tries once more at its end, and changes the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def trace_directory() -> str:
    """Return where a traceback may be left."""
    log = Path("/var/log/llm-appliance")
    return str(log) if log.is_dir() and os.access(log, os.W_OK) else tempfile.gettempdir()


def refuse_json_follow(as_json: bool) -> None:
    """A stream of lines is no single document."""
    if as_json:
        raise UsageError("--json and --follow exclude each other", hint="llm-appliance logs --json")


def _own_prefix() -> str:
    marker = Path(sys.prefix, MARKER)
    try:
        return marker.read_text().strip() or "/"
    except FileNotFoundError:
        return "/"
    except OSError as error:
        raise HostError(f"{marker}: {error.strerror}") from error
