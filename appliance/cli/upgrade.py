"""upgrade: newer engines and revisions, and a newer program, prepared beside what runs."""

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.doctor import Ignore
from appliance.cli.options import DryRun, Json, Offline, Prefix
from appliance.cli.plans import preview, report
from appliance.cli.site import finish, known_models, site
from appliance.errors import UsageError
from appliance.report import Result, duration_text

if TYPE_CHECKING:
    from appliance.flows.site import Site
    from appliance.flows.upgrade import Step


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(upgrade)


def upgrade(
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]", help="One model; all when left out.", show_default=False, autocompletion=known_models
        ),
    ] = "",
    engine_version: Annotated[
        str, typer.Option(metavar="VERSION", help="Of its engine, held from now on; left out, the newest that works.")
    ] = "",
    revision: Annotated[str, typer.Option(help="Another branch, tag or commit of its weights, too.")] = "",
    appliance: Annotated[
        str,
        typer.Option(
            "--appliance",
            metavar="PATH",
            help="This program instead, from a release archive or a checkout.",
        ),
    ] = "",
    ignore: Ignore = None,
    offline: Offline = False,
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Move models to a newer release of their engine; replica by replica, and back when one does not start."""
    from dataclasses import asdict

    from appliance.flows import planning
    from appliance.flows import upgrade as flow

    here = site(prefix, as_json=as_json)
    if appliance:
        if model or engine_version or revision or ignore:
            raise UsageError("models are moved after the program", hint="llm-appliance upgrade --appliance PATH")
        return _program(here, appliance, offline=offline, dry_run=dry_run, as_json=as_json)
    wanted = flow.wish(here, model, engine_version, revision)
    terms = planning.Terms(ignore=tuple(ignore or ()), offline=offline)
    planned = flow.planned(here, wanted, terms)
    steps = flow.steps(here, wanted, planned)
    for line in lines(steps):
        here.progress.note(line)
    data = {"steps": [asdict(step) for step in steps]}
    if dry_run:
        return preview("upgrade", planned, data, as_json=as_json)
    if not planned.pending:
        text = "\n".join([*lines(steps), "changed=0"])
        return finish(Result(command="upgrade", data={**data, "changed": 0}, text=text), as_json=as_json)
    return report("upgrade", flow.upgrade(here, wanted, terms), data, as_json=as_json)


def _program(here: "Site", path: str, *, offline: bool, dry_run: bool, as_json: bool) -> int:
    """Hand over to the newer program's own installer, which knows the way back."""
    from appliance.flows import program
    from appliance.flows.site import require_rights

    found = program.newer(here, path)
    argv = (*found.argv(here, offline=offline), *(("--json",) if as_json else ()))
    here.progress.note(f"llm-appliance {found.old} -> {found.version}")
    if dry_run:
        data = {"old": found.old, "new": found.version, "command": argv}
        return finish(Result(command="upgrade", data=data, text=shlex.join(argv)), as_json=as_json)
    require_rights(here)
    return os.execv("/bin/sh", ("sh", *argv))  # noqa: S606 - nothing of ours may run while it is replaced


def lines(steps: "tuple[Step, ...]") -> list[str]:
    """Return what becomes of each model, in words."""
    return [f"{step.model}: {_what(step)}" for step in steps]


def _what(step: "Step") -> str:
    way = f"{step.old} -> {step.new}" if step.old != step.new else f"{step.new}, as before"
    if not step.restarts:
        return f"{way}; it is not restarted"
    if step.gap is None and step.replicas == 1:
        return f"{way}; a second one stands in while it is replaced, no request is lost"
    if step.gap is None:
        return f"{way}; its {step.replicas} replicas change one after the other, no request is lost"
    seconds = f"about {duration_text(max(1, step.gap))}, as the last time" if step.gap else "as long as that takes"
    return f"{way}; it does not answer while it starts: {seconds}"
