"""What is typed after add-model becomes a spec: paths, repositories, names of the catalog, the operator's own names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance import catalog, codec, specfile
from appliance.catalog import document
from appliance.catalog.models.names import find
from appliance.domain.host import Host
from appliance.domain.spec import SMOKE, ApplianceSpec, ModelSpec, Tuning
from appliance.errors import HostError, SpecError, UsageError
from appliance.flows import converge, names, planning
from appliance.flows.names import Wish, resolve
from appliance.flows.site import Site
from appliance.plan.offer import choices
from appliance.plan.room import room
from tests.unit.plan.machines import machine
from tests.unit.recorded import RecordedMachine
from tests.unit.samples import GIB, HOST, LAYOUT

H100 = machine("H100", memory=256 * GIB, memory_available=250 * GIB, glibc="2.39")
CPU = replace(HOST, memory=64 * GIB, memory_available=62 * GIB)


class Told:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, name: str, detail: str = "") -> None:
        self.lines.append(f"{name}: {detail}")

    def note(self, text: str) -> None:
        self.lines.append(text)

    def bar(self, label: str, total: int, *, unit: str = "bytes") -> None:
        raise AssertionError(label)


def site(**files: str) -> tuple[Site, Told]:
    told = Told()
    there = {f"{LAYOUT.etc}/{name.replace('__', '/')}.yaml": text.encode() for name, text in files.items()}
    return Site(layout=LAYOUT, machine=RecordedMachine(files=there), progress=told, command="add-model"), told  # type: ignore[arg-type]


def asked(
    name: str,
    source: str = "",
    host: Host = H100,
    wish: Wish = Wish(),
    files: dict[str, str] | None = None,
    **more: Any,
) -> ModelSpec:
    where, _ = site(**files or {})
    return resolve(where, ModelSpec(name=name, source=source, **more), wish, planning.Terms(), host).model


@pytest.mark.parametrize(
    ("word", "source"),
    [
        ("/srv/m.gguf", "/srv/m.gguf"),
        ("m.gguf", "{here}/m.gguf"),
        ("./qwen3", "{here}/qwen3"),
        ("../m", "{above}/m"),
        ("some/deeper/directory", "{here}/some/deeper/directory"),
        ("hf:Qwen/Qwen3-8B", "hf:Qwen/Qwen3-8B"),
        ("hf:Qwen/Qwen3-8B-GGUF:Q4_K_M", "hf:Qwen/Qwen3-8B-GGUF:Q4_K_M"),
        ("ms:Qwen/Qwen3-8B@v1", "ms:Qwen/Qwen3-8B@v1"),
        ("https://example.org/m.gguf", "https://example.org/m.gguf"),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-8B@main", "Qwen/Qwen3-8B@main"),
        ("unsloth/Qwen3-8B-GGUF:Q4_K_M", "unsloth/Qwen3-8B-GGUF:Q4_K_M"),
        ("builtin:smoke", SMOKE),
    ],
)
def test_what_says_where_it_is_is_taken_at_its_word(
    word: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert asked("fast", word).source == source.format(here=tmp_path, above=tmp_path.parent)


def test_a_file_that_is_here_comes_before_a_name_and_before_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qwen3").mkdir()
    (tmp_path / "qwen3" / "sub").mkdir()
    assert asked("fast", "qwen3").source == f"{tmp_path}/qwen3"
    assert asked("fast", "qwen3/sub").source == f"{tmp_path}/qwen3/sub"
    assert asked("qwen3").source == "hf:Qwen/Qwen3-32B"  # without a source, a name is a name


def test_the_model_that_comes_along_runs_on_the_cpu() -> None:
    assert (asked("smoke").source, asked("smoke").gpus) == (SMOKE, 0)
    assert asked("other", SMOKE, gpus=1).gpus == 1
    with pytest.raises(UsageError, match="builtin:other does not come with the appliance"):
        asked("x", "builtin:other")


def test_the_dummy_engine_needs_no_files() -> None:
    assert asked("dummy", engine="dummy").source == "none"


@pytest.mark.parametrize(
    ("name", "source", "served", "chosen"),
    [
        ("qwen3", "", "qwen3", "hf:Qwen/Qwen3-32B"),
        ("qwen3:8b", "", "qwen3-8b", "hf:Qwen/Qwen3-8B"),
        ("fast", "qwen3:8b", "fast", "hf:Qwen/Qwen3-8B"),
        ("slow", "qwen3:8b", "slow", "hf:Qwen/Qwen3-8B"),
        ("small", "qwen3:8b-q2_K", "small", "hf:unsloth/Qwen3-8B-GGUF:Q2_K"),
        ("gpt-oss", "", "gpt-oss", "hf:openai/gpt-oss-120b"),
        ("Qwen/Qwen3-8B", "", "qwen3-8b", "Qwen/Qwen3-8B"),
        ("bge-m3", "", "bge-m3", "hf:BAAI/bge-m3"),
    ],
)
def test_a_name_of_the_catalog_becomes_the_form_that_fits(name: str, source: str, served: str, chosen: str) -> None:
    model = asked(name, source)
    assert (model.name, model.source) == (served, chosen)
    specfile.check_model(model)


def test_the_choice_is_told_with_its_runner_ups() -> None:
    where, told = site()
    found = resolve(where, ModelSpec(name="qwen3", source=""), Wish(), planning.Terms(), H100)
    assert told.lines[0].startswith("choose: qwen3-32b BF16 with vllm 0.33.0 (cuda13.0) on nvidia:0")
    assert any(line.startswith("not qwen3-235b-a22b-instruct-2507") for line in told.lines)
    assert any(line.startswith("or qwen3-32b FP8: fits too, with vllm") for line in told.lines)
    assert found.reason
    assert found.reason.subject == "model for qwen3"


def test_parsers_are_set_for_the_engine_that_will_serve() -> None:
    model = asked("qwen3")
    assert model.engine == "vllm"
    assert (model.tuning.tool_parser, model.tuning.reasoning_parser, model.options) == ("hermes", "qwen3", ())
    sglang = asked("qwen3", engine="sglang")
    assert (sglang.tuning.tool_parser, sglang.tuning.reasoning_parser) == ("qwen25", "qwen3")
    on_cpu = asked("qwen3", host=CPU)
    assert (on_cpu.engine, on_cpu.options, on_cpu.tuning) == ("auto", (), Tuning())


def test_what_the_operator_set_stays() -> None:
    model = asked("qwen3", tuning=Tuning(tool_parser="qwen3_xml"), options=(("enable-prefix-caching", ""),))
    assert (model.tuning.tool_parser, model.tuning.reasoning_parser) == ("qwen3_xml", "qwen3")
    assert model.options == (("enable-prefix-caching", ""),)


def test_a_flag_is_left_out_where_the_release_is_too_old() -> None:
    found = find("glm-4.7")
    assert found
    one = choices(found.entries[0])[0]
    assert dict(names._flags(one, "vllm", "0.33.0"))["tool-call-parser"] == "glm47"
    assert not dict(names._flags(one, "vllm", "0.20.0"))


def test_a_quantisation_and_a_hub_can_be_asked_for() -> None:
    assert asked("qwen3", wish=Wish(quantisation="fp8")).source == "hf:Qwen/Qwen3-32B-FP8"
    assert asked("qwen3:8b", wish=Wish(quantisation="Q4_K_M")).source == "hf:unsloth/Qwen3-8B-GGUF:Q4_K_M"
    assert asked("qwen3", wish=Wish(hub="ms")).source == "ms:Qwen/Qwen3-32B"
    with pytest.raises(UsageError, match="--hub 'hg' is not known"):
        asked("qwen3", wish=Wish(hub="hg"))
    files = asked("x", "hf:Qwen/Qwen3-8B", wish=Wish(quantisation="fp8"))
    assert files.tuning.quantisation == "fp8", "of files that are named, the engine quantises them"


@pytest.mark.parametrize(("name", "near"), [("qwn3", "qwen3"), ("gema3", "gemma3")])
def test_a_name_that_is_not_there_gets_near_ones(name: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked(name)
    assert caught.value.message == f"where are the files of {name}? no model of the catalog is called {name!r}"
    assert f"did you mean {near}" in caught.value.hint
    assert "catalog search" in caught.value.hint
    assert f"add-model {name} /path/to/model.gguf" in caught.value.hint


def test_a_model_that_fits_nowhere_is_refused_with_numbers() -> None:
    with pytest.raises(HostError, match="no form of kimi-k2 fits this machine: kimi-k2-instruct FP8: weights of about"):
        asked("kimi-k2")


def test_names_of_the_operators_own_come_first() -> None:
    files = {"aliases": "fast: qwen3:8b\nours: /srv/ours.gguf\nqwen3: fast\nhub: us/model\n"}
    assert asked("fast", files=files).source == "hf:Qwen/Qwen3-8B"
    assert asked("ours", files=files).source == "/srv/ours.gguf"
    assert asked("x", "ours", files=files).source == "/srv/ours.gguf"
    assert asked("qwen3", files=files).source == "hf:Qwen/Qwen3-8B"
    assert asked("hub", files=files).source == "us/model"


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("a: b\nb: a\n", UsageError, "goes round in a circle"),
        ("a: [1]\n", SpecError, "aliases.yaml: a"),
        ("- a\n", SpecError, "aliases.yaml: expected keys and values"),
    ],
)
def test_aliases_that_cannot_be_meant_are_refused(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        asked("a", files={"aliases": text})


def test_asking_again_keeps_what_was_chosen() -> None:
    first = asked("qwen3")
    written = specfile.files(ApplianceSpec(models=(first,)), {}, LAYOUT)
    kept = {file.path: file.content for file in written}
    where = Site(layout=LAYOUT, machine=RecordedMachine(files=kept), progress=Told(), command="x")  # type: ignore[arg-type]
    # On a machine that would get another one now.
    again = resolve(where, ModelSpec(name="qwen3", source=""), Wish(), planning.Terms(), CPU).model
    assert again == first
    spec = ApplianceSpec(models=(first,))
    assert converge.add(again)(spec) == spec
    second = resolve(where, ModelSpec(name="second", source="qwen3"), Wish(), planning.Terms(), CPU).model
    assert second.source == "hf:unsloth/Qwen3-32B-GGUF:Q8_0"
    other = resolve(where, ModelSpec(name="qwen3", source=""), Wish(quantisation="fp8"), planning.Terms(), H100).model
    with pytest.raises(SpecError, match="a model qwen3 is there already"):
        converge.add(other)(spec)


@pytest.mark.parametrize(
    ("source", "same"),
    [
        ("hf:unsloth/Qwen3-8B-GGUF:Q4_K_M", True),
        ("hf:unsloth/Qwen3-8B-GGUF@0123abc/Qwen3-8B-Q4_K_M.gguf", True),
        ("hf:unsloth/Qwen3-8B-GGUF@0123abc/Q4_K_M/Qwen3-8B-Q4_K_M-00001-of-00002.gguf", True),
        ("hf:unsloth/Qwen3-8B-GGUF@0123abc/Qwen3-8B-Q4_0.gguf", False),
        ("hf:other/Qwen3-8B-GGUF@0123abc/Qwen3-8B-Q4_K_M.gguf", False),
        ("ms:unsloth/Qwen3-8B-GGUF:Q4_K_M", False),
        ("/srv/Qwen3-8B-Q4_K_M.gguf", False),
    ],
)
def test_a_source_is_known_again_with_a_commit_and_a_file_in_it(source: str, same: bool) -> None:
    found = find("qwen3:8b")
    assert found
    one = choices(found.entries[0], "hf", "q4_k_m")[0]
    assert names._stands_for(source, one) is same
    bf16 = choices(found.entries[0])[0]
    assert names._stands_for("hf:Qwen/Qwen3-8B@0123abc", bf16)
    assert not names._stands_for("hf:Qwen/Qwen3-8B-FP8@0123abc", bf16)


def test_a_tag_of_ollama_is_known_again_with_a_digest_behind_it() -> None:
    found = find("qwen3:8b")
    assert found
    (one,) = choices(found.entries[0], "ollama")
    assert one.source == "ollama:qwen3:8b"
    assert names._stands_for(f"ollama:qwen3:8b@sha256:{'0' * 64}", one)
    assert not names._stands_for(f"ollama:qwen3:4b@sha256:{'0' * 64}", one)


def test_a_tag_of_ollama_is_one_quantisation() -> None:
    for name, kind in (("qwen3:8b", "Q4_K_M"), ("gpt-oss:20b", "mxfp4"), ("qwen3-embedding:0.6b", "Q8_0")):
        found = find(name)
        assert found
        assert [one.quantisation for one in choices(found.entries[0], "ollama")] == [kind]
        assert choices(found.entries[0], "ollama", "q6_k") == ()
    asked_for = asked("qwen3:8b", host=CPU, wish=Wish(hub="ollama"))
    assert (asked_for.source, asked_for.name) == ("ollama:qwen3:8b", "qwen3-8b")
    with pytest.raises(HostError, match="the catalog knows no qwen3-8b in q8_0 at Ollama"):
        asked("qwen3:8b", host=CPU, wish=Wish(hub="ollama", quantisation="q8_0"))


def test_a_name_of_a_kept_catalog_is_known(tmp_path: Path) -> None:
    own = document.packaged()
    family = next(one for one in own.families if one.family == "qwen3")
    model = next(one for one in family.models if one.id == "qwen3-0.6b")
    new = replace(family, family="novel", aliases=(), models=(replace(model, id="novel-1b", aliases=(), ollama=""),))
    where, _ = site()
    where = replace(where, layout=replace(where.layout, state=str(tmp_path)))
    document.place(str(tmp_path)).write_text(codec.dump_json(replace(own, families=(new,))))
    found = resolve(where, ModelSpec(name="novel", source=""), Wish(), planning.Terms(), H100).model
    assert found.source == "hf:Qwen/Qwen3-0.6B"
    with pytest.raises(UsageError, match="no model of the catalog is called 'qwen3'"):
        resolve(where, ModelSpec(name="qwen3", source=""), Wish(), planning.Terms(), H100)


def test_without_a_record_all_memory_is_left() -> None:
    where, _ = site()
    left = names._left(where, ApplianceSpec(), H100, catalog.load(), planning.Terms(), "systemd")
    assert left == room(H100)
