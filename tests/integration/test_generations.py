"""What was in force can be looked at and brought back on a real server, and nothing that stays is disturbed."""

from __future__ import annotations

import json

from tests.integration import product
from tests.integration.lab import Server
from tests.integration.product import SMOKE
from tests.integration.typed import reply

PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]


def pid(server: Server, unit: str) -> str:
    return server.run("systemctl", "show", "-p", "MainPID", "--value", unit).stdout.strip()


def models(server: Server) -> set[str]:
    said = server.run("curl", "-fsS", f"{product.BASE}/v1/models").stdout
    return {one["id"] for one in json.loads(said)["data"]}


def test_a_rollback_leads_back_and_a_second_one_forward_again(appliance: Server) -> None:
    before = [pid(appliance, unit) for unit in ("llm-appliance-gateway", "llm-appliance-model@smoke")]
    reply(appliance, "add-model", "echo", "--engine", "dummy", "--set", "text=Echo!")
    assert models(appliance) == {"smoke", "echo"}

    assert "models.d/echo.yaml" in reply(appliance, "rollback", "--dry-run")
    assert models(appliance) == {"smoke", "echo"}, "a preview changes nothing"
    assert "smoke answers" in reply(appliance, "rollback")
    assert models(appliance) == {"smoke"}
    assert not appliance.exists("/etc/llm-appliance/models.d/echo.yaml"), "the operator's own files go back, too"
    assert "changed=0" in reply(appliance, "install")

    assert "echo answers: Echo!" in reply(appliance, "rollback")
    assert models(appliance) == {"smoke", "echo"}
    assert product.chat(appliance, PROMPT) == ANSWER
    assert [pid(appliance, unit) for unit in ("llm-appliance-gateway", "llm-appliance-model@smoke")] == before

    listed = reply(appliance, "generations", "list")
    assert listed.count("in force") == 1
    assert "models.d/echo.yaml" in reply(appliance, "generations", "diff", "1", "2")
    assert reply(appliance, "generations", "diff", "1", "3").strip() == "", "back is byte for byte what it was"


def test_an_edit_that_was_wrong_is_taken_back(appliance: Server) -> None:
    reply(appliance, "add-model", "echo", "--engine", "dummy", "--set", "text=One.")
    appliance.sh("sed -i s/One/Two/ /etc/llm-appliance/models.d/echo.yaml")
    reply(appliance, "install")
    assert product.chat(appliance, "?", model="echo") == "Two."
    reply(appliance, "rollback")
    assert product.chat(appliance, "?", model="echo") == "One."
    assert "One." in appliance.read("/etc/llm-appliance/models.d/echo.yaml")


def test_where_nothing_was_before_there_is_no_way_back(appliance: Server) -> None:
    assert "there is none before this one" in reply(appliance, "rollback", code=3)
    assert "there is no generation 9" in reply(appliance, "rollback", "9", code=3)
    assert "there is no generation 9" in reply(appliance, "generations", "diff", "9", code=3)
    assert product.chat(appliance, PROMPT) == ANSWER
