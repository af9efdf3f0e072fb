"""The hub of these tests speaks as the real ones do: their own clients understand it."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from tests.hub.conftest import SAFETENSORS
from tests.hub.server import Hub, digest

COMMIT = "c0ffee" * 6 + "c0ff"


def test_hugging_face_s_client(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = HfApi(endpoint=hub.url).model_info("small/safe", files_metadata=True)
    assert info.sha == COMMIT
    for name in ("config.json", "model.safetensors"):
        path = hf_hub_download("small/safe", name, endpoint=hub.url, cache_dir=tmp_path / "cache")
        assert digest(Path(path)) == digest(SAFETENSORS / name)
    whole = Path(snapshot_download("small/safe", endpoint=hub.url, local_dir=tmp_path / "whole"))
    assert digest(whole / "model.safetensors") == digest(SAFETENSORS / "model.safetensors")


def test_modelscope_s_client(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_CREDENTIALS_PATH", str(tmp_path / "credentials"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    from modelscope_hub import HubApi

    api = HubApi(endpoint=hub.url)
    files = {one.path: one for one in api.list_repo_files("small/safe", "model")}
    assert files["model.safetensors"].sha256 == digest(SAFETENSORS / "model.safetensors")
    where = api.download_repo("small/safe", "model", local_dir=tmp_path / "model")
    assert digest(Path(str(where)) / "model.safetensors") == digest(SAFETENSORS / "model.safetensors")
