"""The smoke model that comes along, written by other people's tools: both of its forms say the same."""

from pathlib import Path

import pytest

import appliance
from appliance.weights.inspect import inspect

SMOKE = Path(appliance.__file__).parent / "smoke"


@pytest.mark.skipif(not (SMOKE / "smoke.gguf").exists(), reason=f"no smoke.gguf in {SMOKE}")
@pytest.mark.skipif(not (SMOKE / "safetensors").exists(), reason=f"no safetensors directory in {SMOKE}")
def test_both_forms_agree() -> None:
    gguf, safetensors = inspect(SMOKE / "smoke.gguf"), inspect(SMOKE / "safetensors")
    assert (gguf.format, safetensors.format) == ("gguf", "safetensors")
    same = (
        "context_length",
        "layers",
        "kv_heads",
        "head_dim",
        "chat_template",
        "heads",
        "hidden",
        "vocabulary",
        "cache",
    )
    for field in same:
        assert getattr(gguf, field) == getattr(safetensors, field), field
    assert gguf.parameters
    assert gguf.quantisation
