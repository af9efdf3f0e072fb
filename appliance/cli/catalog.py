"""catalog list, catalog show: which engine releases there are, what each asks for, and whether it runs here.

Models of the catalog, `catalog search` and `catalog show MODEL`, are in `library`; the catalog as a whole is in
`catalogs`.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from appliance.cli import catalogs, library, providers
from appliance.cli.options import Catalog, Json, OtherHost, Prefix
from appliance.cli.site import finish, layout, site
from appliance.errors import SpecError
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.domain.host import Host
    from appliance.domain.release import Release

HEADINGS = ("engine", "version", "accelerator", "arch", "driver", "GPU code", "glibc", "Python", "way", "here")
WIDEST = 40
"""Columns for GPU code in the list."""
Runtime = Annotated[
    str, typer.Option("--runtime", help="Judge for this runtime: systemd and supervisord run no container images.")
]


def known_engines(incomplete: str) -> list[str]:
    """Return the engines that begin so, for the shells' completion."""
    from appliance.catalog import load

    rows = load(state=layout("").state).releases
    return sorted({row.engine for row in rows if row.engine.startswith(incomplete)})


Engine = Annotated[
    str, typer.Option("--engine", metavar="NAME", help="Of this engine only.", autocompletion=known_engines)
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Show the engines and the models that can be chosen from.")
    noun.command("list")(list_releases)
    noun.command("search")(library.search)
    noun.command("providers")(providers.list_providers)
    noun.command()(show)
    noun.command()(catalogs.update)
    noun.command()(catalogs.export)
    app.add_typer(noun, name="catalog")


def list_releases(
    engine: Engine = "",
    runtime: Runtime = "systemd",
    host: OtherHost = "",
    catalog: Catalog = None,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """List the releases in the order of preference, and whether each runs here."""
    rows = _rows(catalog, engine, prefix)
    judged = _judge(rows, machine(host, prefix, as_json=as_json), runtime)
    text = "\n".join(table([HEADINGS, *(_cells(row, here or "yes") for row, here in zip(rows, judged, strict=True))]))
    return finish(Result(command="catalog list", data=_data(rows, judged), text=text), as_json=as_json)


def show(
    name: Annotated[str, typer.Argument(metavar="[ENGINE|MODEL]", autocompletion=known_engines)] = "",
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="Of an engine.")] = "",
    runtime: Runtime = "systemd",
    host: OtherHost = "",
    catalog: Catalog = None,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """Show all about an engine's releases or a model, and what fits here; without a name, which catalog this is."""
    if not name:
        return catalogs.show(catalog, prefix, as_json=as_json)
    if not version and not _is_engine(name, catalog, prefix):
        return library.show_model(name, host, catalog, prefix, as_json=as_json)
    rows = _rows(catalog, name, prefix)
    versions = dict.fromkeys(row.version for row in rows)
    rows = [row for row in rows if version in ("", row.version)]
    if not rows:
        raise SpecError(f"the catalog holds no {name} {version}", hint=f"versions: {', '.join(versions)}")
    judged = _judge(rows, machine(host, prefix, as_json=as_json), runtime)
    text = "\n\n".join(_page(row, here or "yes") for row, here in zip(rows, judged, strict=True))
    return finish(Result(command="catalog show", data=_data(rows, judged), text=text), as_json=as_json)


def _is_engine(name: str, path: str | None, prefix: str) -> bool:
    from appliance.catalog import load

    return any(row.engine == name for row in load(path, state=layout(prefix).state).releases)


def _rows(path: str | None, engine: str, prefix: str) -> list["Release"]:
    """Return the releases of an engine, of all for "". Raises SpecError with near names."""
    from appliance.catalog import load

    releases = load(path, state=layout(prefix).state).releases
    names = list(dict.fromkeys(row.engine for row in releases))
    if engine and engine not in names:
        near = difflib.get_close_matches(engine, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"engines: {', '.join(names)}"
        raise SpecError(f"the catalog holds no engine {engine!r}", hint=hint)
    return [row for row in releases if engine in ("", row.engine)]


def machine(path: str, prefix: str, *, as_json: bool) -> "Host":
    """Return the machine that a file describes, or this one for ""."""
    from appliance.detect import detect
    from appliance.flows import documents

    here = site(prefix, as_json=as_json)
    return documents.read_host(path) if path else detect(here.machine, state=here.layout.state)


def _judge(rows: Sequence["Release"], host: "Host", runtime: str) -> list[str]:
    """Return why each does not run there, "" for those that do."""
    from appliance.plan.fitness import fit

    return [fit(row, host, runtime=runtime).why for row in rows]


def _cells(row: "Release", here: str) -> tuple[str, ...]:
    return (
        row.engine,
        row.version,
        row.accelerator,
        " ".join(row.arch),
        row.driver or "-",
        _short(row) or "-",
        row.glibc or "-",
        _python(row) or "-",
        " ".join(dict.fromkeys(one.kind for one in row.artifacts)) or "built in",
        here,
    )


def _short(row: "Release") -> str:
    """Name the first and the last where there are many: `show` has them all."""
    codes = _codes(row)
    return codes if len(codes) <= WIDEST else f"{row.capabilities[0]} … {row.capabilities[-1]}"


def _codes(row: "Release") -> str:
    portable = f"PTX {' '.join(row.portable)}" if row.portable else ""
    return ", ".join(filter(None, (" ".join(row.capabilities), portable)))


def _python(row: "Release") -> str:
    low, high = row.python
    return " ".join([f">={low}"] * bool(low) + [f"<{high}"] * bool(high))


def _page(row: "Release", here: str) -> str:
    made_of = [f"{one.kind} {one.ref}" for one in row.artifacts]
    made_of += [f"  with {' '.join(one.pins)}" for one in row.artifacts if one.pins]
    made_of += [f"  from {' '.join(one.indexes)}" for one in row.artifacts if one.indexes]
    lines = {
        "machine": " ".join(row.arch),
        "driver": f">= {row.driver}" if row.driver else "",
        "GPU code": _codes(row),
        "glibc": f">= {row.glibc}" if row.glibc else "",
        "Python": _python(row),
        "torch": row.torch,
        "made of": ("\n" + " " * 14).join(made_of),
        "tells": _told(row),
        "facts from": row.source,
        "here": here,
    }
    head = f"{row.engine} {row.version} ({row.accelerator})"
    return "\n".join([head, *(f"  {name:12}{said}" for name, said in lines.items() if said)])


def _told(row: "Release") -> str:
    """Name the paths at which an engine tells how it is; from outside nobody reaches them."""
    from appliance.engines import engines

    module = engines().get(row.engine)
    paths = (getattr(module, "HEALTH", ""), getattr(module, "METRICS", ""))
    return ", ".join(filter(None, paths))


def _data(rows: Sequence["Release"], judged: Sequence[str]) -> dict[str, Any]:
    from appliance import codec

    return {
        "releases": [
            {**codec.to_data(row), "runs_here": not why, "why_not": why} for row, why in zip(rows, judged, strict=True)
        ]
    }


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Align columns by blanks: the same on a terminal, in a pipe and in a bug report."""
    lines = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines]
