"""The status page and the counters of a real server, looked at from outside in Chromium: the built-in model answers."""

from __future__ import annotations

import json
import os

import httpx
import pytest
import yaml

from tests.integration import chromium
from tests.integration.gateway_rig import until
from tests.integration.lab import Server
from tests.integration.test_keys import ANSWER, PROMPT, made
from tests.integration.typed import reply


def test_a_person_looks_at_a_server_and_asks_its_model(appliance: Server) -> None:
    reason = chromium.missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    chromium.require()
    ann, ops = made(appliance, "add", "ann"), made(appliance, "add", "ops", "--metrics")
    reply(appliance, "install", "--listen", "0.0.0.0:8080")
    url = f"http://{appliance.address}:8080"
    with chromium.chromium() as page:
        page.open(url)
        page.until("!document.getElementById('key-form').hidden")
        page.ask("document.getElementById('key').focus()")
        page.write(ann)
        page.press("Enter")
        page.until("document.querySelector('.model.up h3')?.textContent === 'smoke'")
        assert page.ask("document.getElementById('rates').hidden")
        page.ask("document.getElementById('prompt').focus()")
        page.write(PROMPT)
        page.press("Enter")
        page.until("document.querySelector('.assistant .note')?.textContent.includes('tokens')")
        assert page.text(".assistant .text") == ANSWER
        page.ask("document.getElementById('key-button').click()")
        page.write(ops)
        page.press("Enter")
        page.until("!document.getElementById('rates').hidden")
        assert page.text(".model .quiet").startswith("llama-cpp")
        assert "GiB" in page.text("#devices")
        # What was refused before a key was there is all that a browser may find fault with.
        assert [text for text in page.complaints() if not text.endswith(f"{url}/gateway/page")] == []

    bearer = {"Authorization": f"Bearer {ops}"}
    [engine] = httpx.get(f"{url}/gateway/engines", headers=bearer).json()
    assert engine["labels"]["replica"] == "smoke"
    assert "llamacpp:" in httpx.get(url + engine["labels"]["__metrics_path__"], headers=bearer).text
    until(lambda: 'key="ann",model="smoke"' in httpx.get(f"{url}/metrics", headers=bearer).text, what="ann's request")
    assert "--key-file" in reply(appliance, "metrics", "install", "/root", code=2)
    reply(appliance, "metrics", "install", "/root", "--key-file", "/root/key", "--url", url)
    config = yaml.safe_load(appliance.read("/root/llm-appliance.yml"))
    assert config["scrape_configs"][0]["static_configs"] == [{"targets": [f"{appliance.address}:8080"]}]
    assert json.loads(appliance.read("/root/llm-appliance-dashboard.json"))["uid"] == "llm-appliance"

    pids = "systemctl show -p MainPID --value llm-appliance-gateway llm-appliance-model@smoke"
    before = appliance.sh(pids).stdout
    reply(appliance, "config", "set", "gateway.page", "false")
    reply(appliance, "install")
    until(lambda: httpx.get(url).status_code in (401, 404), what="no page any more")
    assert httpx.get(url, headers=bearer).status_code == 404
    assert appliance.sh(pids).stdout == before, "nothing was restarted for it"
