"""The Typer application."""

import typer

from appliance import __version__
from appliance.cli import (
    bench,
    bundle,
    catalog,
    chat,
    config,
    detect,
    doctor,
    generations,
    images,
    keys,
    metrics,
    models,
    plans,
    services,
    stat,
    status,
    store,
    support,
    tls,
    update,
    upgrade,
)
from appliance.cli.boundary import guarded
from appliance.errors import InterruptedRunError

app = typer.Typer(
    name="llm-appliance",
    help="Turn this server into an LLM appliance: engines, systemd units, nginx in front.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would double the time that --help takes
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for module in (
    plans, catalog, detect, doctor, models, update, upgrade, keys, tls, metrics, store, bundle, images, config, status,
    stat, services, chat, bench, generations, support,
):  # fmt: skip
    module.register(app)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"llm-appliance {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """Turn this server into an LLM appliance: engines, systemd units, nginx in front."""


def run() -> int:
    """Run the command line and return the exit code."""
    return guarded(_called)


def _called() -> object:
    try:
        return app(standalone_mode=False)
    except typer.Abort:
        raise InterruptedRunError("not confirmed, nothing was changed") from None
