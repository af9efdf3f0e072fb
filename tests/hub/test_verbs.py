"""The verbs as people type them, in a process of their own, below a prefix."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import resources
from tests.hub.server import Hub

COMMIT = "c0ffee" * 6 + "c0ff"


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Any:
    """Run a verb; standard output as JSON, unless it is to fail."""
    prefix = tmp_path / "prefix"

    def call(*words: str, code: int = 0, **extra: str) -> Any:
        environment = {**os.environ, "PYTHONPATH": str(resources.data("templates").parent), "HF_ENDPOINT": hub.url,
                       "MODELSCOPE_DOMAIN": hub.url, **extra}  # fmt: skip
        argv = (sys.executable, "-m", "appliance", *words, "--prefix", str(prefix), "--json")
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    return call


def test_pull_prune_rm(run: Any, hub: Hub, tmp_path: Path) -> None:
    done = run("pull", "small/safe")["data"]
    assert done["source"] == f"hf:small/safe@{COMMIT}"
    served = sum(hub.served.values())
    assert run("pull", f"hf:small/safe@{COMMIT}")["data"]["digest"] == done["digest"]
    assert run("pull", "hf:small/safe", "--offline")["data"]["digest"] == done["digest"]
    assert sum(hub.served.values()) == served
    other = run("pull", "ms:small/gguf:F16")["data"]
    store = tmp_path / "prefix/state/store/models"
    assert {path.name for path in store.iterdir()} == {done["digest"], other["digest"]}
    assert run("rm", "hf:small/safe", "--dry-run")["data"]["bytes"] == done["size"]
    assert run("rm", "hf:small/saf", code=3)["errors"][0]["hint"].startswith("it holds ")
    assert run("rm", done["digest"][:8])["data"]["entries"][0]["names"] == [done["source"]]
    assert run("prune", "--dry-run")["data"]["bytes"] == other["size"]
    assert store.joinpath(other["digest"]).is_dir()
    assert run("prune")["data"]["bytes"] == other["size"]
    assert not list(store.iterdir())
    assert run("prune")["data"]["entries"] == []


def test_a_path_is_not_pulled(run: Any) -> None:
    assert "is no model on a hub" in run("pull", "/srv/a.gguf", code=2)["errors"][0]["message"]


def test_settings_are_kept_in_the_file(run: Any, hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "prefix/etc/appliance.yaml"
    assert run("config", "get", "hub.endpoint")["data"] == {"key": "hub.endpoint", "set": False, "holds": hub.url}
    assert run("config", "set", "hub.endpoint", "https://mirror.example/hf")["data"]["changed"]
    assert not run("config", "set", "hub.endpoint", "https://mirror.example/hf")["data"]["changed"]
    assert yaml.safe_load(path.read_text())["hub"] == {"endpoint": "https://mirror.example/hf"}
    assert run("config", "get", "hub.endpoint")["data"]["holds"] == "https://mirror.example/hf"
    assert run("config", "set", "hub.offline", "true")["data"]["holds"] is True
    assert "offline" in run("pull", "hf:small/safe", code=5)["errors"][0]["message"]
    run("config", "unset", "hub.offline")
    run("config", "unset", "hub.endpoint")
    assert "hub" not in yaml.safe_load(path.read_text())
    assert set(run("config", "list")["data"]) >= {"hub.endpoint", "hub.token-file", "hub.source", "hub.modelscope"}
    for key, value, code, words in (
        ("hub.endpont", "x", 2, "no setting is called"),
        ("hub.endpoint", "mirror", 3, "is no address"),
        ("hub.source", "github", 3, "is no hub"),
        ("hub.offline", "perhaps", 2, "neither true nor false"),
        ("hub.token-file", "/no/such/file", 4, "cannot be read"),
    ):
        assert words in run("config", "set", key, value, code=code)["errors"][0]["message"]


def test_a_token_is_nowhere_but_in_its_file(run: Any, hub: Hub, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hf_verysecret")
    assert (
        "can be read by others" in run("config", "set", "hub.token-file", str(secret), code=4)["errors"][0]["message"]
    )
    secret.chmod(0o600)
    run("config", "set", "hub.token-file", str(secret))
    hub.repositories["small/safe"].token = "hf_verysecret"
    run("pull", "hf:small/safe")
    for path in (tmp_path / "prefix").rglob("*"):
        assert path.is_dir() or b"verysecret" not in path.read_bytes(), path


def test_a_plan_is_made_before_anything_large_is_fetched(run: Any, hub: Hub, tmp_path: Path) -> None:
    gguf = resources.SMOKE / "smoke.gguf"
    large = tmp_path / "large.gguf"
    large.write_bytes(gguf.read_bytes() + bytes(60 << 20))
    hub.add("small/large", {"large.gguf": large})
    done = run("add-model", "big", "hf:small/large", "--dry-run")["data"]
    (model,) = done["deployment"]["models"]
    assert model["source"] == f"hf:small/large@{COMMIT}/large.gguf"
    assert model["weights"]["files"][0]["url"] == model["source"]
    assert "+source: hf:small/large@" in done["diff"]
    assert 0 < hub.served["large.gguf"] < 2 << 20
    assert not (tmp_path / "prefix/etc").exists()
    assert not (tmp_path / "prefix/state/store").exists()
