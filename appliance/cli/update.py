"""update-model: the newest commit of a model's branch."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from appliance.cli.doctor import Ignore
from appliance.cli.options import DryRun, Json, Prefix
from appliance.cli.plans import preview, report
from appliance.cli.site import finish, known_models, site
from appliance.errors import UsageError
from appliance.report import Result, amount_text

if TYPE_CHECKING:
    from appliance.flows.update import Move


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("update-model")(update_model)


def update_model(
    name: Annotated[str, typer.Argument(help="The model's name.", autocompletion=known_models)] = "",
    every: Annotated[bool, typer.Option("--all", help="Every model that a hub has.")] = False,
    revision: Annotated[
        str, typer.Option(help="Branch, tag or commit; at Ollama another tag. Left out: the branch's newest.")
    ] = "",
    ignore: Ignore = None,
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Move a model to the newest commit of its branch; fetches what differs, goes back if it does not start."""
    from appliance.flows import planning, update

    if every == bool(name):
        raise UsageError("which model?" if not name else f"--all and {name} exclude each other",
                         hint="update-model NAME, or update-model --all")  # fmt: skip
    if every and revision:
        raise UsageError("--revision is for one model", hint="update-model NAME --revision REVISION")
    here = site(prefix, as_json=as_json)
    moves = update.moves(here, (name,) if name else (), revision)
    for line in _lines(moves):
        here.progress.note(line)
    data = {"moves": [_data(move) for move in moves]}
    terms = planning.Terms(ignore=tuple(ignore or ()))
    if not any(move.differs for move in moves):
        text = "\n".join([*_lines(moves), "changed=0"])
        return finish(Result(command="update-model", data={**data, "changed": 0}, text=text), as_json=as_json)
    if dry_run:
        return preview("update-model", update.preview(here, moves, terms), data, as_json=as_json)
    return report("update-model", update.update(here, moves, terms), data, as_json=as_json)


def _data(move: "Move") -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(move), "differs": move.differs}


def _lines(moves: "tuple[Move, ...]") -> list[str]:
    lines = []
    for move in moves:
        if move.old == move.new:
            lines.append(f"{move.name}: {move.old} is the newest")
        elif not move.differs:
            lines.append(f"{move.name}: {move.new} is newer than {move.old}, but none of its files differs")
        else:
            lines.append(f"{move.name}: {move.old} -> {move.new}, {amount_text(move.size)} to fetch at most")
            for sign, names in (("+", move.added), ("-", move.removed), ("~", move.changed)):
                lines += [f"  {sign} {name}" for name in names]
    return lines
