"""Which engine releases exist and what they are made of: engines.yaml and its parts as data."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from appliance import codec, resources
from appliance.domain.release import Artifact, Release
from appliance.errors import SpecError

DIRECTORY = Path(__file__).parent
SCHEMA: Final = 1
"""What this version reads."""
MADE: Final = "2026-11-28"
"""Day on which the catalog of this version was last changed."""
DATE: Final = re.compile(r"\d{4}-[01]\d-[0-3]\d")
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
    made: str = ""
    """Its date, `2026-11-28`; "" = it does not say."""


def load(path: str | None = None, *, state: str = "") -> Catalog:
    """Return the engines of a file, else of the catalog that is kept below `state`, else those of this version.

    Raises SpecError, UsageError.
    """
    from appliance.catalog import document  # it reads models, too, which most verbs do without

    found = document.file(path) if path is not None else document.kept(state)
    return found.engines if found else catalog()


@cache
def catalog() -> Catalog:
    """Return the catalog that comes with this version: engines.yaml, and below engines/ the releases in its order."""
    source = "catalog engines.yaml"
    document = codec.read_yaml((DIRECTORY / "engines.yaml").read_text(), source=source)
    parts = [f"engines/{name}.yaml" for name in document.pop("parts")]
    pages = [codec.read_yaml((DIRECTORY / part).read_text(), source=f"catalog {part}") for part in parts]
    read: Catalog = codec.from_data(
        Catalog,
        {**document, "made": MADE, "releases": [row for page in pages for row in page["releases"]]},
        source=source,
    )
    for problem in problems(read):
        raise SpecError(f"{source}: {problem}")
    return read


def only(rows: Catalog, artifacts: tuple[Artifact, ...]) -> Catalog:
    """Return the catalog less what is made of anything else than these artifacts, whatever machine they are for."""
    all_ = [one for row in rows.releases for one in row.artifacts]
    # An image that no row names is the operator's own: it may run for any row of its engine.
    own = {other.name for other in artifacts if other.kind == "image" and not any(_became(one, other) for one in all_)}

    def there(one: Artifact) -> bool:
        return any(_became(one, other) for other in artifacts) or (one.kind == "image" and one.name in own)

    kept = (replace(row, artifacts=tuple(filter(there, row.artifacts))) for row in rows.releases)
    whole = zip(kept, rows.releases, strict=True)
    return replace(rows, releases=tuple(row for row, before in whole if row.artifacts or not before.artifacts))


def _became(one: Artifact, other: Artifact) -> bool:
    """Tell whether an artifact of a row is one of a plan; an image may come from a mirror there, or be built."""
    if (one.kind, one.name) != (other.kind, other.name):
        return False
    if one.kind != "image" or one.ref == other.ref:
        return one.ref == other.ref
    host, slash, rest = one.ref.partition("/")
    name = rest if slash and "." in host else one.ref
    made = (r"-" if ":" in name else ":") + r"[0-9a-f]{12}" if one.recipe else ""
    return re.fullmatch(rf"(.*/)?{re.escape(name)}{made}", other.ref) is not None


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


@cache
def recipe_digest(recipe: str) -> str:
    """Return SHA-256 over the files that an image is built from."""
    home = resources.data(f"images/{recipe}")
    digest = hashlib.sha256()
    for path in sorted(home.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(home).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def problems(read: Catalog) -> Iterator[str]:
    """Tell what the types cannot hold, with the path of what is wrong."""
    if not read.releases:
        yield "releases: there is none"
    if read.made and not DATE.fullmatch(read.made):
        yield f"made: {read.made!r} is no date like 2026-11-28"
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
        if artifact.recipe and not resources.data(f"images/{artifact.recipe}/Dockerfile").is_file():
            yield f"artifacts: there is no images/{artifact.recipe}"
