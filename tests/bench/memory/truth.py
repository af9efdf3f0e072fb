"""The rows of truth.json: what an engine said about one model under one setting, item by item."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
TRUTH: Final = HERE / "truth.json"
MODELS: Final = HERE / "models"
"""For each model what a planner may read: config.json, header.gguf (no tensor data), header.safetensors (likewise)."""

ITEMS: Final = ("weights", "kv", "state", "compute", "output")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number, in bytes; `how` names the log line or the object it was read from."""

    engine: str
    version: str
    model: str
    architecture: str
    setting: Mapping[str, Any]
    item: str
    bytes: int
    how: str
    detail: Mapping[str, Any] = field(default_factory=dict)


def save(rows: Iterable[Row], failures: Mapping[str, str], path: Path = TRUTH) -> None:
    """Write all rows, one to a line, and for what did not start the reason."""
    ordered = sorted(rows, key=lambda r: (r.engine, r.model, json.dumps(r.setting, sort_keys=True), r.item))
    lines = ",\n  ".join(json.dumps(asdict(r)) for r in ordered)
    why = json.dumps(dict(sorted(failures.items())), indent=2)
    path.write_text(f'{{"rows": [\n  {lines}\n ],\n "failures": {why}\n}}\n')


def load(path: Path = TRUTH) -> list[Row]:
    """Read the rows back."""
    return [Row(**row) for row in json.loads(path.read_text())["rows"]]


def failures(path: Path = TRUTH) -> dict[str, str]:
    """Read what did not start, and why."""
    return dict(json.loads(path.read_text())["failures"])
