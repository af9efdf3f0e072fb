"""Processes and their services: who was started by whom, and how much RAM they hold together."""

from appliance.system import processes
from appliance.system.processes import PAGE
from tests.unit.recorded import RecordedMachine

MACHINE = RecordedMachine(
    files={
        "/proc/1/stat": b"1 (systemd) S 0 1 1",
        "/proc/10/stat": b"10 (engine) S 1 10 10",
        "/proc/11/stat": b"11 (a) worker (x) S 10 10 10",
        "/proc/12/stat": b"12 (deep) S 11 10 10",
        "/proc/20/stat": b"20 (other) S 1 20 20",
        "/proc/30/stat": b"",
        "/proc/meminfo": b"MemTotal: 1 kB",
        "/proc/10/statm": b"900 100 50 1 0 99 0",
        "/proc/12/statm": b"900 7 50 1 0 99 0",
    }
)


def test_parents_are_read_whatever_a_program_is_called() -> None:
    assert processes.parents(MACHINE) == {1: 0, 10: 1, 11: 10, 12: 11, 20: 1}


def test_what_a_service_started_belongs_to_it() -> None:
    parents = processes.parents(MACHINE)
    assert processes.owners((10, 20), parents) == {10: 10, 11: 10, 12: 10, 20: 20}
    assert processes.owners((99,), parents) == {}, "one that has ended owns nothing"


def test_a_ring_of_parents_ends() -> None:
    assert processes.owners((5,), {5: 1, 7: 8, 8: 7}) == {5: 5}


def test_memory_is_added_up_and_one_that_has_ended_counts_nothing() -> None:
    assert processes.resident(MACHINE, (10, 12, 99)) == 107 * PAGE
