"""Weights in the store are read again, byte for byte, when somebody asks whether they are intact."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import report
from appliance.acquire import store
from appliance.domain.deployment import Model
from appliance.domain.weights import WeightFile
from tests.unit import samples

CONTENT = {"a-1.gguf": b"one" * 1000, "a-2.gguf": b"two" * 1000}


@pytest.fixture
def kept(tmp_path: Path) -> Model:
    """A model of two files that is in the store."""
    files = tuple(
        WeightFile(name=name, path=f"/srv/{name}", size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in CONTENT.items()
    )
    model = samples.model()
    model = replace(model, weights=replace(model.weights, files=files))
    home = store.home(model, str(tmp_path))
    home.mkdir(parents=True)
    for name, content in CONTENT.items():
        (home / name).write_bytes(content)
    return model


def damaged(model: Model, state: Path) -> list[str]:
    return [path.name for path in store.damaged(model, str(state), report.progress())]


def test_what_is_whole_is_not_damaged(kept: Model, tmp_path: Path) -> None:
    assert damaged(kept, tmp_path) == []


@pytest.mark.parametrize("content", [b"one" * 999 + b"onf", b"", None], ids=["flipped", "empty", "gone"])
def test_what_is_not_is_named(kept: Model, tmp_path: Path, content: bytes | None) -> None:
    path = store.home(kept, str(tmp_path)) / "a-1.gguf"
    path.unlink() if content is None else path.write_bytes(content)
    assert damaged(kept, tmp_path) == ["a-1.gguf"]
