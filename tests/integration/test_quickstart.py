"""README's first command on a fresh server, and what is there afterwards."""

from __future__ import annotations

import pytest

from tests.integration import product
from tests.integration.conftest import Quickstart
from tests.integration.lab import Server
from tests.integration.product import BASE, SMOKE


def test_the_first_command_ends_with_a_server_that_answers(quickstart: Quickstart) -> None:
    assert quickstart.code == 0, quickstart.output
    assert "smoke answers: Hello! Your LLM appliance is up and answering." in quickstart.output


@pytest.mark.parametrize("end", ["reboot", "power cut"])
def test_all_models_answer_again_with_no_hand_on_it(appliance: Server, end: str) -> None:
    appliance.put(product.ROOT / "appliance/smoke/smoke.gguf", "/srv/models/second.gguf", mode="0644")
    appliance.run("llm-appliance", "add-model", "second", "/srv/models/second.gguf")
    if end == "reboot":
        appliance.reboot()
    else:
        appliance.kill_power()
    for model in ("smoke", "second"):
        up = f'curl -fsS {BASE}/{model}/v1/completions -d \'{{"prompt": "Hi", "max_tokens": 1}}\''
        appliance.sh(f"for i in $(seq 100); do {up} && exit; sleep 0.1; done; exit 1")
        assert product.chat(appliance, SMOKE["verify"]["prompt"], model=model) == SMOKE["verify"]["answer"]
    done = appliance.run("llm-appliance", "verify", timeout=60)
    assert "exactly the known answer" in done.stdout
    assert "changed=0" in appliance.run("llm-appliance", "install", timeout=60).stdout
