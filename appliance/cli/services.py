"""start, stop, restart, logs."""

import os
import re
import shlex
import time
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.looks import show
from appliance.cli.options import DryRun, Json, Prefix
from appliance.cli.site import finish, known_models, refuse_json_follow, site
from appliance.errors import UsageError
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.flows.site import Site

LINES = 50
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
Model = Annotated[
    str,
    typer.Argument(
        metavar="[MODEL]", help="One model; everything when left out.", show_default=False, autocompletion=known_models
    ),
]
Now = Annotated[bool, typer.Option("--now", help="Cut off requests in progress; else they have two minutes to end.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(start)
    app.command()(stop)
    app.command()(restart)
    app.command()(logs)


def start(model: Model = "", dry_run: DryRun = False, prefix: Prefix = "", as_json: Json = False) -> int:
    """Start one model or everything, and wait until it is healthy."""
    return _control("start", model, site(prefix, as_json=as_json), dry_run=dry_run, as_json=as_json)


def stop(
    model: Model = "", now: Now = False, dry_run: DryRun = False, prefix: Prefix = "", as_json: Json = False
) -> int:
    """Stop one model or everything, once its requests have ended."""
    return _control("stop", model, site(prefix, as_json=as_json), now=now, dry_run=dry_run, as_json=as_json)


def restart(
    model: Model = "", now: Now = False, dry_run: DryRun = False, prefix: Prefix = "", as_json: Json = False
) -> int:
    """Restart one model or everything once its requests have ended, replica by replica; wait until it is healthy."""
    return _control("restart", model, site(prefix, as_json=as_json), now=now, dry_run=dry_run, as_json=as_json)


def logs(
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]",
            help="One model, one replica of it, or gateway.",
            show_default=False,
            autocompletion=known_models,
        ),
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=1, help="How many of the last lines; 50, or all with --since.")
    ] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Only what is newer: 10m, 2h, 3d, or 2026-11-28 17:00 local time.")
    ] = "",
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Show the log of one model, of the gateway, or of everything."""
    from appliance.flows import operate
    from appliance.system.machine import environment

    here = site(prefix, as_json=as_json)
    command = operate.log_command(
        here, model, follow=follow, lines=lines or (0 if since else LINES), since=moment(since) if since else 0
    )
    if follow:
        refuse_json_follow(as_json)
        os.execvpe(command.argv[0], command.argv, environment())  # noqa: S606 - its output is ours from here on
    said: list[str] = []
    here.machine.run(command, on_line=said.append)
    return finish(Result(command="logs", data={"lines": said}, text="\n".join(said)), as_json=as_json)


def moment(text: str) -> int:
    """Return the time that `10m`, `2h`, `3d` ago or `2026-11-28[ 17:00[:05]]` stands for, in seconds since 1970."""
    from datetime import datetime

    if found := re.fullmatch(r"([0-9]{1,9})([smhd])", text):
        return max(1, int(time.time()) - int(found[1]) * UNITS[found[2]])
    try:
        return max(1, int(datetime.fromisoformat(text).timestamp()))
    except (ValueError, OverflowError):
        raise UsageError(f"--since {text!r} is no time", hint="for example 10m, 2h, 3d, 2026-11-28 17:00") from None


def _control(verb: str, model: str, here: "Site", *, now: bool = False, dry_run: bool, as_json: bool) -> int:
    from appliance import verify
    from appliance.flows import operate

    if dry_run:
        lines = [shlex.join(command.argv) for command in operate.commands(here, verb, model, now=now)]
        return finish(Result(command=verb, data={"commands": lines}, text="\n".join(lines)), as_json=as_json)
    record = operate.control(here, verb, model, now=now)
    if verb != "stop" and not model:
        verify.wait(record.deployment, here.machine)
    return show(here, verb, record, as_json=as_json)
