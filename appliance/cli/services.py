"""status, start, stop, restart, logs."""

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.site import DryRun, Json, Prefix, finish, known_models, refuse_json_follow, site
from appliance.errors import ExitCode
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.domain.changes import Record
    from appliance.flows.site import Site

Model = Annotated[
    str,
    typer.Argument(
        metavar="[MODEL]", help="One model; everything when left out.", show_default=False, autocompletion=known_models
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(start)
    app.command()(stop)
    app.command()(restart)
    app.command()(logs)


def status(
    env: Annotated[bool, typer.Option("--env", help="Show the variables of each engine instead.")] = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Show what runs; exit code 7 when something that should run does not."""
    from appliance.flows.site import installed

    here = site(prefix, as_json=as_json)
    if env:
        return _show_environment(installed(here), as_json=as_json)
    return _show_status(here, "status", installed(here), as_json=as_json)


def start(model: Model = "", dry_run: DryRun = False, prefix: Prefix = "", as_json: Json = False) -> int:
    """Start one model or everything, and wait until it is healthy."""
    return _control("start", model, site(prefix, as_json=as_json), dry_run=dry_run, as_json=as_json)


def stop(model: Model = "", dry_run: DryRun = False, prefix: Prefix = "", as_json: Json = False) -> int:
    """Stop one model or everything."""
    return _control("stop", model, site(prefix, as_json=as_json), dry_run=dry_run, as_json=as_json)


def restart(model: Model = "", dry_run: DryRun = False, prefix: Prefix = "", as_json: Json = False) -> int:
    """Restart one model or everything, and wait until it is healthy."""
    return _control("restart", model, site(prefix, as_json=as_json), dry_run=dry_run, as_json=as_json)


def logs(
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]", help="One model, or gateway.", show_default=False, autocompletion=known_models
        ),
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 50,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Show the log of one model, of the gateway, or of everything."""
    from appliance.flows import operate
    from appliance.system.machine import environment

    here = site(prefix, as_json=as_json)
    command = operate.log_command(here, model, follow=follow, lines=lines)
    if follow:
        refuse_json_follow(as_json)
        os.execvpe(command.argv[0], command.argv, environment())  # noqa: S606 - its output is ours from here on
    said: list[str] = []
    here.machine.run(command, on_line=said.append)
    return finish(Result(command="logs", data={"lines": said}, text="\n".join(said)), as_json=as_json)


def _show_environment(record: "Record", *, as_json: bool) -> int:
    """Print the variables that the units hold; there is no secret among them."""
    from appliance.render.pages import launches

    found = {unit.service.name: dict(unit.launch.env) for unit in launches(record.deployment)}
    lines = [f"{name}: {key}={value}" for name, variables in found.items() for key, value in variables.items()]
    return finish(Result(command="status", data={"environment": found}, text="\n".join(lines)), as_json=as_json)


def _control(verb: str, model: str, here: "Site", *, dry_run: bool, as_json: bool) -> int:
    from appliance import verify
    from appliance.flows import operate

    if dry_run:
        lines = [shlex.join(command.argv) for command in operate.commands(here, verb, model)]
        return finish(Result(command=verb, data={"commands": lines}, text="\n".join(lines)), as_json=as_json)
    record = operate.control(here, verb, model)
    if verb != "stop" and not model:
        verify.wait(record.deployment, here.machine)
    return _show_status(here, verb, record, as_json=as_json)


def _show_status(here: "Site", command: str, record: "Record", *, as_json: bool) -> int:
    from time import monotonic

    from appliance.flows import operate

    states = operate.states(here, record)

    by_name = {service.name: service for service in record.deployment.services}
    rows = [
        {
            "name": state.name,
            "state": state.state,
            "pid": state.pid,
            "seconds": round(monotonic() - state.since) if state.since > 0 else round(-state.since),
            "engine": f"{by_name[state.name].engine} {by_name[state.name].version}"
            if state.name in by_name
            else "nginx",
            "detail": state.detail,
        }
        for state in states
    ]
    rows += [
        {"name": one.name, "state": "remote", "pid": 0, "seconds": 0, "engine": one.remote.url, "detail": ""}
        for one in record.deployment.services
        if one.remote and not one.program
    ]
    lines = [f"{'NAME':18} {'STATE':9} {'FOR':>8} {'PID':>8}  ENGINE"]
    lines += [
        f"{row['name']:18} {row['state']:9} {_duration(int(str(row['seconds']))):>8} {row['pid'] or '-':>8}  "
        f"{row['engine']}{' — ' + str(row['detail']) if row['detail'] else ''}"
        for row in rows
    ]
    data = {"runtime": record.deployment.runtime, "generation": record.generation, "services": rows}
    bad = any(state.state == "failed" for state in states) or (
        command == "status" and any(state.state == "stopped" for state in states)
    )
    code = ExitCode.UNHEALTHY if bad else ExitCode.OK
    return finish(Result(command=command, data=data, text="\n".join(lines), exit_code=code), as_json=as_json)


def _duration(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172800 else f"{seconds // 86400} d"
