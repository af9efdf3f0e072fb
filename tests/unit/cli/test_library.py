"""`catalog search` and `catalog show` of models, and that no other verb pays for them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance import codec
from appliance.catalog.models import shelf
from appliance.cli import models
from appliance.cli.app import app
from appliance.errors import SpecError
from tests.unit.plan.machines import machine
from tests.unit.samples import GIB


@pytest.fixture
def h100(tmp_path: Path) -> str:
    path = tmp_path / "host.json"
    path.write_text(codec.dump_json(machine("H100", memory=256 * GIB, memory_available=250 * GIB, glibc="2.39")))
    return str(path)


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["catalog", *words], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.stdout


def test_a_search_is_a_table_with_what_fits_here(h100: str) -> None:
    lines = run("search", "llama3", "--host", h100).splitlines()
    assert lines[0].split() == ["model", "also", "kind", "parameters", "context", "licence", "fits", "here"]
    assert [line.split()[0] for line in lines[1:]] == [
        "llama-3.1-8b-instruct", "llama-3.2-1b-instruct", "llama-3.2-3b-instruct", "llama-3.3-70b-instruct",
    ]  # fmt: skip
    assert lines[1].split("  ")[-1] == "BF16, vllm, GPU"
    assert lines[4].endswith("AWQ 4-bit, vllm, GPU")
    assert "Llama 3.3 Community (unverified), gated" in lines[4]


def test_what_does_not_fit_says_why(h100: str) -> None:
    line = run("search", "kimi-k2-instruct", "--host", h100).splitlines()[1]
    assert "no: FP8: weights of about" in line
    assert line.endswith("are free")


def test_without_a_word_everything_is_listed(h100: str) -> None:
    assert len(run("search", "--host", h100).splitlines()) == 90


def test_json_has_the_facts_and_the_verdict(h100: str) -> None:
    document: dict[str, Any] = json.loads(run("search", "qwen3:8b", "--host", h100, "--json"))
    (row,) = document["data"]["models"]
    assert (row["id"], row["parameters"], row["licence_verified"], row["why_not"]) == ("qwen3-8b", 8.191, False, "")
    assert row["fits_here"][0] == {"source": "hf:Qwen/Qwen3-8B", "form": "qwen3-8b BF16", "engine": "vllm"}


def test_show_tells_all_of_a_model(h100: str) -> None:
    text = run("show", "gpt-oss:20b", "--host", h100)
    for said in (
        "gpt-oss-20b", "names         gpt-oss:20b", "20.9 B, 3.6 B active", "131072 tokens", "Apache-2.0 (unverified)",
        "mxfp4 4 bits: hf:openai/gpt-oss-20b ms:openai-mirror/gpt-oss-20b", "gguf mxfp4: hf:ggml-org/gpt-oss-20b-GGUF",
        "vllm >= 0.10.1: --tool-call-parser openai --enable-auto-tool-choice", "fits here     gpt-oss-20b MXFP4 with vllm",
    ):  # fmt: skip
        assert said in text


def test_show_of_a_family_has_a_page_for_each_model(h100: str) -> None:
    assert run("show", "whisper", "--host", h100).count("  family        whisper") == 2


def test_a_word_that_nothing_has_gets_near_names(h100: str) -> None:
    with pytest.raises(SpecError, match="no model of the catalog has 'qwn3' in its name") as caught:
        run("search", "qwn3", "--host", h100)
    assert caught.value.hint.startswith("did you mean qwen3")


def test_names_are_completed() -> None:
    assert models.known_names("gpt-oss:") == ["gpt-oss:20b", "gpt-oss:120b"]


def test_only_a_name_that_is_looked_up_costs_reading_the_models(h100: str) -> None:
    shelf.cache_clear()
    run("list", "--host", h100)
    run("show", "vllm", "--host", h100)
    assert shelf.cache_info().currsize == 0
    run("search", "qwen3", "--host", h100)
    assert shelf.cache_info().currsize == 1
