"""README's first command on a fresh server, and what is there afterwards."""

from __future__ import annotations

from tests.integration.conftest import Quickstart
from tests.integration.lab import Server


def test_the_first_command_ends_with_a_server_that_answers(quickstart: Quickstart) -> None:
    assert quickstart.code == 0, quickstart.output
    assert "smoke answers: Hello! Your LLM appliance is up and answering." in quickstart.output


def test_it_answers_again_after_a_reboot_with_no_hand_on_it(appliance: Server) -> None:
    appliance.reboot()
    appliance.sh("for i in $(seq 100); do curl -fsS 127.0.0.1:8080/v1/models && exit; sleep 0.1; done; exit 1")
    assert "exactly the known answer" in appliance.run("llm-appliance", "verify", timeout=60).stdout
