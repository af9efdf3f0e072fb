"""A hub of our own, with the built-in model in both formats; nothing of the outside is asked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import report, resources
from appliance.acquire import hub as hubs
from appliance.domain.spec import Hub as Spec
from appliance.system import transfer, web
from tests.hub.server import Hub

SAFETENSORS = resources.SMOKE / "safetensors"
GGUF = resources.SMOKE / "smoke.gguf"
NAMES = (
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "MODELSCOPE_DOMAIN",
    "MODELSCOPE_ENDPOINT",
    "MODELSCOPE_API_TOKEN",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(transfer, "PAUSE", 0.01)
    monkeypatch.setattr(transfer, "TIMEOUT", 1.0)
    defaults = web.patiently.__kwdefaults__ or {}
    monkeypatch.setattr(web.patiently, "__kwdefaults__", {**defaults, "first": 0.01})


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Two repositories: `small/safe` with safetensors and what else lies in such places, `small/gguf` with GGUF."""
    served = Hub()
    odd = tmp_path / "odd"
    odd.mkdir()
    for name in ("README.md", "pytorch_model.bin", "modeling.py", "model-fp8.gguf"):
        (odd / name).write_bytes(b"not wanted")
    safe = {path.name: path for path in SAFETENSORS.iterdir()}
    served.add(
        "small/safe", {**safe, **{name: odd / name for name in ("README.md", "pytorch_model.bin", "modeling.py")}}
    )
    served.add(
        "small/gguf",
        {"smoke-F16.gguf": GGUF, "mmproj-F16.gguf": odd / "model-fp8.gguf", "README.md": odd / "README.md"},
    )
    served.loose["smoke.gguf"] = GGUF
    yield served
    served.close()


class Here:
    """One appliance's directories, and what it asks."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.hub, self.home = hub, home
        self.cache, self.state = home / "cache", home / "state"

    def access(self, *, offline: bool = False, **spec: object) -> hubs.Access:
        told = Spec(**{"endpoint": self.hub.url, "modelscope": self.hub.url, "ollama": self.hub.url, **spec})  # type: ignore[arg-type]
        return hubs.access(
            hubs.settings(told, offline=offline),
            cache=str(self.cache),
            state=str(self.state),
            progress=report.progress(),
        )


@pytest.fixture
def here(hub: Hub, tmp_path: Path) -> Here:
    return Here(hub, tmp_path / "appliance")
