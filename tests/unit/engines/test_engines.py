"""Each engine: what it refuses, what it takes, and with which words it is started."""

from dataclasses import replace

import pytest

from appliance.domain.deployment import Release, Service
from appliance.engines import dummy, engine, engines, llama_cpp, llama_cpp_python
from appliance.errors import SpecError
from tests.unit.samples import CATALOG, HOST, model, weights

SERVICE = Service(
    name="tiny_1",
    model="tiny",
    engine="llama-cpp",
    version="1.0",
    program="/engines/program",
    weights="/store/model.gguf",
    socket="/run/tiny_1/engine.sock",
    context=2048,
    parallel=4,
    threads=3,
    memory=1,
    start_timeout=60,
    options=(("temp", "0.5"), ("mlock", ""), ("n-gpu-layers", "0")),
)
SAFETENSORS = model(facts=weights(format="safetensors", architecture="Qwen3ForCausalLM"))
NONE = model(facts=weights(format="none", architecture="none", files=()))


def row(name: str) -> Release:
    return next(one for one in CATALOG.releases if one.engine == name)


def value(argv: tuple[str, ...], flag: str) -> str:
    assert argv.count(flag) == 1, flag
    return argv[argv.index(flag) + 1]


def test_an_unknown_engine_is_named_with_those_there_are() -> None:
    with pytest.raises(SpecError, match="no engine is called 'x'") as caught:
        engine("x")
    assert all(name in caught.value.hint for name in engines())


@pytest.mark.parametrize("name", ["llama-cpp", "llama-cpp-python"])
def test_llama_reads_gguf_only(name: str) -> None:
    assert engine(name).refuse(model(), HOST, row(name)) is None
    assert engine(name).refuse(SAFETENSORS, HOST, row(name)) == (
        "reads GGUF files only, tiny is safetensors (Qwen3ForCausalLM)"
    )
    assert engine(name).refuse(NONE, HOST, row(name)) == "reads GGUF files only, tiny is none (none)"


@pytest.mark.parametrize("name", ["llama-cpp", "llama-cpp-python"])
def test_llama_refuses_a_processor_it_was_not_built_for(name: str) -> None:
    release = replace(row(name), arch=("x86_64", "aarch64"))
    assert engine(name).refuse(model(), replace(HOST, arch="riscv64"), release) == (
        f"{release.version} is for x86_64, aarch64, this machine is riscv64"
    )


def test_the_dummy_serves_what_has_no_weights() -> None:
    assert dummy.refuse(NONE, HOST, row("dummy")) is None
    assert dummy.refuse(model(), HOST, row("dummy")) == "serves no weights, it only pretends"


def test_llama_cpp_reserves_every_slot() -> None:
    assert dict(llama_cpp.estimate(model(), 1024, 4)) == {
        "weights": 1 << 30, "KV cache": 1024 * 4 * (64 << 10), "buffers": llama_cpp.BUFFERS,
    }  # fmt: skip


def test_llama_cpp_python_serves_one_request_whatever_is_asked() -> None:
    assert llama_cpp_python.estimate(model(), 1024, 4) == llama_cpp_python.estimate(model(), 1024, 1)
    assert dict(llama_cpp_python.estimate(model(), 1024, 4))["KV cache"] == 1024 * (64 << 10)


def test_the_words_that_start_llama_cpp() -> None:
    launch = llama_cpp.launch(SERVICE)
    assert launch.env == ()
    assert launch.argv[0] == "/engines/program"
    assert value(launch.argv, "--model") == "/store/model.gguf"
    assert value(launch.argv, "--alias") == "tiny"
    assert value(launch.argv, "--host") == "/run/tiny_1/engine.sock"
    assert value(launch.argv, "--ctx-size") == "8192", "2048 for each of 4 slots"
    assert value(launch.argv, "--parallel") == "4"
    assert value(launch.argv, "--threads") == "3"
    assert {"--jinja", "--offline", "--no-webui"} <= set(launch.argv)
    assert launch.argv[-5:] == ("--temp", "0.5", "--mlock", "--n-gpu-layers", "0"), "a flag without a value is one word"


def test_the_words_that_start_llama_cpp_python() -> None:
    launch = llama_cpp_python.launch(replace(SERVICE, options=(("n-batch", "64"),)))
    assert launch.argv[:3] == ("/engines/program", "-m", "uvicorn")
    assert value(launch.argv, "--uds") == "/run/tiny_1/engine.sock"
    assert not {"--host", "--port"} & set(launch.argv)
    assert dict(launch.env) == {
        "MODEL": "/store/model.gguf",
        "MODEL_ALIAS": "tiny",
        "N_CTX": "2048",
        "N_THREADS": "3",
        "INTERRUPT_REQUESTS": "false",
        "N_BATCH": "64",
    }


def test_the_words_that_start_the_dummy() -> None:
    service = replace(SERVICE, options=(("text", "two words"), ("echo", "")))
    assert dummy.launch(service).argv == (
        "/engines/program", "-m", "appliance.dummy", "--host", "unix:/run/tiny_1/engine.sock", "--model", "tiny",
        "--text", "two words", "--echo",
    )  # fmt: skip


def test_a_program_is_named_by_its_digest() -> None:
    artifact = replace(row("llama-cpp").artifacts[0], digest="0123456789abcdef" + "f" * 48)
    release = replace(row("llama-cpp"), artifacts=(artifact,))
    assert llama_cpp.program(release, "/s", "/py") == "/s/engines/llama-cpp-0123456789abcdef/bin/llama-server"
    assert llama_cpp_python.program(release, "/s", "/py") == "/s/engines/llama-cpp-python-0123456789abcdef/bin/python"
    assert dummy.program(row("dummy"), "/s", "/py") == "/py"


@pytest.mark.parametrize("name", ["dummy", "llama-cpp", "llama-cpp-python"])
def test_no_engine_listens_on_tcp(name: str) -> None:
    launch = engine(name).launch(replace(SERVICE, options=()))
    words = (*launch.argv, *(value for _, value in launch.env))
    assert not any(word in ("--port", "0.0.0.0", "127.0.0.1") for word in words)
    assert sum(SERVICE.socket in word for word in words) == 1


@pytest.mark.parametrize("name", ["dummy", "llama-cpp", "llama-cpp-python"])
def test_what_every_engine_says_of_itself(name: str) -> None:
    module = engine(name)
    assert module.NAME == name
    assert module.HEALTH.startswith("/")
    assert module.PARALLEL >= 1
    assert module.pages(SERVICE) == ()
    assert sum(amount for _, amount in module.estimate(model(), 512, 1)) > 0
