"""Which engine releases exist and what they are made of: engines.yaml and its parts as data."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from appliance import codec
from appliance.domain.deployment import Artifact, Release
from appliance.errors import SpecError, UsageError

DIRECTORY = Path(__file__).parent
SCHEMA: Final = 1
"""What this version reads."""
KINDS: Final = ("build", "wheels", "image", "program")
VERSION: Final = re.compile(r"(\d+(\.\d+)*)?")
CODE: Final = re.compile(r"\d+\.\da?")
"""How CUDA's capabilities are written: `12.0`, or `12.0a` for code that runs on exactly that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything that the appliance knows how to get."""

    schema: int
    releases: tuple[Release, ...]
    """In the order of preference."""
    gateway_packages: tuple[str, ...]
    """Distribution packages that the gateway is unpacked from."""
    toolchain_packages: tuple[str, ...]
    """Distribution packages that a compiler is unpacked from where the machine has none."""


def load(path: str | None = None) -> Catalog:
    """Return the catalog in a file, or the one that comes with this version. Raises SpecError, UsageError."""
    if path is None:
        return catalog()
    try:
        text = Path(path).read_text()
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="--catalog takes the path of a catalog file") from error
    return _read(codec.read_yaml(text, source=path), source=path)


@cache
def catalog() -> Catalog:
    """Return the catalog that comes with this version: engines.yaml, and below engines/ the releases in its order."""
    source = "catalog engines.yaml"
    document = codec.read_yaml((DIRECTORY / "engines.yaml").read_text(), source=source)
    parts = [f"engines/{name}.yaml" for name in document.pop("parts")]
    pages = [codec.read_yaml((DIRECTORY / part).read_text(), source=f"catalog {part}") for part in parts]
    return _read({**document, "releases": [row for page in pages for row in page["releases"]]}, source=source)


def only(rows: Catalog, artifacts: tuple[Artifact, ...]) -> Catalog:
    """Return the catalog less what is made of anything else than these artifacts, whatever machine they are for."""
    there = {(one.kind, one.name, one.ref) for one in artifacts}
    kept = (
        replace(row, artifacts=tuple(one for one in row.artifacts if (one.kind, one.name, one.ref) in there))
        for row in rows.releases
    )
    whole = zip(kept, rows.releases, strict=True)
    return replace(rows, releases=tuple(row for row, before in whole if row.artifacts or not before.artifacts))


@cache
def requirements(artifact: Artifact) -> str:
    """Return the pinned, hashed requirements of a Python environment; "" where none come with this version."""
    path = lock(artifact)
    return path.read_text() if path else ""


def lock(artifact: Artifact) -> Path | None:
    """Return the file of an environment's requirements; one that takes other indexes has none."""
    if artifact.kind != "wheels" or artifact.indexes:
        return None
    name, _, version = artifact.ref.partition("==")
    path = DIRECTORY / "requirements" / f"{name.partition('[')[0]}-{version}.txt"
    return path if version and path.is_file() else None


def _read(document: dict[str, Any], *, source: str) -> Catalog:
    schema = document.get("schema")
    if schema != SCHEMA:
        hint = "bring llm-appliance up to date" if isinstance(schema, int) and schema > SCHEMA else ""
        raise SpecError(f"{source}: schema: {schema!r}; this version reads schema {SCHEMA}", hint=hint)
    read = codec.from_data(Catalog, document, source=source)
    for problem in _problems(read):
        raise SpecError(f"{source}: {problem}")
    return read


def _problems(read: Catalog) -> Iterator[str]:
    """What the types cannot hold: with the path of what is wrong."""
    if not read.releases:
        yield "releases: there is none"
    seen: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(read.releases):
        where = f"releases.{number} ({row.engine} {row.version} {row.accelerator})"
        yield from (f"{where}: {problem}" for problem in _row_problems(row))
        for arch in row.arch:
            kinds = {one.kind for one in row.artifacts}
            # One release may be there as several images, one for each kind of GPU.
            made_of = {one.ref for one in row.artifacts} if kinds == {"image"} else kinds
            key = (row.engine, row.version, row.accelerator, arch, *sorted(made_of))
            if key in seen:
                yield f"{where}: the same as releases.{seen[key]}"
            seen[key] = number


def _row_problems(row: Release) -> Iterator[str]:
    if not (row.engine and row.version and row.api and row.arch):
        yield "engine, version, accelerator and arch must be said"
    for name, text in (
        ("driver", row.driver),
        ("glibc", row.glibc),
        ("python", row.python[0]),
        ("python", row.python[1]),
    ):
        if not VERSION.fullmatch(text):
            yield f"{name}: {text!r} is not a version"
    for code in (*row.capabilities, *row.portable):
        if row.api == "cuda" and not CODE.fullmatch(code):
            yield f"capabilities: {code!r} is none"
    for artifact in row.artifacts:
        if artifact.kind not in KINDS:
            yield f"artifacts: kind {artifact.kind!r} is none of {', '.join(KINDS)}"
        if not artifact.ref:
            yield f"artifacts: {artifact.name} says nothing to ask for"
