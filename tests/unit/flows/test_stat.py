"""What the gateway counts, joined with what the plan knows: slots, and how many of them work."""

from appliance.cli.services import moment
from appliance.cli.stat import _rate, lines
from appliance.flows.stat import stats
from tests.unit.samples import deployment, item


def told(**more: object) -> dict[str, object]:
    plain = {"state": "up", "in_flight": 0, "limit": None, "max_concurrency": 3, "requests": 12,
             "seconds_since_last": 95, "tokens_per_second": 41.26, "ttft": 0.0312}  # fmt: skip
    return plain | more


PLAN = deployment(item("a", parallel=4), item("b", replicas=2, parallel=2))
ANSWER = {
    "models": {
        "b": {"strategy": "lru", "queue": 5, "replicas": [
            told(name="b_1", limit=1, in_flight=1), told(name="b_2", limit=1, state="down"),
        ]},
        "a": {"strategy": "prefix", "queue": 0, "replicas": [told(name="a", in_flight=6)]},
    }
}  # fmt: skip


def test_slots_are_the_limit_or_what_the_engine_does_at_once() -> None:
    found = {one.replica: (one.slots, one.busy, one.idle, one.in_flight) for one in stats(ANSWER, PLAN)}
    assert found == {"a": (4, 4, 0, 6), "b_1": (1, 1, 0, 1), "b_2": (1, 0, 0, 0)}, "who is down is not idle"


def test_a_line_for_each_replica_by_model() -> None:
    found = stats(ANSWER, PLAN)
    head, a, b, _ = lines(found, {"a": 2.5})
    assert a.split() == "a up 4 4 0 0 12 2.5 6 3 95 s 41.3 31 ms prefix".split()
    assert b.split()[:9] == "b_1 up 1 1 0 5 12 - 1".split()
    assert len(head.split()) == len(a.split()) - 2, "two cells have a unit"


def test_a_replica_that_did_nothing_yet_has_no_numbers() -> None:
    nothing = told(name="a", requests=0, seconds_since_last=None, tokens_per_second=None, ttft=None)
    answer = {"models": {"a": {"strategy": "lru", "queue": 0, "replicas": [nothing]}}}
    assert lines(stats(answer, PLAN), {})[1].split()[-4:] == ["-", "-", "-", "lru"]


def test_a_rate_needs_two_looks_and_a_gateway_that_did_not_start_anew() -> None:
    assert _rate(None, 5) is None
    assert _rate((0.0, 9), 5) is None
    assert (_rate((0.0, 5), 5)) == 0


def test_times_of_logs_are_read() -> None:
    assert moment("2h") + 7200 - moment("1s") in (1, 2, 0)
    assert moment("2026-11-28 17:00:05") - moment("2026-11-28 17:00") == 5
    assert moment("2026-11-28T00:00") == moment("2026-11-28")
