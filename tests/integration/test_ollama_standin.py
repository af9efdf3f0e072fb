"""Ollama's module and the setup of its model against a stand-in, which speaks what its client library sends.

The real server is in no registry that a test could install it from; the client library is on PyPI, and what it sends is
compared with what we send wherever it can be had.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.domain.service import Setting
from tests.integration.product import ROOT
from tests.integration.running import Running, running

WEIGHTS = ROOT / "appliance/smoke/smoke.gguf"
DIGEST = f"sha256:{hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()}"
PORT = 18660
SETTING = Setting(context=2048, parallel=3)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "ollama"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/integration/ollama_standin.py "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def server(program: Path, tmp_path: Path) -> Iterator[Running]:
    with running("ollama", program, WEIGHTS, tmp_path, PORT, setting=SETTING, threads=2) as one:
        one.until("/v1/models/smoke")
        yield one


def asked(home: Path) -> list[Any]:
    return [json.loads(line) for line in (home / "models/asked.jsonl").read_text().splitlines()]


def settle(one: Running) -> None:
    """The model is listed before it is loaded, and the launcher says when all is done."""
    import time

    deadline = time.monotonic() + 20
    while "all programs run" not in one.text:
        assert time.monotonic() < deadline, one.text
        time.sleep(0.05)


def test_a_file_becomes_a_model_that_answers_under_our_name(server: Running) -> None:
    settle(server)
    status, said = server.ask("/v1/chat/completions", {"model": "smoke", "messages": []})
    assert (status, said["choices"][0]["message"]["content"]) == (200, DIGEST)
    head, upload, create, load = asked(server.home)[:4]
    assert head == ["HEAD", f"/api/blobs/{DIGEST}", None]
    assert upload == ["POST", f"/api/blobs/{DIGEST}", WEIGHTS.stat().st_size]
    parameters = {"num_ctx": 2048, "num_gpu": 0, "num_thread": 2}
    files = {"smoke.gguf": DIGEST}
    assert create == [
        "POST",
        "/api/create",
        {"model": "smoke", "stream": False, "files": files, "parameters": parameters},
    ]
    assert load == ["POST", "/api/generate", {"model": "smoke", "stream": False, "keep_alive": -1}]
    env = json.loads((server.home / "models/environment").read_text())
    assert env["OLLAMA_HOST"] == f"127.0.0.1:{PORT}"
    assert (env["OLLAMA_CONTEXT_LENGTH"], env["OLLAMA_NUM_PARALLEL"], env["OLLAMA_NO_CLOUD"]) == ("2048", "3", "1")


def test_what_came_with_it_from_the_registry_is_given_along(program: Path, tmp_path: Path) -> None:
    home = tmp_path / "stored"
    home.mkdir()
    weights = home / "small-8b.gguf"
    weights.hardlink_to(WEIGHTS)
    for name, text in {
        "template": "{{ .Prompt }}", "system": "Be brief.", "params": '{"stop": ["<|im_end|>"], "num_ctx": 999999}',
        "messages": '[{"role": "user", "content": "Hi"}]', "license": "Apache", "license-2": "MIT",
        "config": '{"model_format": "gguf", "renderer": "qwen3-coder", "parser": "qwen3-coder"}',
    }.items():  # fmt: skip
        (home / f"ollama.{name}").write_text(text)
    with running("ollama", program, weights, tmp_path, PORT, setting=SETTING, threads=2) as one:
        one.until("/v1/models/smoke")
        settle(one)
    (create,) = [body for _, path, body in asked(tmp_path / "home") if path == "/api/create"]
    assert create == {
        "model": "smoke", "stream": False, "files": {"small-8b.gguf": DIGEST},
        "template": "{{ .Prompt }}", "system": "Be brief.", "license": ["Apache", "MIT"],
        "messages": [{"role": "user", "content": "Hi"}], "renderer": "qwen3-coder", "parser": "qwen3-coder",
        # What was planned holds before what the model asks for.
        "parameters": {"stop": ["<|im_end|>"], "num_ctx": 2048, "num_gpu": 0, "num_thread": 2},
    }  # fmt: skip


def test_after_a_restart_the_file_is_not_sent_again(program: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with running("ollama", program, WEIGHTS, tmp_path, PORT, setting=SETTING) as one:
            one.until("/v1/models/smoke")
            settle(one)
    sent = [path for method, path, _ in asked(tmp_path / "home") if method == "POST" and "/blobs/" in path]
    assert sent == [f"/api/blobs/{DIGEST}"]


def test_what_it_does_not_take_ends_the_service_with_its_words(program: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"no GGUF at all")
    with pytest.raises(AssertionError):  # it ends with 1, by itself
        with running("ollama", program, other, tmp_path, PORT, setting=SETTING) as one:
            assert one.process.wait(30) == 1
            assert "ollama does not take smoke: POST /api/create: HTTP 400" in one.text
            assert "unsupported file type" in one.text


@pytest.fixture
def client() -> str:
    """A Python that has Ollama's client library."""
    own = os.environ.get("LLM_APPLIANCE_OLLAMA_PYTHON")
    if own or importlib.util.find_spec("ollama"):
        return own or sys.executable
    if os.environ.get("LLM_APPLIANCE_SLOW") != "1":
        pytest.skip("no `ollama` package here; set LLM_APPLIANCE_SLOW=1 to have it installed")
    home = Path(os.environ.get("LLM_APPLIANCE_VENVS") or "/tmp") / "ollama-client"
    subprocess.run((sys.executable, "-m", "venv", str(home)), check=True, timeout=120)
    subprocess.run((str(home / "bin/pip"), "install", "-q", "ollama==0.6.3"), check=True, timeout=600)
    return str(home / "bin/python")


CLIENT = """
import sys, ollama
client = ollama.Client(host=sys.argv[1])
digest = client.create_blob(sys.argv[2])
parameters = {"num_ctx": 2048, "num_gpu": 0, "num_thread": 2}
print(client.create(model="smoke", files={"smoke.gguf": digest}, parameters=parameters).status)
print(client.generate(model="smoke", keep_alive=-1).done)
print([one.model for one in client.list().models])
"""


def test_the_client_library_sends_what_we_send(server: Running, client: str) -> None:
    settle(server)
    ours = asked(server.home)
    done = subprocess.run(
        (client, "-c", CLIENT, f"http://{server.service.address}", str(WEIGHTS)), check=True, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["success", "True", "['smoke:latest']"]
    upload, create, generate = asked(server.home)[len(ours) :]
    assert [upload, create] == ours[1:3]
    assert {**generate[2], **ours[3][2]} == generate[2], "and empty values beside it"
