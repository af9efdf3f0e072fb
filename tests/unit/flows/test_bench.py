"""What a sweep's samples come to, and that no two requests ask the same."""

from itertools import product
from xml.etree import ElementTree as ET

import pytest

from appliance.cli.bench import _numbers, drawing, table
from appliance.errors import UsageError
from appliance.flows.bench import Level, Load, Sample, level, percentile, question


def sample(began: float, *pieces: float, error: str = "") -> Sample:
    ended = pieces[-1] if pieces else began + 1
    return Sample(began=began, pieces=list(pieces), tokens=len(pieces), prompt_tokens=10, ended=ended, error=error)


GOOD = [sample(0, 0.5, 0.6, 0.8), sample(0, 0.25, 1.25, 2.0)]


def test_rates_are_over_the_time_from_the_first_question_to_the_last_answer() -> None:
    found = level(2, GOOD)
    assert (found.requests, found.seconds, found.requests_per_second, found.tokens_per_second) == (2, 2.0, 1.0, 3.0)
    assert (found.prompt_tokens, found.tokens) == (10, 3)


def test_times_are_to_the_first_piece_and_between_pieces_of_one_answer() -> None:
    found = level(2, GOOD)
    assert (found.ttft_p50, found.ttft_p99) == (0.25, 0.5)
    assert (found.inter_token_p50, found.inter_token_p99) == (0.2, 1.0)


def test_errors_are_counted_by_what_they_say_and_distort_no_time() -> None:
    found = level(3, [*GOOD, *[sample(0, error="busy")] * 2, sample(0, error="gone")])
    assert (found.requests, found.errors, found.why) == (2, 3, (("busy", 2), ("gone", 1)))
    assert found.ttft_p99 == 0.5
    assert "2 × busy" in table([found])


def test_where_nothing_was_answered_there_are_no_times() -> None:
    found = level(1, [sample(0, error="busy")])
    assert (found.ttft_p50, found.inter_token_p50, found.tokens_per_second) == (None, None, 0)
    assert table([found])[1].split() == ["1", "0", "1", "0.00", "0.0", "-", "-", "-", "-"]


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, share) for share in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7.0], 99) == 7
    assert percentile([], 50) is None


def test_no_two_requests_ask_the_same_unless_told_so() -> None:
    asked = {question(Load(prompt_words=20), place, turn) for place, turn in product(range(40), range(25))}
    assert len(asked) == 1000
    assert {len(text.split()) for text in asked} == {22}
    assert question(Load(prompt="Hello?"), 3, 4) == "Hello?"


@pytest.mark.parametrize("text", ["", "0", "1,,2", "a", "1025", "-1"])
def test_a_number_of_clients_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--concurrency"):
        _numbers(text)


def plain(clients: int, **more: float | None) -> Level:
    facts: dict[str, float | None] = {
        "requests_per_second": 1.5 * clients, "tokens_per_second": 99.0 * clients, "ttft_p50": 0.02, "ttft_p99": 0.4,
        "inter_token_p50": 0.01, "inter_token_p99": 0.03,
    }  # fmt: skip
    return Level(concurrency=clients, requests=9, errors=0, seconds=9.0, prompt_tokens=9, tokens=9, **facts | more)  # type: ignore[arg-type]


def test_the_drawing_is_an_svg_with_a_point_for_each_measured_value() -> None:
    levels = [plain(1), plain(2, ttft_p50=None), plain(8)]
    tree = ET.fromstring(drawing('a<b & "c"', levels))
    marks = [one for one in tree.iter() if one.tag.endswith("circle")]
    assert len(marks) == 6 * 3 - 1
    texts = {one.text for one in tree.iter() if one.tag.endswith("text")}
    assert {'a<b & "c": llm-appliance bench', "1", "2", "8", "p50", "p99"} <= texts
    height = max(float(one.get("cy") or 0) for one in marks)
    assert 0 < height < 260, "inside of its chart"


def test_one_level_or_nothing_measured_is_drawn_too() -> None:
    ET.fromstring(drawing("a", [plain(4)]))
    ET.fromstring(drawing("a", [plain(4, ttft_p50=None, ttft_p99=None, tokens_per_second=0.0)]))
