"""`catalog list` and `catalog show`: what there is, what it asks for, and whether it runs on a machine."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from appliance import codec
from appliance.catalog import catalog
from appliance.cli.app import app
from appliance.errors import SpecError
from tests.unit.plan.machines import boxed, machine


@pytest.fixture
def h100(tmp_path: Path) -> str:
    path = tmp_path / "host.json"
    path.write_text(codec.dump_json(boxed(machine("H100", driver="550.54.15"))))
    return str(path)


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["catalog", *words], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.stdout


def test_each_release_is_a_line_in_the_order_of_preference(h100: str) -> None:
    lines = run("list", "--host", h100).splitlines()
    assert lines[0].split() == [
        "engine", "version", "accelerator", "arch", "driver", "GPU", "code", "glibc", "Python", "way", "here",
    ]  # fmt: skip
    assert [line.split()[:3] for line in lines[1:]] == [
        [row.engine, row.version, row.accelerator] for row in catalog().releases
    ]
    assert lines[1].endswith("needs driver >= 580, found 550.54.15")
    assert lines[4].endswith("wheels image  yes")


def test_one_engine_and_another_runtime(h100: str) -> None:
    lines = run("list", "--engine", "sglang", "--runtime", "compose", "--host", h100).splitlines()
    assert {line.split()[0] for line in lines[1:]} == {"sglang"}
    assert next(line for line in lines if "0.5.19" in line).endswith("yes")


def test_json_has_the_rows_and_the_verdicts(h100: str) -> None:
    document: dict[str, Any] = json.loads(run("list", "--engine", "vllm", "--host", h100, "--json"))
    first, *_, last = document["data"]["releases"]
    assert (first["version"], first["runs_here"]) == ("0.33.0", False)
    assert first["why_not"] == "needs driver >= 580, found 550.54.15"
    assert (last["accelerator"], last["runs_here"], last["why_not"]) == ("cpu", True, "")


def test_show_tells_all_of_a_release(h100: str) -> None:
    text = run("show", "vllm", "0.32.0", "--host", h100)
    for said in ("vllm 0.32.0 (cuda12.9)", ">= 525.60.13", "7.5 8.0 8.6 8.9 9.0 10.0a 12.0a", "torch==2.13.0+cu129",
                 "https://download.pytorch.org/whl/cu129", "vllm/vllm-openai:v0.32.0-cu129", "facts from"):  # fmt: skip
        assert said in text
    assert "0.33.0" not in text


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (("show", "vlm"), "the catalog holds no engine and no model 'vlm'", "did you mean vllm, glm?"),
        (("list", "--engine", "zzz"), "the catalog holds no engine 'zzz'", "engines: vllm, sglang"),
        (("show", "vllm", "9"), "the catalog holds no vllm 9", "versions: 0.33.0, 0.32.0"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(words: tuple[str, ...], said: str, hint: str, h100: str) -> None:
    with pytest.raises(SpecError) as caught:
        run(*words, "--host", h100)
    assert caught.value.message == said
    assert caught.value.hint.startswith(hint)


def test_another_catalog_is_shown_in_place_of_the_shipped_one(tmp_path: Path, h100: str) -> None:
    data = codec.to_data(catalog())
    data["releases"] = data["releases"][:1]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(data))
    assert len(run("list", "--host", h100, "--catalog", str(tmp_path / "other.yaml")).splitlines()) == 2
