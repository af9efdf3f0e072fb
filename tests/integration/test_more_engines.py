"""FastChat and Xinference themselves, on the CPU, with the built-in model: installed from the catalog's pins.

Each takes some hundred megabytes and minutes to install, so they run only where LLM_APPLIANCE_SLOW=1 says so. The
environments are kept in LLM_APPLIANCE_VENVS where that names a directory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.catalog import catalog
from appliance.engines import engine
from appliance.system.http import call
from tests.integration.gateway_rig import gateway
from tests.integration.product import ROOT, SMOKE
from tests.integration.running import Running, running

WEIGHTS = ROOT / "appliance/smoke/safetensors"
PORT = 18650
PREPARED = {"fastchat": "bin/python", "xinference": "bin/xinference-local"}
# The machine that builds has torch's CPU build as a wheel of its own, and torchvision for CUDA only, which breaks that.
REMOVED = {"fastchat": (), "xinference": ("torchvision",)}


@pytest.fixture(scope="module", params=sorted(PREPARED))
def name(request: pytest.FixtureRequest) -> str:
    if os.environ.get("LLM_APPLIANCE_SLOW") != "1":
        pytest.skip(f"{request.param} is not installed and not run: that takes minutes; set LLM_APPLIANCE_SLOW=1")
    return str(request.param)


@pytest.fixture(scope="module")
def venv(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's environment, from what its row for the CPU says."""
    kept = os.environ.get("LLM_APPLIANCE_VENVS")
    home = (Path(kept) if kept else tmp_path_factory.mktemp("venvs")) / name
    if (home / PREPARED[name]).exists():
        return home
    row = next(one for one in catalog().releases if one.engine == name and one.accelerator == "cpu")
    artifact = next(one for one in row.artifacts if one.kind == "wheels")
    subprocess.run((sys.executable, "-m", "venv", str(home)), check=True, timeout=120)
    pip = (str(home / "bin/pip"), "--disable-pip-version-check", "-q")
    subprocess.run((*pip, "install", artifact.ref, *artifact.pins), check=True, timeout=3000)
    for package in REMOVED[name]:
        subprocess.run((*pip, "uninstall", "-y", package), check=True, timeout=120)
    return home


@pytest.fixture(scope="module")
def server(name: str, venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(name, venv / PREPARED[name], WEIGHTS, tmp_path_factory.mktemp(name), PORT) as one:
        path = engine(name).HEALTH.replace("{model}", "smoke")
        print(f"\n{name}: healthy after {one.until(path):.1f} s")
        yield one


def chat(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "smoke", "messages": [{"role": "user", "content": prompt}], "temperature": 0, **more}


def test_it_says_the_known_sentence(server: Running) -> None:
    known = SMOKE["verify"]
    status, said = server.ask("/v1/chat/completions", chat(known["prompt"], max_tokens=64))
    assert status == 200, said
    assert said["choices"][0]["message"]["content"].strip() == known["answer"]
    assert said["model"] == "smoke"


def test_it_says_it_through_nginx_too(server: Running, name: str) -> None:
    known = SMOKE["verify"]
    with gateway() as front:
        front.start()
        replica = {"name": "smoke", "address": server.service.address}
        front.models["mine"] = {
            "upstream_model": "smoke", "health": engine(name).HEALTH.replace("{model}", "smoke"), "replicas": [replica],
        }  # fmt: skip
        front.write_routes()
        front.wait_for("mine")
        body = {"model": "mine", "messages": [{"role": "user", "content": known["prompt"]}], "temperature": 0}
        for path in ("/v1/chat/completions", "/mine/v1/chat/completions"):
            said = front.post(path, body | {"max_tokens": 64}).json()
            assert said["choices"][0]["message"]["content"].strip() == known["answer"]
        streamed = front.post("/v1/chat/completions", body | {"max_tokens": 64, "stream": True}).text
        assert streamed.rstrip().endswith("data: [DONE]")


def test_the_first_healthy_answer_is_no_promise_that_is_broken(server: Running) -> None:
    """Once it is healthy the model is listed under the name that clients say."""
    status, said = server.ask("/v1/models")
    assert status == 200
    assert [one["id"] for one in said["data"]] == ["smoke"]


def test_it_streams(server: Running) -> None:
    known = SMOKE["verify"]
    answer = call(
        server.service.address, "/v1/chat/completions", payload=chat(known["prompt"], max_tokens=64, stream=True),
        timeout=120,
    )  # fmt: skip
    lines = [line[6:] for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    deltas = [choice["delta"] for line in lines[:-1] for choice in json.loads(line)["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas).strip() == known["answer"]


def test_a_long_answer_is_whole(server: Running) -> None:
    known = SMOKE["long"]
    status, said = server.ask("/v1/chat/completions", chat(known["prompt"], max_tokens=600))
    assert status == 200, said
    assert said["choices"][0]["message"]["content"].strip() == known["answer"]


def test_it_writes_nothing_outside_its_home(server: Running) -> None:
    """Where it is started nothing can be written, and HOME is all that it has."""
    assert server.process.poll() is None
    assert not [path for path in Path("/").iterdir() if path.suffix == ".log"]
