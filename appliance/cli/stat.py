"""stat: what each replica does and did."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.looks import duration, repeated
from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, known_models, site
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.flows.stat import ReplicaStat

Model = Annotated[
    str,
    typer.Argument(
        metavar="[MODEL]", help="One model; all when left out.", show_default=False, autocompletion=known_models
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(stat)


def stat(
    model: Model = "",
    interval: Annotated[
        float, typer.Option("--interval", "-i", metavar="SECONDS", min=0, help="Look again so often, until Ctrl-C.")
    ] = 0,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Show what each replica does and did: slots, requests, tokens per second, time to the first token."""
    from dataclasses import asdict

    from appliance.flows import stat as flow

    here = site(prefix, as_json=as_json)
    before: dict[str, tuple[float, int]] = {}

    def look() -> int:
        found = flow.read(here, model)
        rates = {one.replica: _rate(before.get(one.replica), one.requests) for one in found}
        before.update({one.replica: (time.monotonic(), one.requests) for one in found})
        rows = [{**asdict(one), "requests_per_second": rates[one.replica]} for one in found]
        text = "" if as_json else "\n".join(lines(found, rates))
        return finish(Result(command="stat", data={"replicas": rows}, text=text), as_json=as_json)

    return repeated(look, max(interval, 0.2), as_json=as_json) if interval else look()


def lines(found: "tuple[ReplicaStat, ...]", rates: dict[str, float | None]) -> list[str]:
    """Return the table: a line for each replica."""
    head = f"{'REPLICA':18} {'STATE':9} {'SLOTS':>5} {'BUSY':>5} {'IDLE':>5} {'QUEUE':>5} {'REQUESTS':>9} {'REQ/S':>7} "
    said = [head + f"{'NOW':>4} {'MAX':>4} {'LAST':>7} {'TOK/S':>8} {'TTFT':>8}  BALANCE"]
    for one in found:
        rate = rates.get(one.replica)
        last = "-" if one.last is None else duration(int(one.last))
        speed = "-" if one.tokens_per_second is None else f"{one.tokens_per_second:.1f}"
        first = "-" if one.ttft is None else f"{one.ttft * 1e3:.0f} ms"
        said.append(
            f"{one.replica:18} {one.state:9} {one.slots or '-':>5} {one.busy:>5} {one.idle:>5} {one.waiting:>5} "
            f"{one.requests:>9} {'-' if rate is None else f'{rate:.1f}':>7} {one.in_flight:>4} "
            f"{one.max_concurrency:>4} {last:>7} {speed:>8} {first:>8}  {one.balance}"
        )
    return said


def _rate(before: tuple[float, int] | None, requests: int) -> float | None:
    """Return requests a second since the look before; None at the first, and where the gateway counts anew."""
    if before is None or requests < before[1]:
        return None
    return round((requests - before[1]) / max(time.monotonic() - before[0], 1e-3), 2)
