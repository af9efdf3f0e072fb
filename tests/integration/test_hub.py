"""A server without any model of ours gets one from a hub: planned, downloaded, served, and never asked for again."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import resources
from tests.hub.server import Hub
from tests.integration import product
from tests.integration.lab import Server
from tests.integration.typed import until


@pytest.fixture
def hub(appliance: Server) -> Iterator[Hub]:
    """A hub on this machine, where the servers' bridge reaches it."""
    address = appliance.run("ip", "-4", "route", "show", "default").stdout.split()[2]
    served = Hub(address, cdn=address)
    served.add("small/gguf", {"smoke-F16.gguf": resources.SMOKE / "smoke.gguf"})
    yield served
    served.close()


def test_a_model_from_a_hub_answers_through_the_gateway(appliance: Server, hub: Hub) -> None:
    known = product.chat(appliance, "Say hello.")
    appliance.run("llm-appliance", "config", "set", "hub.endpoint", hub.url)
    done = json.loads(
        appliance.run("llm-appliance", "add-model", "hubby", "hf:small/gguf", "--json", timeout=300).stdout
    )
    assert done["status"] == "ok"
    assert product.chat(appliance, "Say hello.", model="hubby") == known
    assert product.chat(appliance, "Say hello.", model="hubby", path="/hubby/v1") == known
    text = appliance.run("cat", "/etc/llm-appliance/models.d/hubby.yaml").stdout
    commit = hub.repositories["small/gguf"].commit
    assert f"source: hf:small/gguf@{commit}/smoke-F16.gguf" in text
    # The hub has gone: the same command, an install and a restart ask nobody.
    hub.close()
    for words in (("add-model", "hubby", "hf:small/gguf"), ("install",)):
        again = json.loads(appliance.run("llm-appliance", *words, "--json", timeout=300).stdout)
        assert again["data"]["changed"] == 0
    appliance.run("llm-appliance", "restart", "hubby", timeout=120)
    assert product.chat(appliance, "Say hello.", model="hubby") == known
    assert "is served as hubby" in appliance.run("llm-appliance", "rm", "hubby", check=False).stderr


def test_a_model_moves_to_a_newer_commit_and_back_when_that_does_not_start(
    appliance: Server, hub: Hub, tmp_path: Path
) -> None:
    known = product.chat(appliance, "Say hello.")
    smoke = (resources.SMOKE / "smoke.gguf").read_bytes()
    hub.add("small/moves", {"smoke-F16.gguf": resources.SMOKE / "smoke.gguf"})
    appliance.run("llm-appliance", "config", "set", "hub.endpoint", hub.url)
    appliance.run("llm-appliance", "add-model", "mover", "hf:small/moves", timeout=300)
    source = appliance.run("cat", "/etc/llm-appliance/models.d/mover.yaml").stdout
    again = json.loads(appliance.run("llm-appliance", "update-model", "mover", "--json", timeout=120).stdout)
    assert again["data"]["changed"] == 0

    newer = tmp_path / "newer.gguf"
    newer.write_bytes(smoke + bytes(4096))
    hub.add("small/moves", {"smoke-F16.gguf": newer}, commit="beef" * 10)
    done = json.loads(appliance.run("llm-appliance", "update-model", "mover", "--json", timeout=300).stdout)
    print(done["data"]["moves"])
    assert done["data"]["moves"][0]["changed"] == ["smoke-F16.gguf"]
    assert product.chat(appliance, "Say hello.", model="mover") == known
    moved = appliance.run("cat", "/etc/llm-appliance/models.d/mover.yaml").stdout
    assert "beefbeef" in moved
    assert moved != source

    # Its header is sound, its vocabulary is not: the engine finds that out, and not the plan.
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(smoke.replace(b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz"))
    hub.add("small/moves", {"smoke-F16.gguf": broken}, commit="dead" * 10)
    failed = appliance.run("llm-appliance", "update-model", "mover", check=False, timeout=300)
    print(failed.stderr[-800:])
    assert failed.code == 7
    assert appliance.run("cat", "/etc/llm-appliance/models.d/mover.yaml").stdout == moved
    until("the one before answers again", lambda: product.answers(appliance, "mover"))
    appliance.run("llm-appliance", "remove-model", "mover", timeout=120)


def test_a_tag_of_ollama_s_registry_is_served_by_llama_cpp(appliance: Server, hub: Hub) -> None:
    known = product.chat(appliance, "Say hello.")
    digest = hub.push("library/tiny:1m", {"model": resources.SMOKE / "smoke.gguf", "template": b"{{ .Prompt }}"})
    appliance.run("llm-appliance", "config", "set", "hub.ollama", hub.url)
    appliance.run("llm-appliance", "add-model", "tiny", "ollama:tiny:1m", timeout=300)
    assert product.chat(appliance, "Say hello.", model="tiny") == known
    assert f"source: ollama:tiny:1m@sha256:{digest}" in appliance.run(
        "cat", "/etc/llm-appliance/models.d/tiny.yaml"
    ).stdout  # fmt: skip
    again = json.loads(appliance.run("llm-appliance", "add-model", "tiny", "ollama:tiny:1m", "--json").stdout)
    assert again["data"]["changed"] == 0
    stored = appliance.run("sh", "-c", "cat /var/lib/llm-appliance/store/models/*/ollama.template").stdout
    assert stored == "{{ .Prompt }}"
