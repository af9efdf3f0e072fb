"""From what people type to models of the catalog: ids, tags, families, a quantisation at the end; near names.

Without `among` it is about those that come with this version.
"""

import difflib
import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from appliance.catalog.models import Entry, Shelf, normal, shelf

QUANTISATION: Final = re.compile(
    r"(?P<name>.+?)[-:](?P<quantisation>(?:ud-)?i?q\d[a-z0-9_]*|bf16|fp16|f16|fp8|int8|int4|awq|gptq|nvfp4|mxfp4)"
)
"""A name with a quantisation behind it, as Ollama writes them: `qwen3:8b-q4_K_M`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a name stands for."""

    entries: tuple[Entry, ...]
    """In the order of the files; more than one for a family."""
    quantisation: str = ""
    """What the name asks for, as it was typed."""


def find(name: str, among: Shelf | None = None) -> Found | None:
    """Return what a name stands for; None = nothing is called so."""
    known = index(among) if among else _index()
    bare = name.lower().removesuffix(":latest")
    if entries := known.get(normal(bare)):
        return Found(entries=entries)
    split = QUANTISATION.fullmatch(bare)
    if split and (entries := known.get(normal(split["name"]))):
        return Found(entries=entries, quantisation=name[split.start("quantisation") :])
    return None


def near(name: str, among: Shelf | None = None, count: int = 3) -> tuple[str, ...]:
    """Return the names that are most like it."""
    wanted, known = normal(name), names(among)
    written = {normal(one): one for one in reversed(known)}
    close = difflib.get_close_matches(wanted, written, n=count, cutoff=0.7)
    inside = [one for one in written if len(wanted) > 2 and wanted in one]
    ordered = dict.fromkeys((*close, *sorted(inside, key=len)))
    return tuple(written[one] for one in ordered)[:count]


def search(word: str, among: Shelf | None = None) -> tuple[Entry, ...]:
    """Return the models that a word is part of: of a name, the family, the kind or a repository; all for ""."""
    wanted, found = normal(word), among or shelf()
    return tuple(entry for entry in found.entries if any(wanted in normal(text) for text in _words(entry)))


def names(among: Shelf | None = None) -> tuple[str, ...]:
    """Return every name, families first."""
    found = among or shelf()
    families = [name for family in found.families for name in (family.family, *family.aliases)]
    models = [name for entry in found.entries for name in (entry.id, *_tags(entry))]
    return tuple(dict.fromkeys((*families, *models)))


def _tags(entry: Entry) -> tuple[str, ...]:
    return (*((entry.ollama,) if entry.ollama else ()), *entry.aliases)


def _words(entry: Entry) -> tuple[str, ...]:
    return (entry.id, *_tags(entry), entry.family, entry.kind, *(one.hf for one in entry.variants))


@cache
def _index() -> dict[str, tuple[Entry, ...]]:
    return index(shelf())


def index(found: Shelf) -> dict[str, tuple[Entry, ...]]:
    """Return the models by name; a family's name stands for all of its models, and those of its namesakes."""
    known: dict[str, dict[str, Entry]] = {}
    for entry in found.entries:
        for name in (entry.id, *_tags(entry)):
            known.setdefault(normal(name), {})[entry.id] = entry
    for family in found.families:
        for name in (family.family, *family.aliases):
            known.setdefault(normal(name), {}).update((entry.id, entry) for entry in family.models)
    return {name: tuple(entries.values()) for name, entries in known.items()}
