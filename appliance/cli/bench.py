"""bench: how fast a model answers one client, and many at the same time."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, known_models, site
from appliance.errors import ExitCode, UsageError
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.flows.bench import Level

HEAD: Final = (
    f"{'CLIENTS':>7} {'REQUESTS':>8} {'ERRORS':>6} {'REQ/S':>8} {'TOK/S':>8} {'TTFT p50':>9} {'p99':>9} "
    f"{'TOKEN p50':>9} {'p99':>9}"
)
MOST: Final = 1024
"""Clients at the same time."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


def bench(
    model: Annotated[str, typer.Argument(help="The model's name.", autocompletion=known_models)],
    concurrency: Annotated[
        str,
        typer.Option("--concurrency", "-c", metavar="N,N…", help="Clients at the same time, level by level."),
    ] = "1,2,4,8",
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Of each level.")] = 10,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer at most.")] = 128,
    prompt_words: Annotated[int, typer.Option(min=1, max=1_000_000, help="Words of a question, others in each.")] = 100,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="The same question for all instead.")] = "",
    plot: Annotated[str, typer.Option(metavar="FILE.svg", help="Draw it, too.")] = "",
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Measure a model through the gateway: requests and tokens a second, time to the first token and between them."""
    from dataclasses import asdict

    from appliance.flows import bench as flow

    numbers = _numbers(concurrency)
    if plot and not plot.endswith(".svg"):
        raise UsageError(f"--plot {plot}: only SVG is drawn", hint=f"--plot {Path(plot).with_suffix('.svg')}")
    here = site(prefix, as_json=as_json)
    load = flow.Load(prompt=prompt, prompt_words=prompt_words, max_tokens=max_tokens, seconds=seconds)
    levels: list[Level] = []
    for level in flow.sweep(here, model, numbers, load):
        levels.append(level)
        here.progress.note(
            f"{level.concurrency} clients: {level.tokens_per_second:.0f} tokens/s, {level.errors} errors"
        )
    if plot:
        Path(plot).write_text(drawing(model, levels))
    code = ExitCode.OK if all(one.requests for one in levels) else ExitCode.UNHEALTHY
    data = {"model": model, "load": asdict(load), "levels": [{**asdict(one), "why": dict(one.why)} for one in levels]}
    text = "\n".join([*table(levels), *([f"drawn: {plot}"] if plot else [])])
    return finish(Result(command="bench", data=data, text=text, exit_code=code), as_json=as_json)


def table(levels: "list[Level]") -> list[str]:
    """Return a line for each level, and what the errors were."""
    said = [HEAD]
    for one in levels:
        times = (one.ttft_p50, one.ttft_p99, one.inter_token_p50, one.inter_token_p99)
        cells = " ".join(f"{_time(value):>9}" for value in times)
        said.append(
            f"{one.concurrency:>7} {one.requests:>8} {one.errors:>6} {one.requests_per_second:>8.2f} "
            f"{one.tokens_per_second:>8.1f} {cells}"
        )
    last = next((one for one in reversed(levels) if one.requests), None)
    said += [f"\nof one request: {last.prompt_tokens:g} tokens in, {last.tokens:g} out"] if last else []
    return said + [f"{count} × {why}" for one in levels for why, count in one.why[:3]]


def drawing(model: str, levels: "list[Level]") -> str:
    """Return the charts of a sweep as SVG."""
    from appliance.render.plot import Chart, Curve, svg

    def curve(name: str, field: str, scale: float = 1) -> Curve:
        found = (getattr(one, field) for one in levels)
        return Curve(name=name, values=tuple(None if value is None else value * scale for value in found))

    first = (curve("p50", "ttft_p50", 1e3), curve("p99", "ttft_p99", 1e3))
    between = (curve("p50", "inter_token_p50", 1e3), curve("p99", "inter_token_p99", 1e3))
    charts = (
        Chart(title="Tokens a second", curves=(curve("all", "tokens_per_second"),)),
        Chart(title="Requests a second", curves=(curve("all", "requests_per_second"),)),
        Chart(title="Time to the first token, ms", curves=first),
        Chart(title="Time between tokens, ms", curves=between),
    )
    return svg(f"{model}: llm-appliance bench", [one.concurrency for one in levels], charts)


def _numbers(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,4}", word) and 1 <= int(word) <= MOST for word in words):
        raise UsageError(f"--concurrency {text!r}: numbers from 1 to {MOST} are", hint="for example 1,2,4,8,16")
    return tuple(int(word) for word in words)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
