"""The whole catalog as one document: engine releases and model families, to be handed on and kept in place of ours."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from appliance import codec
from appliance.catalog import SCHEMA, Catalog, catalog, problems
from appliance.catalog.models import Family, Shelf, check, named, shelf, unnamed
from appliance.catalog.models import problems as family_problems
from appliance.domain.release import Release
from appliance.errors import SpecError, UsageError

UNDO: Final = "llm-appliance catalog update --undo"


@dataclass(frozen=True, kw_only=True)
class Document:
    """Everything that can be chosen from."""

    schema: int
    releases: tuple[Release, ...]
    gateway_packages: tuple[str, ...]
    toolchain_packages: tuple[str, ...]
    made: str = ""
    families: tuple[Family, ...] = ()
    """() = those of this version."""

    @cached_property
    def engines(self) -> Catalog:
        """The part about engines."""
        return Catalog(
            schema=self.schema,
            made=self.made,
            releases=self.releases,
            gateway_packages=self.gateway_packages,
            toolchain_packages=self.toolchain_packages,
        )

    @cached_property
    def models(self) -> Shelf:
        """The part about models."""
        return Shelf(families=tuple(map(named, self.families)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What one catalog has that another has not, by kind: `engines`, `models`, `packages`."""

    added: dict[str, tuple[str, ...]]
    removed: dict[str, tuple[str, ...]]
    changed: dict[str, tuple[str, ...]]


def packaged() -> Document:
    """Return the catalog that comes with this version."""
    rows = catalog()
    return Document(
        schema=rows.schema,
        made=rows.made,
        releases=rows.releases,
        gateway_packages=rows.gateway_packages,
        toolchain_packages=rows.toolchain_packages,
        families=tuple(map(unnamed, shelf().families)),
    )


def place(state: str) -> Path:
    """Return where an updated catalog is kept."""
    return Path(state, "catalog.json")


def kept(state: str) -> Document | None:
    """Return the catalog that is kept below the state directory, None where there is none. Raises SpecError."""
    path = place(state)
    if not state or not path.exists():
        return None
    try:
        return parse(path.read_text(), source=str(path))
    except (OSError, UnicodeDecodeError, SpecError) as error:
        why = error.message.removeprefix(f"{path}: ") if isinstance(error, SpecError) else str(error)
        raise SpecError(f"the updated catalog cannot be read: {path}: {why}", hint=UNDO) from error


def file(path: str) -> Document:
    """Return the catalog in a file. Raises SpecError, UsageError."""
    try:
        text = Path(path).read_text()
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="a catalog is the path of a file here") from error
    return parse(text, source=path)


def parse(text: str, *, source: str) -> Document:
    """Read YAML, or JSON of ours, and check all of it. Raises SpecError with the path of what is wrong."""
    if source.endswith(".json"):
        found = codec.load_json(Document, text, source=source)
        _refuse_schema(found.schema, source)
    else:
        data = codec.read_yaml(text, source=source)
        _refuse_schema(data.get("schema"), source)
        found = codec.from_data(Document, data, source=source)
    for problem in problems(found.engines):
        raise SpecError(f"{source}: {problem}")
    for number, family in enumerate(found.families):
        for problem in family_problems(family):
            raise SpecError(f"{source}: families.{number} ({family.family}): {problem}")
    check(found.models, f"{source}: families")
    return found


def yaml(document: Document) -> str:
    """Write a catalog as it can be read back: what is as it would be anyway is left out."""
    data = codec.to_data(document, defaults=False)
    order = ("schema", "made", "gateway_packages", "toolchain_packages", "releases", "families")
    return codec.dump_yaml({key: data[key] for key in order if key in data})


def difference(old: Document, new: Document) -> Difference:
    """Return what changes from one catalog to the other."""
    parts = {"engines": (_rows(old), _rows(new)), "models": (_entries(old), _entries(new)),
             "packages": (_packages(old), _packages(new))}  # fmt: skip
    return Difference(
        added={name: tuple(key for key in after if key not in before) for name, (before, after) in parts.items()},
        removed={name: tuple(key for key in before if key not in after) for name, (before, after) in parts.items()},
        changed={
            name: tuple(key for key in after if key in before and before[key] != after[key])
            for name, (before, after) in parts.items()
        },
    )


def _refuse_schema(schema: object, source: str) -> None:
    if schema != SCHEMA:
        hint = "bring llm-appliance up to date" if isinstance(schema, int) and schema > SCHEMA else ""
        raise SpecError(f"{source}: schema: {schema!r}; this version reads schema {SCHEMA}", hint=hint)


def _rows(document: Document) -> dict[str, object]:
    return {
        f"{row.engine} {row.version} ({row.accelerator}, {' '.join(row.arch)}"
        + (f", {' '.join(one.ref for one in row.artifacts)})" if row.artifacts else ")"): row
        for row in document.releases
    }  # fmt: skip


def _entries(document: Document) -> dict[str, object]:
    found = document.models if document.families else shelf()
    families: dict[str, object] = {f"family {one.family}": one.aliases for one in found.families}
    return families | {entry.id: entry for entry in found.entries}


def _packages(document: Document) -> dict[str, object]:
    gateway: dict[str, object] = {f"{name} (gateway)": True for name in document.gateway_packages}
    return gateway | {f"{name} (toolchain)": True for name in document.toolchain_packages}
