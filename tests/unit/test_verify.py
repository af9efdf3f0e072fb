"""What a runtime says of its services, and what it means when it says nothing at all."""

import pytest

from appliance import verify
from appliance.domain.deployment import Deployment
from appliance.errors import CommandError
from tests.unit.recorded import Answer, RecordedMachine
from tests.unit.samples import deployment, item

PLAN: Deployment = deployment(item("a"))
SHOW = ("systemctl", "show")


def shown(state: str, sub: str) -> Answer:
    units = ("llm-appliance-gateway.service", "llm-appliance-model@a.service")
    blocks = (f"Id={unit}\nActiveState=active\nSubState=running\nResult=success\nNRestarts=0\n" for unit in units[:1])
    return Answer(stdout="\n".join((*blocks, f"Id={units[1]}\nActiveState={state}\nSubState={sub}\nNRestarts=3\n")))


def test_a_runtime_that_does_not_answer_in_time_is_not_taken_for_stopped_services() -> None:
    machine = RecordedMachine(answers={SHOW: Answer(code=124, stderr="still running after 10 s")})
    with pytest.raises(CommandError, match="systemctl does not answer: still running after 10 s") as caught:
        verify.states(PLAN, machine)
    assert caught.value.hint


def test_what_fails_over_and_over_is_given_a_fresh_start() -> None:
    """Its count of restarts would make it look like a crash loop while it starts with what was missing before."""
    machine = RecordedMachine(answers={SHOW: shown("activating", "auto-restart"), ("systemctl",): Answer()})
    verify.revive(PLAN, machine)
    unit = "llm-appliance-model@a.service"
    assert [" ".join(argv[1:]) for argv in machine.ran()[1:]] == [f"reset-failed {unit}", f"restart --no-block {unit}"]


@pytest.mark.parametrize(("state", "sub"), [("active", "running"), ("inactive", "dead")])
def test_what_runs_or_was_stopped_is_left_alone(state: str, sub: str) -> None:
    machine = RecordedMachine(answers={SHOW: shown(state, sub), ("systemctl",): Answer()})
    verify.revive(PLAN, machine)
    assert len(machine.ran()) == 1
