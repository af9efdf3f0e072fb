"""Uniform options: said with each engine's own flag, or refused with the reason and what would do."""

from dataclasses import replace
from typing import Any

import pytest

from appliance.domain.service import Service, Setting
from appliance.domain.spec import ModelSpec, Tuning
from appliance.engines import engine, engines, flags, unable, upstream
from appliance.options import plain
from tests.unit.samples import item

SERVICE = Service(
    name="tiny", model="tiny", engine="vllm", version="0.33.0", program="/e/program", weights="/store/tiny",
    socket="/run/tiny/engine.sock", setting=Setting(context=4096, parallel=1), threads=4, start_timeout=60, port=18100,
)  # fmt: skip
ALL = Tuning(
    quantisation="fp8", eager=True, trust_remote_code=True, chat_template="/srv/t.jinja", tool_parser="hermes",
    reasoning_parser="qwen3", task="embed", seed=7,
)  # fmt: skip


def wish(
    name: str = "tiny", lora: tuple[tuple[str, str], ...] = (), options: tuple[tuple[str, str], ...] = (), **tuning: Any
) -> ModelSpec:
    return item(name, tuning=Tuning(**tuning), adapters=lora, options=options)


def said(name: str, tuning: Tuning, *adapters: tuple[str, str]) -> tuple[str, ...]:
    return engine(name).launch(replace(SERVICE, engine=name, tuning=tuning, adapters=adapters)).argv


def test_vllm_says_all_of_them() -> None:
    words = said("vllm", ALL, ("sql", "/srv/sql"), ("law", "/srv/law"))
    assert words[words.index("auto", 12) + 1 :] == (
        "--quantization", "fp8", "--enforce-eager", "--trust-remote-code", "--chat-template", "/srv/t.jinja",
        "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--reasoning-parser", "qwen3",
        "--runner", "pooling", "--convert", "embed", "--seed", "7",
        "--enable-lora", "--lora-modules", "sql=/srv/sql", "law=/srv/law",
    )  # fmt: skip


def test_sglang_has_its_own_names() -> None:
    words = " ".join(said("sglang", ALL, ("sql", "/srv/sql")))
    for part in (
        "--disable-cuda-graph",
        "--is-embedding",
        "--random-seed 7",
        "--enable-lora --lora-paths sql=/srv/sql",
    ):
        assert part in words


def test_lmdeploy_needs_its_other_backend_for_some() -> None:
    words = " ".join(said("lmdeploy", Tuning(eager=True), ("sql", "/srv/sql")))
    assert "--backend pytorch --eager-mode" in words
    assert "--adapters sql=/srv/sql" in words


def test_nothing_is_said_that_was_not_asked_for() -> None:
    for name in ("vllm", "sglang", "lmdeploy", "llama-cpp"):
        words = " ".join(said(name, Tuning()))
        assert "trust" not in words, name
        assert "seed" not in words, name


def test_settings_of_llama_cpp_python_are_variables() -> None:
    launch = engine("llama-cpp-python").launch(replace(SERVICE, tuning=Tuning(seed=3, task="embed")))
    assert dict(launch.env)["SEED"] == "3"
    assert dict(launch.env)["EMBEDDING"] == "true"


@pytest.mark.parametrize(
    ("name", "asked", "why"),
    [
        ("llama-cpp", wish(dtype="half"), "has no --dtype: the file says how it is computed"),
        ("llama-cpp", wish(tool_parser="hermes"), "has no --tool-parser: the chat template says"),
        ("llama-cpp", wish(lora=(("a", "/a"),)), "has no --lora: clients cannot ask for one by name"),
        ("llama-cpp", wish(trust_remote_code=True), "has no --trust-remote-code: a GGUF file holds no code"),
        ("llama-cpp", wish(task="transcribe"), "has no --task transcribe, only embed, rerank"),
        ("llama-cpp-python", wish(task="rerank"), "has no --task rerank, only embed"),
        ("lmdeploy", wish(seed=1), "has no --seed: each request may carry its own"),
        ("lmdeploy", wish(pipeline_parallel=2), "has no --pipeline-parallel: it shares layers only"),
        ("lmdeploy", wish(quantisation="fp9"), "--quantisation knows no 'fp9'; did you mean fp8"),
        ("vllm", wish(tool_parser="hermess"), "--tool-parser knows no 'hermess'; did you mean hermes?"),
        ("vllm", wish(dtype="q4"), "--dtype knows no 'q4'; there are auto, "),
        ("dummy", wish(eager=True), "has no --eager"),
        ("vllm", wish(options=(("max-model-len", "1"),)), "--set max-model-len: is set by the appliance itself: say --context"),
        ("vllm", wish(options=(("tp", "1"),)), "--set tp: vllm 0.33.0 has no such flag; --gpus says it for every engine"),
        ("vllm", wish(options=(("uds", "1"),)), "--set uds: is set by the appliance itself: its socket"),
        ("vllm", wish(options=(("runner", "pooling"),)), "--set runner: is set by the appliance itself: say --task"),
        ("vllm", wish(options=(("swap-space", "4"),)), "--set swap-space: is gone since 0.20, and nothing"),
        ("vllm", wish(options=(("guided-decoding-backend", "x"),)), "--set guided-decoding-backend: is gone since 0.17; say"),
        ("vllm", wish(options=(("max-logprob", "4"),)), "--set max-logprob: vllm 0.33.0 has no such flag; did you mean max-logprobs"),
        ("vllm", wish(options=(("attention-backend", ""),)), "--set attention-backend: takes a value"),
        ("vllm", wish(options=(("enable-prefix-caching", "true"),)), "--set enable-prefix-caching: takes no value; say enable-prefix-caching="),
        ("llama-cpp", wish(options=(("n-gpu-layers", "9"),)), "--set n-gpu-layers: is set by the appliance itself: say --gpus"),
        ("llama-cpp", wish(options=(("rope-scaling", "yran"),)), "--set rope-scaling knows no 'yran'; did you mean yarn?"),
        ("llama-cpp", wish(options=(("session-len", "9"),)), "; --context says it for every engine"),
        ("sglang", wish(options=(("data-parallel-size", "2"),)), "--set data-parallel-size: is set by the appliance itself: say --replicas"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_would_do(name: str, asked: ModelSpec, why: str) -> None:
    version = {"vllm": "0.33.0"}.get(name, "")
    assert why in unable(asked, engine(name), version)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vllm", (("max-logprobs", "4"), ("enable-prefix-caching", ""), ("no-enable-prefix-caching", ""))),
        ("llama-cpp", (("rope-scaling", "yarn"), ("flash-attn", "on"), ("no-warmup", ""), ("temp", "0.5"))),
        ("llama-cpp-python", (("chat-format", "chatml"), ("offload-kqv", "true"))),
        ("lmdeploy", (("backend", "pytorch"),)),
        ("dummy", (("whatever", "it is"),)),
    ],
)
def test_flags_of_the_engines_own_are_taken(name: str, options: tuple[tuple[str, str], ...]) -> None:
    assert not unable(wish(options=options), engine(name))


def test_a_release_without_a_table_may_have_any_flag_that_another_has() -> None:
    old = wish(options=(("max-logprobs", "4"),))
    assert not unable(old, engine("vllm"), "0.9.2")
    assert "vllm has no such flag" in unable(wish(options=(("nonsense", "4"),)), engine("vllm"), "0.9.2")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("--max_model_len", "max-model-len"),
        ("VLLM_ATTENTION_BACKEND", "vllm-attention-backend"),
        ("-C", "C"),
        ("c", "c"),
    ],
)
def test_names_as_guides_write_them(written: str, name: str) -> None:
    assert plain(written) == name


def test_no_engine_calls_two_options_the_same() -> None:
    for name, module in engines().items():
        names = [flag.name for flag in flags(module).values() if flag.name]
        assert len(names) == len({*names}), name


def test_a_model_has_its_own_name_unless_an_engine_cannot() -> None:
    assert upstream(SERVICE) == "tiny"
