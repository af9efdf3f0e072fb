"""catalog search, and catalog show for a model: what is known by name, and which form of it fits here."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from appliance.cli.options import Catalog, Json, OtherHost, Prefix
from appliance.cli.site import finish, layout
from appliance.errors import HostError, SpecError
from appliance.report import Result

if TYPE_CHECKING:
    from appliance.catalog.models import Entry
    from appliance.domain.host import Host
    from appliance.plan.pick import Picked

HEADINGS = ("model", "also", "kind", "parameters", "context", "licence", "fits here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What a model comes to on this machine."""

    picked: "Picked | None"
    why: str
    """Why nothing of it fits; "" = something does."""

    @property
    def short(self) -> str:
        """Return the form and its engine, or why not, for a column."""
        if self.picked is None:
            return f"no: {self.why}"
        best = self.picked.best
        form = best.choice.label.removeprefix(best.choice.entry.id).strip()
        first = best.fitted.places[0]
        whole = not 0 < first.setting.gpu_layers <= best.choice.entry.shape.layers
        place = ("GPU" if whole else "GPU and RAM") if first.gpus else "CPU"
        return f"{form}, {best.engine}, {place}"


def search(
    word: Annotated[
        str, typer.Argument(metavar="[WORD]", help="Part of a name, a family or a kind; all without.")
    ] = "",
    host: OtherHost = "",
    catalog: Catalog = None,
    prefix: Prefix = "",
    as_json: Json = False,
) -> int:
    """List the models that are known by name, and which form of each fits this machine while nothing else runs."""
    from appliance.catalog.models import load
    from appliance.catalog.models.names import near
    from appliance.catalog.models.names import search as find

    shelf = load(catalog, state=layout(prefix).state)
    entries, like = find(word, shelf), near(word, shelf)
    if not entries:
        hint = f"did you mean {', '.join(like)}?" if like else "llm-appliance catalog search lists all"
        raise SpecError(f"no model of the catalog has {word!r} in its name", hint=hint)
    judged = judge(entries, _host(host, prefix, as_json=as_json), catalog, prefix)
    rows = [HEADINGS, *(_cells(entry, here) for entry, here in zip(entries, judged, strict=True))]
    return finish(Result(command="catalog search", data=_data(entries, judged), text=_table(rows)), as_json=as_json)


def show_model(name: str, host: str, catalog: str | None, prefix: str, *, as_json: bool) -> int:
    """Show everything about the models that a name stands for. Raises SpecError with near names."""
    from appliance.catalog.models import load
    from appliance.catalog.models.names import find, names
    from appliance.engines import engines

    shelf = load(catalog, state=layout(prefix).state)
    found = find(name, shelf)
    if found is None:
        near = difflib.get_close_matches(name, [*engines(), *names(shelf)], n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "llm-appliance catalog search lists the models"
        raise SpecError(f"the catalog holds no engine and no model {name!r}", hint=hint)
    judged = judge(found.entries, _host(host, prefix, as_json=as_json), catalog, prefix)
    text = "\n\n".join(_page(entry, here) for entry, here in zip(found.entries, judged, strict=True))
    return finish(Result(command="catalog show", data=_data(found.entries, judged), text=text), as_json=as_json)


def judge(entries: Sequence["Entry"], host: "Host", path: str | None, prefix: str = "") -> list[Here]:
    """Return what each model comes to on a machine where nothing of ours runs."""
    from appliance.catalog import load
    from appliance.catalog.models.names import Found
    from appliance.domain.spec import ModelSpec
    from appliance.plan.pick import pick
    from appliance.plan.room import room

    catalog, here, judged = load(path, state=layout(prefix).state), room(host), list[Here]()
    for entry in entries:
        try:
            picked = pick(Found(entries=(entry,)), ModelSpec(name=entry.id, source=""), host, catalog, here)
            judged.append(Here(picked=picked, why=""))
        except HostError as error:
            judged.append(Here(picked=None, why=error.message.rpartition(f"{entry.id} ")[2]))
    return judged


def licence(entry: "Entry") -> str:
    """Return the licence, what is not verified of it, and whether one has to agree to it first."""
    told = entry.licence or "not known"
    doubt = "" if entry.licence_verified or not entry.licence else " (unverified)"
    return f"{told}{doubt}{', gated' if entry.gated else ''}"


def _host(path: str, prefix: str, *, as_json: bool) -> "Host":
    from appliance.cli.catalog import machine

    return machine(path, prefix, as_json=as_json)


def _cells(entry: "Entry", here: Here) -> tuple[str, ...]:
    also = entry.ollama or next(iter(entry.aliases), "") or "-"
    kind = f"{entry.kind}, vision" if entry.vision else entry.kind
    return entry.id, also, kind, _parameters(entry), str(entry.context), licence(entry), here.short


def _parameters(entry: "Entry") -> str:
    total = f"{entry.parameters:g} B"
    return f"{total}, {entry.active:g} B active" if entry.active else total


def _page(entry: "Entry", here: Here) -> str:
    gap = "\n" + " " * 16
    names = [*filter(None, (entry.ollama,)), *entry.aliases]
    forms = [
        f"{one.format} {' '.join(one.quantisations) or f'{one.bits} bits'}: hf:{one.hf}"
        + (f" ms:{one.ms}" if one.ms else "")
        + (" (quantisations unverified)" if one.recalled else "")
        for one in entry.variants
    ]
    flags = [
        f"{one.engine}{f' >= {one.since}' if one.since else ''}: "
        + " ".join(f"--{key} {value}".strip() for key, value in one.flags.items())
        + (" (unverified)" if one.recalled else "")
        for one in entry.options
    ]
    picked = here.picked
    fits = [picked.best.words(), *(f"or {one.words()}" for one in picked.others)] if picked else [here.short]
    lines = {
        "family": entry.family,
        "names": " ".join(names),
        "kind": f"{entry.kind}{', sees images' if entry.vision else ''}",
        "parameters": _parameters(entry),
        "context": f"{entry.context} tokens",
        "architecture": entry.architecture,
        "layers": f"{entry.shape.layers}{' (memory estimate from unverified figures)' if entry.recalled else ''}",
        "licence": licence(entry),
        "forms": gap.join(forms),
        "flags": gap.join(flags),
        "fits here": gap.join(fits),
    }
    return "\n".join([entry.id, *(f"  {name:14}{said}" for name, said in lines.items() if said)])


def _data(entries: Sequence["Entry"], judged: Sequence[Here]) -> dict[str, Any]:
    from appliance import codec

    rows = []
    for entry, here in zip(entries, judged, strict=True):
        picked = here.picked
        fits = [(one.choice, one.engine) for one in (picked.best, *picked.others)] if picked else []
        told = [{"source": one.source, "form": one.label, "engine": engine} for one, engine in fits]
        rows.append({**codec.to_data(entry), "fits_here": told, "why_not": here.why})
    return {"models": rows}


def _table(rows: Sequence[Sequence[str]]) -> str:
    from appliance.cli.catalog import table

    return "\n".join(table(rows))
