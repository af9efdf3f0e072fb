"""support-bundle: everything that helps to find out what is wrong, in one file, without secrets."""

import time
from typing import Annotated

import typer

from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, site
from appliance.report import Result, amount_text


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("support-bundle")(support_bundle)


def support_bundle(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where it is written.")] = "",
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Put what helps to find a fault into one file: machine, plan, units, logs; keys and passwords are taken out."""
    from dataclasses import asdict

    from appliance.flows.support import bundle

    path = output or f"llm-appliance-support-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    done = bundle.write(site(prefix, as_json=as_json), path)
    text = f"{done.path}: {len(done.files)} files, {amount_text(done.size)}, {done.redacted} places redacted"
    return finish(Result(command="support-bundle", data=asdict(done), text=text), as_json=as_json)
