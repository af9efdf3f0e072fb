"""keys add, list, revoke, rotate."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, site
from appliance.errors import UsageError
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.keyring import Key

Name = Annotated[str, typer.Argument(metavar="NAME", help="Who has it: a person, a team, a program.")]
UNITS = {"m": 60, "h": 3600, "d": 86400}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Keys of the gateway's clients; changes hold within a second.")
    noun.command()(add)
    noun.command("list")(list_keys)
    noun.command()(revoke)
    noun.command()(rotate)
    app.add_typer(noun, name="keys")


def add(
    name: Name,
    models: Annotated[str, typer.Option(metavar="A,B", help="What it may ask for; left out, everything.")] = "",
    rpm: Annotated[int | None, typer.Option(help="Requests a minute.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens a minute, of requests and answers.")] = None,
    parallel: Annotated[int | None, typer.Option(help="Requests at the same time.")] = None,
    expires: Annotated[str, typer.Option(metavar="DATE", help="Last day that it is valid on, 2027-01-31, UTC.")] = "",
    metrics: Annotated[bool, typer.Option("--metrics", help="It may see all counters, too.")] = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Make a key. It is shown once; only its digest is kept."""
    from appliance.flows import keys
    from appliance.keyring import Key

    allowed = tuple(dict.fromkeys(word.strip() for word in models.split(",") if word.strip()))
    key = Key(
        name=name, sha256="", created=0, expires=_end_of(expires) if expires else None, models=allowed or None,
        rpm=rpm, tpm=tpm, parallel=parallel, metrics=metrics,
    )  # fmt: skip
    return _show("keys add", name, keys.add(site(prefix, as_json=as_json), key), as_json=as_json)


def list_keys(prefix: Prefix = "", as_json: Json = False) -> int:
    """Show who has keys, and what they may do; never a key itself."""
    import time

    from appliance.flows import keys

    now = int(time.time())
    rows = [_row(key, now) for key in keys.listed(site(prefix, as_json=as_json))]
    lines = [f"{'NAME':20} {'ID':8} {'CREATED':10} {'EXPIRES':16} {'RPM':>8} {'TPM':>10} {'PARALLEL':>8}  MODELS"]
    for row in rows:
        limits = [str(row[word] or "-") for word in ("rpm", "tpm", "parallel")]
        models = ", ".join(row["models"]) if isinstance(row["models"], tuple) else "all"
        lines.append(
            f"{row['name']:20} {row['id']:8} {row['created']:10} {row['expires'] or '-':16} "
            f"{limits[0]:>8} {limits[1]:>10} {limits[2]:>8}  {models}"
        )
    text = "\n".join(lines) if rows else "no keys: whoever reaches the gateway may come in"
    return finish(Result(command="keys list", data={"keys": rows}, text=text), as_json=as_json)


def revoke(name: Name, prefix: Prefix = "", as_json: Json = False) -> int:
    """Take a key away; who has it is refused within a second."""
    from appliance.flows import keys

    keys.revoke(site(prefix, as_json=as_json), name)
    text = f"the key {name} is not valid any more"
    return finish(Result(command="keys revoke", data={"name": name}, text=text), as_json=as_json)


def rotate(
    name: Name,
    keep: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old one stays valid: 0, 30m, 24h, 7d.")
    ] = "24h",
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Make a new key for a name; the old one stays valid for a while."""
    from appliance.flows import keys

    secret = keys.rotate(site(prefix, as_json=as_json), name, _seconds(keep))
    return _show("keys rotate", name, secret, as_json=as_json)


def _show(command: str, name: str, secret: str, *, as_json: bool) -> int:
    text = f"{secret}\n\nThis is the key of {name}; it is shown this once, and kept nowhere."
    return finish(Result(command=command, data={"name": name, "key": secret}, text=text), as_json=as_json)


def _row(key: "Key", now: int) -> dict[str, object]:
    expired = key.expires is not None and key.expires <= now
    return {
        "name": key.name,
        "id": key.sha256[:8],
        "created": _day(key.created),
        "expires": f"{_day(key.expires, '%Y-%m-%d %H:%M')}" if key.expires else "",
        "expired": expired,
        "models": key.models,
        "rpm": key.rpm,
        "tpm": key.tpm,
        "parallel": key.parallel,
        "metrics": key.metrics,
    }


def _day(seconds: int, form: str = "%Y-%m-%d") -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def _end_of(day: str) -> int:
    """Return when a day is over, in seconds since 1970. Raises UsageError."""
    from datetime import UTC, datetime, timedelta

    try:
        begin = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
        return int((begin + timedelta(days=1)).timestamp())
    except (ValueError, OverflowError):
        raise UsageError(f"--expires {day!r} is no day", hint="for example 2027-01-31") from None


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,5})([mhd]?)", text)
    if not found or (not found[2] and found[1] != "0"):
        raise UsageError(f"--keep {text!r} is no time", hint="for example 0, 30m, 24h, 7d")
    return int(found[1]) * UNITS.get(found[2], 1)
