"""Which hub is asked when nobody says: the configured one, else the first that answers; told, and remembered."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance import codec, resources
from appliance.acquire import hub as hubs
from appliance.catalog.models.names import find
from appliance.domain.host import Host
from tests.hub.conftest import GGUF, SAFETENSORS, Here
from tests.hub.server import Hub
from tests.unit.plan.machines import machine
from tests.unit.samples import GIB, HOST

ROOMY: dict[str, Any] = {"memory": 512 * GIB, "memory_available": 500 * GIB, "glibc": "2.39"}
HOSTS = {
    "16 GB of RAM": replace(HOST, memory=16 * GIB, memory_available=15 * GIB),
    "64 GB of RAM": replace(HOST, memory=64 * GIB, memory_available=62 * GIB),
    "one T4": machine("Tesla T4", **ROOMY),
    "one H100": machine("H100", **ROOMY),
    "eight H100": machine(*["H100"] * 8, **ROOMY),
}


@pytest.fixture
def silent() -> Iterator[str]:
    """A place that takes connections and says nothing, as what is behind a firewall does."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nobody.listen(64)
        yield f"http://127.0.0.1:{nobody.getsockname()[1]}"


def told(capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().err


def test_the_one_that_answers_is_told_and_asked_first_the_next_time(
    here: Here, hub: Hub, silent: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert hubs.first("small/safe", here.access(endpoint=silent)) == "ms"
    assert f"small/safe: ms:, for {hub.url} answers; {silent} did not within 3 s; remembered" in told(capfd)
    assert hubs.first("small/gguf", here.access(endpoint=silent)) == "ms"
    assert f"small/gguf: ms:, for {hub.url} answers, as it did the last time" in told(capfd)
    # It is the same address for both here: what was remembered is an address, and Hugging Face's comes first.
    assert hubs.first("small/gguf", here.access()) == "hf"


def test_what_answered_once_and_does_not_now_is_passed_over(
    here: Here, hub: Hub, silent: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert hubs.first("a", here.access(endpoint=silent)) == "ms"
    assert hubs.first("a", here.access(modelscope=silent)) == "hf"
    assert "as it did the last time" in told(capfd)
    other = hub.url.replace("127.0.0.1", "localhost")
    assert hubs.first("a", here.access(endpoint=other, modelscope=silent)) == "hf"
    assert hubs.first("a", here.access(endpoint=silent, modelscope=hub.url)) == "ms"


def test_a_configured_address_comes_first(here: Here, hub: Hub) -> None:
    assert hubs.first("a", here.access(endpoint="", modelscope=hub.url)) == "ms"
    assert hubs.first("a", here.access(endpoint=hub.url, modelscope="")) == "hf"


def test_the_setting_overrules_what_was_remembered(here: Here, silent: str) -> None:
    assert hubs.first("a", here.access(endpoint=silent)) == "ms"
    assert hubs.first("a", here.access(source="hf")) == "hf"


def test_offline_nobody_is_asked(here: Here, hub: Hub, silent: str) -> None:
    assert hubs.first("a", here.access(offline=True, endpoint=silent)) == "hf"
    assert not hub.asked


@pytest.fixture
def qwen3(hub: Hub) -> Hub:
    """Every form of every model of the family, each with the bytes of the built-in one."""
    found = find("qwen3")
    assert found
    safe = {path.name: path for path in SAFETENSORS.iterdir()}
    for one in (variant for entry in found.entries for variant in entry.variants):
        files = {f"M-{name}.gguf": GGUF for name in one.quantisations}
        for name in filter(None, (one.hf, one.ms)):
            hub.add(
                name, {one.file.format(quantisation=q): GGUF for q in one.quantisations if one.file} or files or safe
            )
    return hub


def add(hub: Hub, host: Host, tmp_path: Path, *words: str, hf: str, ollama: str = "") -> tuple[Any, str]:
    path = tmp_path / "host.json"
    path.write_text(codec.dump_json(host))
    environment = {**os.environ, "PYTHONPATH": str(resources.data("templates").parent), "HF_ENDPOINT": hf,
                   "MODELSCOPE_DOMAIN": hub.url}  # fmt: skip
    if ollama:
        (tmp_path / "prefix/etc").mkdir(parents=True, exist_ok=True)
        (tmp_path / "prefix/etc/appliance.yaml").write_text(f"hub: {{ollama: '{ollama}'}}\n")
    argv = (sys.executable, "-m", "appliance", "add-model", "qwen3", *words, "--dry-run", "--host", str(path),
            "--prefix", str(tmp_path / "prefix"), "--json")  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["data"]["deployment"], done.stderr


@pytest.mark.parametrize("name", HOSTS)
def test_a_name_comes_from_modelscope_where_hugging_face_does_not_answer(
    qwen3: Hub, silent: str, tmp_path: Path, name: str
) -> None:
    deployment, said = add(qwen3, HOSTS[name], tmp_path, hf=silent)
    print(name, deployment["models"][0]["source"], said)
    assert deployment["models"][0]["source"].startswith("ms:")
    assert f"qwen3: ms:, for {qwen3.url} answers; {silent} did not within 3 s" in said


def test_the_hub_that_is_named_is_asked_and_no_other(qwen3: Hub, silent: str, tmp_path: Path) -> None:
    deployment, said = add(qwen3, HOSTS["one H100"], tmp_path, "--hub", "hf", hf=qwen3.url)
    assert deployment["models"][0]["source"].startswith("hf:")
    assert "answers" not in said
    digest = qwen3.push("library/qwen3:8b", {"model": GGUF, "template": b"{{ .Prompt }}"})
    deployment, _ = add(qwen3, HOSTS["one H100"], tmp_path, "qwen3:8b", "--hub", "ollama", hf=silent, ollama=qwen3.url)
    (model,) = deployment["models"]
    assert model["source"] == f"ollama:qwen3:8b@sha256:{digest}"
    assert [file["name"] for file in model["weights"]["files"]] == ["qwen3-8b.gguf", "ollama.template", "ollama.config"]
