"""Everything that is rendered for an engine is something that its program takes, at the catalog's version."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance import catalog, codec
from appliance.catalog import flags
from appliance.domain.deployment import Deployment
from appliance.domain.service import Service, Setting
from appliance.domain.spec import TASKS, ModelSpec, Tuning
from appliance.engines import engine, engines, unable
from appliance.engines import flags as known
from appliance.options import plain
from tests.contract import flags as maker
from tests.contract.conftest import ask, rendered, wrong

TABLES = sorted(
    (table.engine, table.version) for name in engines() for table in flags.tables(name) if table.engine == name
)
TOLD = sorted({name for name, _ in TABLES})
"""Engines whose flags are known."""
GOLDEN = sorted(Path(__file__).parents[1].glob("golden/*/deployment.json"))
UNIFORM = ("context", "parallel", "kv_type", "gpus", *(one.name for one in fields(Tuning)), "adapters")


def test_each_engine_that_the_catalog_prefers_has_a_table() -> None:
    first = {row.engine: row.version for row in reversed(catalog.catalog().releases) if row.version != "rolling"}
    for name in ("vllm", "sglang", "lmdeploy", "llama-cpp", "llama-cpp-python"):
        assert (name, first[name]) in TABLES, f"python tests/contract/flags.py {name} {first[name]} …"


def test_the_plan_table_renders_what_the_programs_take() -> None:
    assert len(rendered()) > 300
    assert {service.engine for _, service, _ in rendered()} >= {"vllm", "llama-cpp", "llama-cpp-python"}
    found = {f"{where}: {service.engine} {service.version}: {wrong(service, launch)}" for where, service, launch in rendered()
             if service.engine in TOLD and wrong(service, launch)}  # fmt: skip
    assert not found


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
def test_golden_deployments_render_what_the_programs_take(path: Path) -> None:
    deployment = codec.load_json(Deployment, path.read_bytes(), source=path.name)
    for service in deployment.services:
        assert not wrong(service, engine(service.engine).launch(service))


# Generated wishes: each is refused with a reason, or comes out as something that the program takes.


def choices(name: str, *names: str) -> list[str]:
    """Return what any table offers for a flag, so that generated parsers and types are real ones."""
    return sorted(
        {
            one
            for table in flags.tables(name)
            for flag in table.flags
            if {*flag.names} & {*names}
            for one in flag.choices
        }
    )


def tunings(name: str) -> st.SearchStrategy[Tuning]:
    return st.builds(
        Tuning,
        dtype=st.sampled_from(["auto", "half", "bfloat16", "float32"]),
        quantisation=st.sampled_from(["", *choices(name, "quantization", "model-format")]),
        batched_tokens=st.none() | st.integers(16, 1 << 20),
        memory_share=st.none() | st.floats(0.01, 0.99),
        eager=st.booleans(),
        trust_remote_code=st.booleans(),
        chat_template=st.sampled_from(["", "/srv/template.jinja"]),
        tool_parser=st.sampled_from(["", *choices(name, "tool-call-parser")]),
        reasoning_parser=st.sampled_from(["", *choices(name, "reasoning-parser")]),
        task=st.sampled_from(TASKS),
        seed=st.none() | st.integers(0, (1 << 32) - 1),
        pipeline_parallel=st.sampled_from([1, 2, 4]),
    )


adapters = st.dictionaries(st.from_regex(r"[a-z][a-z0-9.-]{0,9}", fullmatch=True), st.just("/srv/adapter"), max_size=2)


@st.composite
def services(draw: st.DrawFn, name: str) -> Service:
    """One service of an engine, with everything that the engine does not refuse."""
    version = draw(st.sampled_from([table.version for table in flags.tables(name)]))
    tuning, lora = draw(tunings(name)), tuple(draw(adapters).items())
    for one in fields(Tuning):
        item = ModelSpec(name="m", source="/m", tuning=replace(Tuning(), **{one.name: getattr(tuning, one.name)}))
        if unable(item, engine(name), version):
            tuning = replace(tuning, **{one.name: getattr(Tuning(), one.name)})
    if unable(ModelSpec(name="m", source="/m", adapters=lora), engine(name), version):
        lora = ()
    gpus = draw(st.sampled_from([(), ("GPU-0",), ("GPU-0", "GPU-1")]))
    setting = Setting(
        context=draw(st.integers(512, 1 << 20)),
        parallel=draw(st.integers(1, 64)),
        kv_type=draw(st.sampled_from(["auto", *kinds(name)])),
        dtype=tuning.dtype,
        tensor_parallel=max(1, len(gpus)),
        gpu_layers=draw(st.integers(0, 80)),
        memory_share=draw(st.floats(0.01, 0.99)) if gpus else 0.0,
        batched_tokens=tuning.batched_tokens or 0,
        pipeline_parallel=tuning.pipeline_parallel,
    )
    return Service(
        name="m", model="m", engine=name, version=version, program="/engine/bin/program", weights="/store/m",
        socket="/run/m/engine.sock", setting=setting, threads=4, start_timeout=60, port=18100, gpus=gpus,
        accelerator="cuda12.9" if gpus else "cpu", vendor="nvidia" if gpus else "", tuning=tuning, adapters=lora,
    )  # fmt: skip


def kinds(name: str) -> tuple[str, ...]:
    """Return the cache types that an engine may be given on any GPU."""
    return {"llama-cpp": ("q8_0", "q4_0"), "vllm": ("fp8",), "sglang": ("fp8",), "lmdeploy": ("int8", "int4")}.get(
        name, ()
    )


@pytest.mark.parametrize("name", TOLD)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_not_refused_is_taken(name: str, data: st.DataObject) -> None:
    service = data.draw(services(name))
    assert not wrong(service, engine(name).launch(service))


@pytest.mark.parametrize(("name", "version"), TABLES)
def test_every_uniform_option_has_a_flag_of_the_program_or_a_reason(name: str, version: str) -> None:
    (table,) = flags.tables(name, version)
    for option in UNIFORM:
        flag = known(engine(name)).get(option)
        if flag is None:
            continue
        said = [flag.name, *flag.beside, *(word for words in flag.values.values() for word in words)]
        for word in (word for word in said if word.startswith("--")):
            assert table.find(plain(word)), f"{option}: {word}"
        assert flag.no or flag.name or flag.values, option


@pytest.mark.parametrize("name", TOLD)
def test_what_the_appliance_keeps_for_itself_is_a_flag_somewhere(name: str) -> None:
    there = {one for table in flags.tables(name) for flag in table.flags for one in flag.names}
    others = {"path", "home", "pythonpath", "ld-preload", "ld-library-path"}
    assert {*getattr(engine(name), "OWNED", {})} - others <= there


@pytest.mark.parametrize("name", TOLD)
def test_a_former_name_is_none_of_today(name: str) -> None:
    tables = flags.tables(name)
    assert not [old for old in flags.former(name) if all(table.find(old) for table in tables)]


# The real programs


def test_llama_server_still_has_the_flags_that_it_told(llama_server: Path) -> None:
    (table,) = flags.tables("llama-cpp", "0.3.36")
    now = {tuple(row["names"]): row["takes"] for row in maker.llama_cpp(str(llama_server))}
    assert {flag.names: flag.takes for flag in table.flags} == now


def test_llama_server_takes_what_is_rendered(llama_server: Path) -> None:
    """It reads its words one after the other, and ends at --version with 0 when all before it were right."""
    lines = {launch.argv[1:] for _, service, launch in rendered() if service.engine == "llama-cpp"}
    # Only words, not what they depend on here: a model's file must be there, and so must a GPU.
    for line in sorted({shape(words) for words in lines}):
        done = subprocess.run((llama_server, *line, "--version"), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{line}: {done.stderr[-300:]}"


def shape(words: tuple[str, ...]) -> tuple[str, ...]:
    """Make lines equal that differ in a number only, so that each kind is tried once."""
    return tuple(
        "1" if word.isdigit() and not words[at - 1].startswith("--gpu") else word for at, word in enumerate(words)
    )


@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_llama_server_takes_generated_wishes(llama_server: Path, data: st.DataObject) -> None:
    service = replace(data.draw(services("llama-cpp")), tuning=Tuning(seed=data.draw(st.integers(0, 1 << 30))))
    words = engine("llama-cpp").launch(service).argv[1:]
    done = subprocess.run((llama_server, *words, "--version"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{words}: {done.stderr[-300:]}"


def test_llama_server_refuses_what_it_does_not_know(llama_server: Path) -> None:
    """Else the tests before would say nothing."""
    for words in (("--mlock",), ("--ctx-size", "many"), ("--cache-type-k", "fp8")):
        assert subprocess.run((llama_server, *words, "--version"), capture_output=True, timeout=60).returncode != 0


VLLM = """
import json, sys
from pathlib import Path
import vllm
from vllm.utils.argparse_utils import FlexibleArgumentParser
files = Path(vllm.__file__).parent.glob("entrypoints/*/cli_args.py")
place = next(file.parent.name for file in files if "def make_arg_parser" in file.read_text())
module = __import__(f"vllm.entrypoints.{place}.cli_args", fromlist=["x"])
parser = module.make_arg_parser(FlexibleArgumentParser())
wrong = []
for words in json.load(open(sys.argv[1])):
    try:
        parser.parse_args(words)
    except SystemExit:
        wrong.append(words)
print(json.dumps(wrong))
"""


def test_vllm_takes_what_is_rendered(vllm_python: str, tmp_path: Path) -> None:
    lines: list[Any] = sorted({launch.argv[2:] for _, service, launch in rendered() if service.engine == "vllm"})
    lines += [("/m", "--no-such-flag", "1")]
    (tmp_path / "lines.json").write_text(json.dumps(lines))
    assert ask(vllm_python, VLLM, str(tmp_path / "lines.json")) == [["/m", "--no-such-flag", "1"]]


def test_the_maker_needs_nothing_of_ours() -> None:
    """It runs in the engines' environments, where there is nothing of the appliance."""
    text = Path(maker.__file__).read_text()
    assert "appliance import" not in text
    assert sys.version_info >= (3, 11)
