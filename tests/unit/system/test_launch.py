"""What the launcher and the setups of servers do before anything runs; real processes are in the integration tests."""

import hashlib
import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from appliance.domain.service import Program
from appliance.render.pages import render
from appliance.system import launch
from appliance.system.prepare import xinference
from tests.unit.samples import deployment

SMOKE = Path(__file__).parents[3] / "appliance/smoke/safetensors"


def page(*programs: Program) -> Any:
    return json.loads(json.dumps([asdict(program) for program in programs]))


def test_our_own_interpreter_is_filled_in_and_nothing_else_is_touched() -> None:
    one = Program(argv=("{python}", "-c", '{"a": "{python3}"}', "{port:}", "{PORT:x}"), ready="127.0.0.1:1/x")
    (filled,) = launch.fill(page(one))
    assert filled["argv"] == [sys.executable, "-c", '{"a": "{python3}"}', "{port:}", "{PORT:x}"]
    assert filled["ready"] == "127.0.0.1:1/x"


def test_a_page_that_is_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.json"
    path.write_text("[]")
    assert launch.read(str(path), hashlib.sha256(b"[]").hexdigest()) == []
    with pytest.raises(ValueError, match="is not the page"):
        launch.read(str(path), "0" * 64)
    with pytest.raises(OSError, match="No such file"):
        launch.read(str(tmp_path / "none"), "0" * 64)


def services(**more: Any) -> Any:
    plan = deployment()
    changed: dict[str, Any] = {"engine": "fastchat", "weights": "/store/dir", "port": 18100, "options": ()}
    return replace(plan, services=(replace(plan.services[0], **changed | more),))


def rendered(plan: Any) -> tuple[dict[str, str], str]:
    files = {file.path: file.content.decode() for file in render(plan).files}
    unit = next(text for path, text in files.items() if path.endswith("/llm-appliance-model@tiny.service"))
    return files, unit


def test_a_service_of_several_programs_is_started_by_the_launcher_with_a_page_of_its_own() -> None:
    files, unit = rendered(services())
    text = files["launch/tiny.json"]
    words = re.findall(r'"([^"]*)"', next(line for line in unit.splitlines() if line.startswith("ExecStart=")))
    assert words == [
        "/opt/llm-appliance/bin/python", "-m", "appliance.system.launch",
        "/var/lib/llm-appliance/current/launch/tiny.json", hashlib.sha256(text.encode()).hexdigest(),
    ]  # fmt: skip
    assert [one["argv"][2].rpartition(".")[2] for one in json.loads(text)] == [
        "controller", "model_worker", "openai_api_server",
    ]  # fmt: skip
    assert 'Environment="LOGDIR="' in unit
    assert "PrivateNetwork=yes" not in unit
    assert "IPAddressAllow=localhost" in unit


def test_another_page_is_another_unit_so_that_the_service_is_restarted() -> None:
    assert rendered(services())[1] == rendered(services())[1]
    assert rendered(services())[1] != rendered(services(options=(("seed", "1"),)))[1]


def test_a_service_of_one_program_has_no_page() -> None:
    assert not [file.path for file in render(deployment()).files if file.path.startswith("launch/")]


def test_the_health_page_of_a_model_has_its_name() -> None:
    _, unit = rendered(services(engine="xinference"))
    assert '"127.0.0.1:18100" "/v1/models/tiny"' in unit


def test_what_xinference_is_told_of_a_model() -> None:
    told = xinference.registration("smoke", SMOKE, 4096)
    assert told["model_ability"] == ["generate", "chat"]
    assert told["chat_template"] == json.loads((SMOKE / "tokenizer_config.json").read_text())["chat_template"]
    assert told["architectures"] == ["Qwen3ForCausalLM"]
    assert told["model_specs"][0]["model_uri"] == f"file://{SMOKE}"
    wanted = xinference.launch(told, 4, 0, {"torch-dtype": "float32"})
    assert (wanted["model_uid"], wanted["model_name"], wanted["n_gpu"]) == ("smoke", "smoke", None)
    assert (wanted["max_num_seqs"], wanted["context_length"], wanted["torch_dtype"]) == (4, 4096, "float32")
    assert wanted["enable_virtual_env"] is False
    assert xinference.launch(told, 1, 2, {})["n_gpu"] == 2


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({}, ""),
        ({"tokenizer_config.json": "{}"}, ""),
        ({"tokenizer_config.json": '{"chat_template": "a"}'}, "a"),
        ({"tokenizer_config.json": '{"chat_template": "a"}', "chat_template.jinja": "b"}, "b"),
        ({"tokenizer_config.json": '{"chat_template": "a"}', "chat_template.json": '{"chat_template": "c"}'}, "c"),
        ({"tokenizer_config.json": '{"chat_template": [{"name": "x", "template": "1"}, {"name": "default", "template": "2"}]}'}, "2"),
        ({"tokenizer_config.json": '{"chat_template": [{"name": "x", "template": "1"}]}'}, ""),
    ],
)  # fmt: skip
def test_a_models_own_template_is_found(tmp_path: Path, files: dict[str, str], template: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "config.json").write_text("{}")
    assert xinference.chat_template(tmp_path) == template
    assert xinference.registration("m", tmp_path, 9)["model_ability"] == ["generate", *(["chat"] if template else [])]
