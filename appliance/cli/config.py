"""config list, get, set, unset."""

from typing import Annotated

import typer

from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, site
from appliance.report import Result


def known_keys(incomplete: str) -> list[tuple[str, str]]:
    """Return the settings that begin so, for the shells' completion."""
    from appliance.flows.settings import ABOUT

    return [(key, about) for key, about in ABOUT.items() if key.startswith(incomplete)]


Key = Annotated[str, typer.Argument(metavar="KEY", help="See `config list`.", autocompletion=known_keys)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Show and change settings; they are kept in appliance.yaml.")
    noun.command("list")(list_settings)
    noun.command()(get)
    noun.command("set")(change)
    noun.command()(unset)
    app.add_typer(noun, name="config")


def list_settings(prefix: Prefix = "", as_json: Json = False) -> int:
    """Show every setting, what holds, and what it is for."""
    from appliance.flows import settings

    rows = settings.values(site(prefix, as_json=as_json))
    lines = [
        f"{key:15} {_text(holds) or '-':32} {'set' if chosen else '':4} {settings.about(key)}"
        for key, (chosen, holds) in rows.items()
    ]
    data = {key: {"set": chosen, "holds": holds} for key, (chosen, holds) in rows.items()}
    return finish(Result(command="config list", data=data, text="\n".join(lines)), as_json=as_json)


def get(key: Key, prefix: Prefix = "", as_json: Json = False) -> int:
    """Print what holds for one setting."""
    from appliance.flows import settings

    chosen, holds = settings.values(site(prefix, as_json=as_json)).get(settings.known(key), (False, ""))
    data = {"key": key, "set": chosen, "holds": holds}
    return finish(Result(command="config get", data=data, text=_text(holds)), as_json=as_json)


def change(
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE")],
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Set it; nothing that runs is restarted."""
    return _change("config set", key, value, prefix, as_json=as_json)


def unset(key: Key, prefix: Prefix = "", as_json: Json = False) -> int:
    """Go back to what the environment says, or to the default."""
    return _change("config unset", key, None, prefix, as_json=as_json)


def _change(command: str, key: str, value: str | None, prefix: str, *, as_json: bool) -> int:
    from appliance.flows import settings

    here = site(prefix, as_json=as_json)
    changed = settings.change(here, key, value)
    _, holds = settings.values(here).get(key, (False, ""))
    text = f"{key} is {_text(holds) or 'not set'}{'' if changed else ', as before'}"
    return finish(Result(command=command, data={"key": key, "changed": changed, "holds": holds}, text=text),
                  as_json=as_json)  # fmt: skip


def _text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value
