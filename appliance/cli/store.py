"""pull, rm, prune: weights on the disk, and what else lies there unused."""

from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.options import DryRun, Json, Offline, Prefix
from appliance.cli.site import finish, site
from appliance.report import Result, amount_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.flows.store import Entry


def known_entries(incomplete: str) -> list[tuple[str, str]]:
    """Return what `rm` would take and begins so, for the shells' completion."""
    from appliance.flows import store

    free = [one for one in store.entries(site("")) if one.kind == store.MODEL and not one.served]
    words = [(word, amount_text(one.size)) for one in free for word in (*one.names, one.digest[:12])]
    return [(word, about) for word, about in words if word.startswith(incomplete)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(pull)
    app.command("rm")(remove)
    app.command()(prune)


def pull(
    source: Annotated[str, typer.Argument(help="hf:OWNER/REPO[@REVISION][:QUANTISATION], ms:…, https://…#sha256=HEX")],
    offline: Offline = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Download a model into the store without serving it; a second time fetches only what is missing."""
    from appliance.flows import store

    model = store.pull(site(prefix, as_json=as_json), source, offline=offline)
    weights = model.weights
    data = {
        "source": model.source, "digest": model.digest, "size": weights.size, "format": weights.format,
        "files": [{"name": file.name, "size": file.size, "sha256": file.sha256} for file in weights.files],
    }  # fmt: skip
    text = f"{model.source}\n{amount_text(weights.size)} in {len(weights.files)} files, digest {model.digest[:12]}"
    return finish(Result(command="pull", data=data, text=text), as_json=as_json)


def remove(
    what: Annotated[
        str,
        typer.Argument(metavar="DIGEST|NAME", help="As `prune --dry-run` shows it.", autocompletion=known_entries),
    ],
    dry_run: DryRun = False,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Remove one model's weights from the store; what is served stays."""
    from appliance.flows import store

    here = site(prefix, as_json=as_json)
    entry = store.choose(store.entries(here), what) if dry_run else store.remove(here, what)
    return _show("rm", [entry], dry_run=dry_run, as_json=as_json)


def prune(dry_run: DryRun = False, prefix: Prefix = "", as_json: Json = False) -> int:
    """Remove what nothing needs, now or after a rollback: weights, engines, gateways, unfinished downloads."""
    from appliance.flows import store

    here = site(prefix, as_json=as_json)
    doomed = store.unused(store.entries(here)) if dry_run else store.prune(here)
    return _show("prune", doomed, dry_run=dry_run, as_json=as_json)


def _show(command: str, gone: "Sequence[Entry]", *, dry_run: bool, as_json: bool) -> int:
    from dataclasses import asdict

    total = sum(one.size for one in gone)
    lines = [
        f"{amount_text(one.size):>10}  {one.kind:8}  {one.digest[:12] or '-':12}  {', '.join(one.names) or '-'}"
        + (f"  (a rollback to generation {', '.join(map(str, one.kept))} would need it)" if one.kept else "")
        for one in gone
    ]
    lines.append(f"{'would free' if dry_run else 'freed'} {amount_text(total)}" if gone else "nothing to remove")
    data = {"entries": [asdict(one) for one in gone], "bytes": total, "dry_run": dry_run}
    return finish(Result(command=command, data=data, text="\n".join(lines)), as_json=as_json)
