"""status: what runs, how it does, and why it does not."""

from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.looks import repeated, show
from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, site
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.domain.changes import Record


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    env: Annotated[bool, typer.Option("--env", help="Show the variables of each engine instead.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.2, help="Between two looks.")] = 2.0,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Show what runs and how it does; exit code 7 when something that should run does not."""
    from appliance.flows.site import installed

    here = site(prefix, as_json=as_json)
    if env:
        return _show_environment(installed(here), as_json=as_json)

    def look() -> int:
        return show(here, "status", installed(here), as_json=as_json)

    return repeated(look, interval, as_json=as_json) if watch else look()


def _show_environment(record: "Record", *, as_json: bool) -> int:
    """Print the variables that the units hold; there is no secret among them."""
    from appliance.render.pages import launches

    found = {unit.service.name: dict(unit.launch.env) for unit in launches(record.deployment)}
    text = "\n".join(f"{name}: {key}={value}" for name, pairs in found.items() for key, value in pairs.items())
    return finish(Result(command="status", data={"environment": found}, text=text), as_json=as_json)
