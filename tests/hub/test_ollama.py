"""Ollama's registry as a source: planned from its manifest and a GGUF header, pinned by digest, whole in the store."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance import acquire, resources
from appliance.acquire import hub as hubs
from appliance.acquire import models
from appliance.errors import ApplianceError, ArtifactError
from appliance.weights.inspect import inspect
from tests.hub.conftest import GGUF, Here
from tests.hub.server import Hub, digest
from tests.hub.test_bring import PULL, whole

TEMPLATE = b"{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
PARAMS = json.dumps({"stop": ["<|im_end|>"], "temperature": 0.6, "num_ctx": 4096}).encode()
LAYERS: dict[str, Path | bytes] = {
    "model": GGUF, "template": TEMPLATE, "system": b"Be brief.", "params": PARAMS, "license": b"Apache", "license-2": b"MIT",
}  # fmt: skip
CONFIG = {"model_format": "gguf", "renderer": "qwen3-coder", "parser": "qwen3-coder"}


@pytest.fixture
def pushed(hub: Hub) -> str:
    return hub.push("library/small:8b", LAYERS, CONFIG)


def test_a_tag_is_planned_from_its_manifest_and_a_header(here: Here, hub: Hub, pushed: str) -> None:
    found = hubs.find("ollama:small:8b", here.access())
    assert found.source == f"ollama:small:8b@sha256:{pushed}"
    local = inspect(GGUF)
    assert (found.weights.parameters, found.weights.cache) == (local.parameters, local.cache)
    names = ["small-8b.gguf", "ollama.template", "ollama.system", "ollama.params", "ollama.license", "ollama.license-2"]
    assert [file.name for file in found.weights.files] == [*names, "ollama.config"]
    assert found.weights.files[0].url == f"{found.source}/sha256:{digest(GGUF)}/small-8b.gguf"
    assert hubs.same(found.source, "ollama:small:8b")
    assert not hubs.same(found.source, "ollama:small:4b")
    assert not hubs.same(found.source, f"ollama:small:8b@sha256:{'0' * 64}")
    assert all("v2+json" in headers.get("accept", "") for _, path, headers in hub.asked if "/manifests/" in path)


def test_only_the_beginning_of_a_large_layer_is_read(here: Here, hub: Hub, tmp_path: Path) -> None:
    large = tmp_path / "large.gguf"
    large.write_bytes(GGUF.read_bytes() + bytes(200 << 20))
    hub.push("library/large:latest", {"model": large})
    assert hubs.find("ollama:large", here.access()).source.startswith("ollama:large:latest@sha256:")
    assert 0 < hub.served["large.gguf"] < 2 << 20


def test_all_layers_come_into_the_store(here: Here, hub: Hub, pushed: str) -> None:
    wanted = models.from_hub("m", "ollama:small:8b", here.access())
    acquire.add(wanted, here.access())
    assert whole(here, wanted)
    home = Path(here.state, "store/models", wanted.digest)
    assert (home / "ollama.template").read_bytes() == TEMPLATE
    assert json.loads((home / "ollama.config").read_text())["parser"] == "qwen3-coder"
    again = models.from_hub("other", "ollama:small:8b", here.access(offline=True))
    assert again.digest == wanted.digest


def test_what_is_pinned_stays_when_the_tag_moves(here: Here, hub: Hub, pushed: str) -> None:
    pinned = hubs.find("ollama:small:8b", here.access()).source
    moved = hub.push("library/small:8b", {**LAYERS, "system": b"Be long."})
    elsewhere = Here(hub, here.home / "other")
    assert hubs.find(pinned, elsewhere.access()).source == pinned
    assert hubs.find("ollama:small:8b", elsewhere.access()).source == f"ollama:small:8b@sha256:{moved}"
    del hub.blobs[f"sha256:{pushed}"]
    third = Here(hub, here.home / "third")
    with pytest.raises(ArtifactError, match="knows no revision '8b'") as caught:
        hubs.find(pinned, third.access())
    assert caught.value.hint == "leave it out for the newest: ollama:small:8b"


def test_a_mirror_that_knows_manifests_by_tags_only(here: Here, hub: Hub, pushed: str) -> None:
    del hub.blobs[f"sha256:{pushed}"]
    assert hubs.find(f"ollama:small:8b@sha256:{pushed}", here.access()).source.endswith(pushed)


def test_a_name_with_its_owner(here: Here, hub: Hub) -> None:
    hub.push("somebody/tuned:latest", LAYERS)
    assert hubs.find("ollama:somebody/tuned", here.access()).source.startswith("ollama:somebody/tuned:latest@")


def test_a_projector_is_left_out_aloud(here: Here, hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.push("library/sees:latest", {"model": GGUF, "projector": b"GGUF of images"})
    assert [file.name for file in hubs.find("ollama:sees", here.access()).weights.files] == [
        "sees-latest.gguf", "ollama.config",
    ]  # fmt: skip
    assert "its projector for images is left out" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("source", "layers", "words"),
    [
        ("ollama:none", {}, "has nothing of that name"),
        ("ollama:cloudy", {"license": b"x"}, "holds no weights: it is served by Ollama's cloud"),
        ("ollama:tuned", {"model": GGUF, "adapter": b"x"}, "is an adapter on top of another model"),
        ("ollama:single", {"tensor": b"x"}, "is there as single tensors"),
        ("ollama:a/b/c", {}, "is no model of Ollama's registry"),
        ("ollama:", {}, "is no model of Ollama's registry"),
        ("ollama:a:b@sha256:12", {}, "is no model of Ollama's registry"),
        ("ollama:broken", {"model": b"no GGUF, but bytes enough to be told from one" * 10}, "not a GGUF file"),
    ],
)
def test_refusals_say_what_it_is(here: Here, hub: Hub, source: str, layers: dict[str, bytes], words: str) -> None:
    if layers:
        hub.push(f"library/{source.removeprefix('ollama:')}:latest", dict(layers))
    with pytest.raises(ApplianceError) as caught:
        hubs.find(source, here.access())
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "does not answer as Ollama's registry does"),
        (
            b'{"layers": [{"mediaType": "x", "digest": "md5:1", "size": 1}]}',
            "does not answer as Ollama's registry does",
        ),
        (b'{"layers": {}}', "holds no weights"),
        (b"[" * 100_000, "does not answer as Ollama's registry does"),
    ],
)
def test_a_manifest_that_is_none(here: Here, hub: Hub, body: bytes, words: str) -> None:
    hub.manifests["library/odd:latest"] = body
    with pytest.raises(ArtifactError, match=words):
        hubs.find("ollama:odd", here.access())


@pytest.mark.parametrize(
    ("status", "words"), [(401, "it is private"), (429, "too many questions"), (503, "answers 503")]
)
def test_what_the_registry_refuses(here: Here, hub: Hub, pushed: str, status: int, words: str) -> None:
    hub.fail("/manifests/", "status", times=99, status=status)
    with pytest.raises(ArtifactError, match=words):
        hubs.find("ollama:small:8b", here.access())


def test_a_registry_that_cannot_be_reached(here: Here) -> None:
    with pytest.raises(ArtifactError, match="nobody listens there") as caught:
        hubs.find("ollama:small:8b", here.access(ollama="http://127.0.0.1:9"))
    assert "config set hub.ollama" in caught.value.hint


def test_broken_and_busy_downloads_go_on(here: Here, hub: Hub, pushed: str) -> None:
    wanted = models.from_hub("m", "ollama:small:8b", here.access())
    hub.fail("/blobs/", "cut", times=1, after=1_000_000)
    hub.fail("/blobs/", "status", times=2, status=503)
    acquire.add(wanted, here.access())
    assert whole(here, wanted)


def test_wrong_bytes_are_refused(here: Here, hub: Hub, pushed: str) -> None:
    wanted = models.from_hub("m", "ollama:small:8b", here.access())
    hub.fail("/blobs/", "wrong", times=99)
    with pytest.raises(ArtifactError, match="was promised; it was thrown away"):
        acquire.add(wanted, here.access())
    assert not list(here.state.rglob("*.part"))


def bounded(hub: Hub) -> list[re.Match[str]]:
    """Return the ranges with both ends that the place behind the redirect was asked for."""
    asked = [headers.get("range", "") for _, path, headers in hub.asked if path.startswith("/blobs/")]
    return [found for one in asked if (found := re.fullmatch(r"bytes=(\d+)-(\d+)", one))]


def test_kill_in_the_middle_then_only_the_rest_comes(here: Here, hub: Hub, tmp_path: Path) -> None:
    large = tmp_path / "large.gguf"
    large.write_bytes(GGUF.read_bytes() + os.urandom(40 << 20))
    hub.push("library/large:latest", {"model": large, "template": TEMPLATE})
    hub.rate = 30 << 20
    code = PULL.replace("Hub(endpoint=url)", "Hub(ollama=url)").replace("hf:small/large", "ollama:large")
    argv = (sys.executable, "-c", code, hub.url, str(here.cache), str(here.state))
    root = str(resources.data("templates").parent)
    process = subprocess.Popen(argv, cwd=root, stderr=subprocess.DEVNULL)
    half = None
    while half is None or half.stat().st_size < 10 << 20:
        time.sleep(0.02)
        half = next((path for path in here.state.rglob("*.part") if path.stat().st_size > 1 << 20), None)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    got = half.stat().st_size
    hub.rate = 0
    time.sleep(0.2)
    before = hub.served["large.gguf"]
    hub.asked.clear()
    assert subprocess.run(argv, cwd=root, stderr=subprocess.DEVNULL, check=False).returncode == 0
    # The tag is asked for again, and so is the beginning of its file.
    header = sum(int(one[2]) - int(one[1]) + 1 for one in bounded(hub))
    assert hub.served["large.gguf"] - before == large.stat().st_size - got + header
    assert whole(here, models.from_hub("m", "ollama:large", here.access()))
