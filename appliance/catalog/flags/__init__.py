"""The flags of each engine's own program, as its parser tells them, and names that guides still use."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from appliance import codec

DIRECTORY: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag under all its names."""

    names: tuple[str, ...]
    """Without dashes, in the parser's order."""
    takes: str
    """`none`, `one`, `optional`, `many`: how many values."""
    choices: tuple[str, ...] = ()
    """All that it takes, where these are few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All flags of one release."""

    engine: str
    version: str
    flags: tuple[Flag, ...]

    def find(self, name: str) -> Flag | None:
        """Return the flag of that name."""
        return next((flag for flag in self.flags if name in flag.names), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Former:
    """What former.yaml says: name -> what takes its place, for each engine."""

    engines: dict[str, dict[str, str]]


@cache
def tables(engine: str, version: str = "") -> tuple[Table, ...]:
    """Return the table of that release, else those of all its releases that are known; () = nothing is known of it."""
    exact = DIRECTORY / f"{engine}-{version}.yaml"
    if version and exact.is_file():
        return (_read(exact),)
    found = (_read(path) for path in sorted(DIRECTORY.glob(f"{engine}-[0-9]*.yaml")))
    return tuple(table for table in found if table.engine == engine)


@cache
def former(engine: str) -> dict[str, str]:
    """Return names that its program had once -> what to do instead."""
    source = "former.yaml"
    document = codec.load_yaml(_Former, (DIRECTORY / source).read_text(), source=f"catalog flags/{source}")
    return document.engines.get(engine, {})


@cache
def _read(path: Path) -> Table:
    return codec.load_yaml(Table, path.read_text(), source=f"catalog flags/{path.name}")
