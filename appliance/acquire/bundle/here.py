"""What lies on this machine already, by digest: weights in the store, and files of what came in bundles."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from appliance import codec
from appliance.acquire.hub import keep
from appliance.bundle import tree as trees
from appliance.domain.deployment import Deployment, Model
from appliance.errors import ArtifactError, SpecError
from appliance.report import Bar

KEPT: Final = "bundles/trees"
"""Directory below the state with the trees that came from bundles: where their files can be found again."""


def known(state: Path) -> dict[str, Path]:
    """Return where on this machine files lie, by digest: weights in the store, and what came in bundles."""
    found: dict[str, Path] = {}
    for model in (*keep.stored(str(state)), *_served(state)):
        home = state / "store" / "models" / model.digest
        found |= {file.sha256: home / file.name for file in model.weights.files if (home / file.name).is_file()}
    for path in sorted((state / KEPT).glob("*/*.json")):
        home = state / path.parent.name / path.name.removesuffix(".json")
        if home.is_dir():
            tree = trees.load(path.read_bytes(), source=str(path))
            found |= {node.digest: home / node.path for node in tree.nodes if node.digest}
    return found


def _served(state: Path) -> Iterator[Model]:
    """Yield the models of every generation that is kept."""
    for path in sorted(state.glob("generations/[0-9]*/deployment.json")):
        try:
            yield from codec.load_json(Deployment, path.read_bytes(), source=str(path)).models
        except SpecError:
            continue  # of another version of ours


def take_over(path: Path, target: Path, digest: str, bar: Bar) -> None:
    """Link or copy a file of this machine whose digest must match. Raises ArtifactError."""
    from appliance.acquire.store import copied, digested

    try:
        os.link(path, target)
        found = digested(target, bar)
    except OSError:
        target.unlink(missing_ok=True)
        found = copied(str(path), target, bar)
    if found != digest:
        target.unlink(missing_ok=True)
        raise ArtifactError(
            f"{path}: its SHA-256 is {found}, the bundle builds on {digest}", hint="llm-appliance doctor"
        )
