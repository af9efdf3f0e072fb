"""rollback, generations list, diff and prune."""

import time
from typing import Annotated

import typer

from appliance.cli.options import DryRun, Json, Prefix
from appliance.cli.plans import preview, report
from appliance.cli.site import finish, site
from appliance.report import Result

Number = Annotated[
    int | None, typer.Argument(metavar="[N]", min=1, help="Of `generations list`; the one before this when left out.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(rollback)
    noun = typer.Typer(no_args_is_help=True, help="What was in force, and when.")
    noun.command("list")(list_generations)
    noun.command("diff")(difference)
    noun.command()(prune)
    app.add_typer(noun, name="generations")


def rollback(number: Number = None, dry_run: DryRun = False, prefix: Prefix = "", as_json: Json = False) -> int:
    """Go back to what was in force before, models and your own files included; twice leads back again."""
    from appliance.flows import generations

    here = site(prefix, as_json=as_json)
    if dry_run:
        return preview("rollback", generations.preview(here, number), as_json=as_json)
    return report("rollback", generations.back(here, number), as_json=as_json)


def list_generations(prefix: Prefix = "", as_json: Json = False) -> int:
    """List the states that a rollback can reach."""
    from appliance.flows import generations

    there = generations.kept(site(prefix, as_json=as_json))
    rows = [
        {
            "number": one.number,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.made)),
            "state": "in force" if one.current else "healthy" if one.healthy else "never healthy",
            "runtime": one.deployment.runtime,
            "models": one.models,
        }
        for one in there
    ]
    lines = [f"{'N':>4}  {'MADE':20}  {'STATE':13}  {'RUNTIME':11}  MODELS"]
    lines += [
        f"{row['number']:>4}  {row['made']:20}  {row['state']:13}  {row['runtime']:11}  {', '.join(one.models)}"
        for row, one in zip(rows, there, strict=True)
    ]
    return finish(
        Result(command="generations list", data={"generations": rows}, text="\n".join(lines)), as_json=as_json
    )


def difference(
    old: Annotated[int, typer.Argument(metavar="N", min=1)],
    new: Annotated[int | None, typer.Argument(metavar="[M]", min=1, help="The one in force when left out.")] = None,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Show what differs between two of them, file by file."""
    from appliance.flows import generations

    text = generations.difference(site(prefix, as_json=as_json), old, new)
    return finish(Result(command="generations diff", data={"diff": text}, text=text), as_json=as_json)


def prune(
    keep: Annotated[
        int, typer.Option(min=0, help="How many stay beside the one in force, the newest healthy ones.")
    ] = 2,
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Take away old generations; `llm-appliance prune` then frees the weights and engines that only they needed."""
    from appliance.flows import generations

    here = site(prefix, as_json=as_json)
    gone = generations.doomed(here, keep) if dry_run else generations.prune(here, keep)
    said = "would be removed" if dry_run else "removed"
    text = "\n".join(f"{said}: {one.number}  {', '.join(one.models)}" for one in gone) or "nothing to remove"
    data = {"removed": [one.number for one in gone]}
    return finish(Result(command="generations prune", data=data, text=text), as_json=as_json)
