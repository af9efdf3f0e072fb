"""catalog update, catalog export, and catalog show without a name: the catalog as a whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from appliance.cli.options import Catalog, DryRun, Json, Offline, Prefix
from appliance.cli.site import finish, site
from appliance.errors import HostError, UsageError
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.flows.catalogs import InForce, Updated

SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def update(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="FILE, or https://…#sha256=HEX.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Go back to the catalog that comes with this version.")] = False,
    offline: Offline = False,
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Keep a newer catalog in place of the one that comes along: newer engines and models become known."""
    from appliance.flows import catalogs

    if undo == bool(source):
        raise UsageError(
            "--undo takes no FILE" if undo else "which catalog?", hint="catalog update FILE, or catalog update --undo"
        )
    if undo and dry_run:
        raise UsageError("--undo has nothing to try first", hint="catalog show says which catalog holds")
    here = site(prefix, as_json=as_json)
    done = catalogs.undo(here) if undo else catalogs.update(here, source, offline=offline, dry_run=dry_run)
    lines = [*_told(done), f"{'would be' if dry_run else 'the catalog is'} {done.now.words}"]
    lines = lines if done.changed else [f"nothing changes: the catalog is {done.now.words}"]
    return finish(Result(command="catalog update", data=_update_data(done), text="\n".join(lines)), as_json=as_json)


def export(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Write it there, not here.")] = "",
    catalog: Catalog = None,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Write the whole catalog as one YAML document, as `catalog update` reads it."""
    from appliance.catalog import document
    from appliance.flows import catalogs

    now = catalogs.in_force(site(prefix, as_json=as_json), catalog)
    text = document.yaml(now.document)
    if output:
        try:
            Path(output).write_text(text)
        except OSError as error:
            raise HostError(f"{output}: {error.strerror}") from error
    data = {**_data(now), "output": output, **({} if output else {"document": text})}
    shown = f"{output}: {now.words}" if output else text.rstrip("\n")
    return finish(Result(command="catalog export", data=data, text=shown), as_json=as_json)


def show(catalog: str | None, prefix: str, *, as_json: bool) -> int:
    """Say which catalog holds here, of which date, and how much is in it."""
    from appliance.flows import catalogs

    now = catalogs.in_force(site(prefix, as_json=as_json), catalog)
    data = _data(now)
    text = f"catalog: {now.words}\n{data['releases']} engine releases, {data['models']} models"
    return finish(Result(command="catalog show", data=data, text=text), as_json=as_json)


def _told(done: "Updated") -> list[str]:
    lines = []
    for what, sign in SIGNS.items():
        for kind, names in getattr(done.difference, what).items():
            lines += [f"{sign} {kind}: {name}" for name in names]
    return lines


def _update_data(done: "Updated") -> dict[str, Any]:
    from dataclasses import asdict

    return {**_data(done.now), "changed": done.changed, "difference": asdict(done.difference)}


def _data(now: "InForce") -> dict[str, Any]:
    return {
        "origin": "updated" if now.path else "packaged", "path": now.path, "made": now.document.made,
        "releases": len(now.document.releases), "models": len(now.document.models.entries),
    }  # fmt: skip
