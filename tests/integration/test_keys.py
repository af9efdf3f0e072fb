"""Keys of clients on a real server: from the first one to a server that others reach, and past an uninstallation."""

from __future__ import annotations

import json
import re

from openai import AuthenticationError, NotFoundError, OpenAI

from tests.integration import product
from tests.integration.lab import Server
from tests.integration.product import SMOKE
from tests.integration.typed import reply

PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]


def made(server: Server, *words: str) -> str:
    found = re.search(r"sk-[\w-]{20,}", reply(server, "keys", *words))
    assert found
    return found[0]


def ask(server: Server, key: str, model: str = "smoke") -> str:
    client = OpenAI(base_url=f"http://{server.address}:8080/v1", api_key=key, max_retries=2)
    messages = [{"role": "user", "content": PROMPT}]
    said = client.chat.completions.create(model=model, messages=messages, temperature=0)  # type: ignore[arg-type]
    return str(said.choices[0].message.content)


def refused(server: Server, key: str, model: str = "smoke") -> bool:
    try:
        ask(server, key, model)
    except (AuthenticationError, NotFoundError):
        return True
    return False


def test_a_server_that_others_reach_asks_for_keys(appliance: Server) -> None:
    said = reply(appliance, "install", "--listen", "0.0.0.0:8080", code=3)
    assert "keys add" in said, "the way out is named"
    reply(appliance, "add-model", "echo", "--engine", "dummy", "--set", "text=Echo!")
    ann = made(appliance, "add", "ann")
    narrow = made(appliance, "add", "bob", "--models", "echo")
    reply(appliance, "install", "--listen", "0.0.0.0:8080")
    assert ask(appliance, ann) == ANSWER
    assert ask(appliance, narrow, "echo") == "Echo!"
    assert refused(appliance, narrow), "a model that a key may not use is not there for it"
    assert refused(appliance, "sk-wrong")
    reply(appliance, "verify")

    pids = "systemctl show -p MainPID --value llm-appliance-gateway llm-appliance-model@smoke"
    before = appliance.sh(pids).stdout
    newer = made(appliance, "rotate", "ann")
    appliance.sh("sleep 2")
    assert ask(appliance, newer) == ANSWER
    assert ask(appliance, ann) == ANSWER, "the old one is valid for a while"
    reply(appliance, "keys", "revoke", "bob")
    appliance.sh("sleep 2")
    assert refused(appliance, narrow, "echo")
    assert appliance.sh(pids).stdout == before, "nothing was restarted"
    found = appliance.sh(
        "grep -rlaF -e " + newer + " /etc /var /run /opt; journalctl | grep -cF -e " + newer, check=False
    )
    assert found.stdout.split() == ["0"], "a key is shown once and kept nowhere"
    mode = appliance.run("stat", "-c", "%a %U", "/etc/llm-appliance/keys.json").stdout
    assert mode.strip() == "600 llm-gateway"

    appliance.reboot()
    appliance.run("llm-appliance", "verify", timeout=120)
    assert ask(appliance, newer) == ANSWER

    said = reply(appliance, "uninstall")
    assert "left behind: /etc/llm-appliance/keys.json" in said
    product.seed(appliance)
    process = product.install(appliance, "--listen", "0.0.0.0:8080")
    assert process.wait(timeout=300) == 0, process.output
    assert ask(appliance, newer) == ANSWER, "who had a key has one still"
    reply(appliance, "uninstall", "--purge-keys")
    assert not appliance.exists("/etc/llm-appliance")


def test_a_broken_key_file_lets_nobody_in(appliance: Server) -> None:
    key = made(appliance, "add", "ann")
    appliance.sh("echo '{' > /etc/llm-appliance/keys.json; sleep 2")
    said = appliance.run(
        "curl", "-s", f"{product.BASE}/v1/chat/completions", "-H", f"Authorization: Bearer {key}", "-d", "{}"
    ).stdout
    assert "error" in json.loads(said)
    assert "keys.json" in reply(appliance, "keys", "list", code=3)
