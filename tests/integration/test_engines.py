"""Engines that compute with PyTorch serve the built-in model's safetensors on the CPU, through nginx, word for word.

They take 5 to 6 GB of disk each and some minutes, and run only when LLM_APPLIANCE_SLOW=1 says so.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from tests.integration import product
from tests.integration.conftest import Quickstart
from tests.integration.lab import Lab, Server
from tests.integration.product import BASE, ROOT, SMOKE
from tests.integration.typed import reply

WEIGHTS = ROOT / "appliance/smoke/safetensors"
HERE = "/srv/models/tiny"
PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
SLOW = "LLM_APPLIANCE_SLOW"

slow = pytest.mark.skipif(os.environ.get(SLOW) != "1", reason=f"takes 6 GB of disk and minutes: {SLOW}=1 runs it")


@pytest.fixture
def fresh(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """A server of its own, for what is installed there is large; it is gone afterwards."""
    assert quickstart.code == 0, quickstart.output
    with product.installed(lab, quickstart.image, "engines") as server:
        server.put(WEIGHTS, HERE)
        server.run("chmod", "-R", "a+rX", HERE)
        yield server


def streamed(server: Server, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "stream": True}
    said = server.run("curl", "-fsSN", f"{BASE}/v1/chat/completions", "-d", json.dumps(body), timeout=120).stdout
    events = [line.removeprefix("data: ") for line in said.splitlines() if line.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize(
    ("engine", "wishes"),
    [
        pytest.param("transformers", ("--dtype", "float32", "--seed", "7"), marks=slow),
        pytest.param(
            "vllm",
            ("--context", "1024", "--dtype", "float32", "--seed", "7", "--eager", "--batched-tokens", "1024"),
            marks=slow,
        ),
    ],
)
def test_safetensors_are_served_on_the_cpu_word_for_word(fresh: Server, engine: str, wishes: tuple[str, ...]) -> None:
    before = int(fresh.sh("df --output=used / | tail -1").stdout)
    began = time.monotonic()
    reply(fresh, "add-model", "tiny", HERE, "--engine", engine, *wishes)
    print(f"{engine}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"{engine}: {(int(fresh.sh('df --output=used / | tail -1').stdout) - before) >> 10} MiB of disk", flush=True)
    assert product.chat(fresh, PROMPT, model="tiny") == ANSWER
    assert product.chat(fresh, PROMPT, model="tiny", path="/tiny/v1") == ANSWER
    assert product.chat(fresh, PROMPT) == ANSWER, "the other model is still there"
    assert streamed(fresh, "tiny") == ANSWER
    assert "changed=0" in reply(fresh, "install")
    began = time.monotonic()
    fresh.run("systemctl", "restart", "llm-appliance-model@tiny", timeout=300)
    print(f"{engine}: answers {time.monotonic() - began:.0f} s after its start", flush=True)
    assert product.chat(fresh, PROMPT, model="tiny") == ANSWER
    print(fresh.sh("systemctl show -p MemoryCurrent llm-appliance-model@tiny").stdout, flush=True)


def test_options_are_refused_before_anything_is_fetched(fresh: Server) -> None:
    for wishes, said in (
        (("--engine", "transformers", "--tool-parser", "hermes"), "has no --tool-parser"),
        (("--engine", "vllm", "--set", "swap-space=4"), "is gone since 0.20"),
        (("--engine", "vllm", "--set", "max_model_len=512"), "say --context"),
        (("--engine", "vllm", "--chat-template", "/root/t.jinja"), "services see nothing below /root"),
    ):
        fresh.write("/root/t.jinja", "{{ messages }}")
        assert said in reply(fresh, "add-model", "tiny", HERE, *wishes, code=None)
    assert json.loads(fresh.run("llm-appliance", "list", "--json").stdout)["data"]["models"][0]["name"] == "smoke"
