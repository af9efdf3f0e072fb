"""Engines that are taken only where they are asked for: what they refuse and take, and with which words they start."""

from dataclasses import replace
from typing import Any

import pytest

from appliance import catalog
from appliance.domain.deployment import Model
from appliance.domain.release import Release
from appliance.domain.service import Container, Launch, Program, Service, Setting
from appliance.domain.weights import WeightFile
from appliance.engines import engine, fastchat, health, lightllm, ollama, tei, xinference
from appliance.memory import GIB, MIB
from appliance.plan import choose, fitness
from tests.unit.plan.machines import boxed
from tests.unit.samples import HOST, deployment, gpu, gpu_host, item, model, safetensors, weights

ROWS = catalog.load().releases
ASKED = ("fastchat", "lightllm", "ollama", "tei", "xinference")
PLAIN = model(facts=safetensors())
SETTING = Setting(context=8192, parallel=3)
SERVICE = Service(
    name="tiny", model="tiny", engine="fastchat", version="1.0", program="/env/bin/program", weights="/store/dir",
    socket="/run/tiny/engine.sock", setting=SETTING, threads=5, start_timeout=90, port=18100,
    options=(("seed", "1"), ("x-y", "")), home="/cache/tiny",
)  # fmt: skip
ON_GPUS = replace(
    SERVICE, accelerator="cuda13.0", gpus=("GPU-0", "GPU-1"), vendor="nvidia",
    setting=Setting(context=8192, parallel=3, tensor_parallel=2, memory_share=0.8125, dtype="half", kv_type="int8"),
)  # fmt: skip


def row(name: str, accelerator: str = "cpu", kind: str = "") -> Release:
    rows = (one for one in ROWS if one.engine == name and one.accelerator.startswith(accelerator))
    return next(one for one in rows if not kind or kind in {artifact.kind for artifact in one.artifacts})


def known(architecture: str, *names: str, **more: Any) -> Model:
    files = tuple(WeightFile(name=name, path=f"/m/{name}", size=10, sha256="c" * 64) for name in names)
    facts = safetensors(architecture=architecture, **more)
    return model(facts=replace(facts, files=(*facts.files, *files)))


# Asked for by name


@pytest.mark.parametrize("name", ASKED)
def test_it_is_taken_only_where_it_is_asked_for(name: str) -> None:
    assert all(one.asked for one in ROWS if one.engine == name)
    every = {verdict.row.engine for verdict in choose.verdicts(item(), PLAIN, HOST, catalog.load(), "systemd")}
    assert name not in every
    own = {verdict.row.engine for verdict in choose.verdicts(item(engine=name), PLAIN, HOST, catalog.load(), "systemd")}
    assert own == {name}


@pytest.mark.parametrize("name", ["fastchat", "xinference"])
def test_what_comes_as_wheels_serves_plain_safetensors_without_a_gpu(name: str) -> None:
    first = choose.candidates(item(engine=name), PLAIN, replace(HOST, glibc="2.36"), catalog.load())[0]
    (artifact,) = first.release.artifacts
    assert (first.release.accelerator, artifact.kind, artifact.name) == ("cpu", "wheels", name)
    assert artifact.indexes == ("https://download.pytorch.org/whl/cpu",)
    program = engine(name).program(first.release, "/s", "/py")
    assert program.startswith(f"/s/engines/{name}-{artifact.digest[:16]}/bin/")


# What they refuse


@pytest.mark.parametrize("name", ["fastchat", "xinference", "tei", "lightllm"])
def test_what_reads_safetensors_refuses_gguf(name: str) -> None:
    assert engine(name).refuse(model(), HOST, row(name, "")) == "reads safetensors only, tiny is gguf"


def test_fastchat_writes_only_conversations_whose_form_it_knows() -> None:
    assert fastchat.refuse(PLAIN, HOST, row("fastchat")) is None
    said = fastchat.refuse(known("LlamaForCausalLM"), HOST, row("fastchat"))
    assert said == "has no template for LlamaForCausalLM: it knows those of 2024, and would guess another"
    said = fastchat.refuse(known("Qwen3ForCausalLM", quantisation="awq"), HOST, row("fastchat"))
    assert said == "is set up for plain weights only here, tiny is awq"


def test_xinference_serves_text_models() -> None:
    assert xinference.refuse(known("LlamaForCausalLM"), HOST, row("xinference")) is None
    said = xinference.refuse(known("Qwen3VLForConditionalGeneration"), HOST, row("xinference"))
    assert said == "is set up for text models only here, tiny is Qwen3VLForConditionalGeneration"
    assert xinference.refuse(known("LlamaForCausalLM", quantisation="gptq"), HOST, row("xinference"))


@pytest.mark.parametrize(
    ("facts", "accelerator", "said"),
    [
        (known("BertModel", tei.POOLING), "cpu", None),
        (known("XLMRobertaForSequenceClassification"), "cpu", None),
        (known("Qwen3ForCausalLM", tei.POOLING), "cpu", None),  # how its makers publish Qwen3-Embedding
        (PLAIN, "cpu", "computes embeddings and ranks, it does not chat: tiny is Qwen3ForCausalLM"),
        (known("WhisperModel", tei.POOLING), "cpu", "does not know WhisperModel"),
        (known("MistralModel", tei.POOLING), "cpu", "computes MistralModel on GPUs only"),
        (known("MistralModel", tei.POOLING), "cuda", None),
        (known("BertModel"), "cpu", "tiny comes without 1_Pooling/config.json, and it would guess"),
    ],
)  # fmt: skip
def test_what_tei_refuses(facts: Model, accelerator: str, said: str | None) -> None:
    assert tei.refuse(facts, HOST, row("tei", accelerator)) == said


def test_ollama_makes_its_model_itself_where_there_is_nothing_but_its_image() -> None:
    (service,) = deployment(item(engine="llama-cpp")).services
    boxed_one = replace(service, engine="ollama", program="ollama", port=18100, container=Container(image="ollama:1"))
    launch = ollama.launch(boxed_one)
    assert launch.programs == ()
    assert launch.argv[:4] == ("/bin/sh", "-c", ollama.ALONE, "ollama")
    assert launch.argv[4:6] == ("tiny", service.weights)
    assert dict(launch.env)["OLLAMA_HOST"] == "127.0.0.1:18100"
    assert "\n" not in ollama.ALONE  # a Compose file holds it as one word


def test_ollama_is_refused_where_it_is_not_installed() -> None:
    installed = replace(HOST, tools=(("ollama", "/usr/local/bin/ollama"),))
    program, image = row("ollama", kind="program"), row("ollama", kind="image")
    assert ollama.refuse(model(), installed, program) is None
    assert ollama.refuse(model(), HOST, program) == (
        "is not installed on this machine, and is in no registry of packages"
    )
    assert ollama.refuse(model(), HOST, image) is None
    assert ollama.refuse(PLAIN, installed, program) == "reads GGUF files only here, tiny is safetensors"
    two = replace(model(), weights=replace(weights(), files=weights().files * 2))
    assert ollama.refuse(two, installed, program) == "takes a model in one file, tiny is in 2"


def test_an_installed_program_is_another_one_where_it_lies_elsewhere() -> None:
    one, other = (replace(HOST, tools=(("ollama", f"{path}/ollama"),)) for path in ("/usr/bin", "/usr/local/bin"))
    found = [
        choose.candidates(item(engine="ollama"), model(), host, catalog.load())[0].release for host in (one, other)
    ]
    assert [release.artifacts[0].kind for release in found] == ["program", "program"]
    assert len({release.artifacts[0].digest for release in found}) == 2
    digest = found[0].artifacts[0].digest
    assert ollama.program(found[0], "/s", "/py") == f"/s/engines/ollama-{digest[:16]}/bin/ollama"


def test_lightllm_generates_text() -> None:
    assert lightllm.refuse(PLAIN, HOST, row("lightllm", "")) is None
    assert lightllm.refuse(known("BertModel"), HOST, row("lightllm", "")) == "generates text only, tiny is BertModel"


@pytest.mark.parametrize(
    ("capability", "tag"),
    [
        ("7.5", "turing-1.9.3"), ("8.0", "1.9.3"), ("8.6", "86-1.9.3"), ("8.9", "89-1.9.3"), ("9.0", "hopper-1.9.3"),
        ("10.0", "100-1.9.3"), ("12.0", "120-1.9.3"), ("7.0", ""), ("8.7", ""), ("10.3", ""),
    ],
)  # fmt: skip
def test_tei_has_an_image_for_each_kind_of_gpu(capability: str, tag: str) -> None:
    host = boxed(gpu_host(gpu(compute_capability=capability)))
    fitting = [one for one in ROWS if one.engine == "tei" and one.api == "cuda"]
    fitting = [one for one in fitting if fitness.fit(one, host, runtime="compose").groups]
    assert [one.artifacts[0].ref.rpartition(":")[2] for one in fitting] == ([tag] if tag else [])


# What they take


@pytest.mark.parametrize(
    ("name", "processes"), [("fastchat", fastchat.PROCESSES), ("xinference", xinference.PROCESSES)]
)
def test_what_transformers_take(name: str, processes: int) -> None:
    """On the CPU everything is in 32 bits; each GPU has its part of the layers."""
    module = engine(name)
    (ram,) = module.estimate(PLAIN, SETTING, ())
    assert (ram.device, dict(ram.items)["weights"], dict(ram.items)["processes"]) == ("ram", 2 * GIB, processes)
    assert dict(ram.items)["KV cache"] == 2 * 3 * 8192 * (64 << 10)
    ram, first, second = module.estimate(PLAIN, SETTING, (gpu(0), gpu(1)))
    assert ram.items == (("processes", processes),)
    assert first.items == second.items
    assert dict(first.items)["weights"] == GIB // 2
    assert dict(first.items)["KV cache"] == 3 * 8192 * (64 << 10) // 2
    wide = model(facts=safetensors(quantisation="float32"))
    assert dict(module.estimate(wide, SETTING, ())[0].items)["weights"] == GIB


def test_what_tei_takes() -> None:
    (ram,) = tei.estimate(PLAIN, SETTING, ())
    assert dict(ram.items)["weights"] == 2 * GIB
    _, on_gpu = tei.estimate(PLAIN, SETTING, (gpu(),))
    assert dict(on_gpu.items) == {
        "weights": GIB, "activations": 16384 * 2 * (5 * 4096 + 3 * 12288), "libraries": 600 * MIB,
    }  # fmt: skip


def test_what_lightllm_takes() -> None:
    _, first, _ = lightllm.estimate(PLAIN, ON_GPUS.setting, (gpu(0), gpu(1)))
    amounts = dict(first.items)
    assert amounts["weights"] == GIB // 2
    assert amounts["KV cache"] == 3 * 8192 * (64 << 10) // 2 * 17 // 32
    assert lightllm.share(first, gpu(), 24 * GIB) == (amounts["weights"] + amounts["KV cache"]) / (24 * GIB)


def test_ollama_takes_what_llama_cpp_takes() -> None:
    (ram,) = ollama.estimate(model(), SETTING, ())
    assert dict(ram.items)["KV cache"] == 3 * 8192 * (64 << 10)


# With which words they start


def test_fastchat_is_three_programs() -> None:
    serve = ("/env/bin/program", "-m")
    worker = "http://127.0.0.1:{port:worker}"
    controller = "http://127.0.0.1:{port:controller}"
    assert fastchat.launch(SERVICE) == Launch(
        programs=(
            Program(
                argv=(*serve, "fastchat.serve.controller", "--host", "127.0.0.1", "--port", "{port:controller}"),
                ready="127.0.0.1:{port:controller}/test_connection",
            ),
            Program(
                argv=(
                    *serve, "fastchat.serve.model_worker", "--host", "127.0.0.1", "--port", "{port:worker}",
                    "--controller-address", controller, "--worker-address", worker, "--model-path", "/store/dir",
                    "--model-names", "tiny", "--conv-template", "qwen-7b-chat", "--limit-worker-concurrency", "3",
                    "--device", "cpu", "--seed", "1", "--x-y",
                ),
                ready="127.0.0.1:{port:worker}/openapi.json",
            ),
            Program(
                argv=(
                    *serve, "fastchat.serve.openai_api_server", "--host", "127.0.0.1", "--port", "18100",
                    "--controller-address", controller,
                )
            ),
        ),
        env=(("LOGDIR", ""),),
    )  # fmt: skip
    argv = fastchat.launch(replace(ON_GPUS, options=())).programs[1].argv
    assert argv[-6:] == ("--device", "cuda", "--num-gpus", "2", "--dtype", "float16")


def test_xinference_is_a_server_that_is_told_of_its_model() -> None:
    server, setup = xinference.launch(SERVICE).programs
    assert server == Program(
        argv=("/env/bin/program", "-H", "127.0.0.1", "-p", "18100", "--log-level", "warning"),
        ready="127.0.0.1:18100/status",
    )
    assert setup == Program(
        argv=(
            "{python}", "-m", "appliance.system.prepare.xinference", "127.0.0.1:18100", "tiny", "/store/dir",
            "8192", "3", "0", "seed", "1", "x-y", "",
        ),
        once=True,
    )  # fmt: skip
    assert dict(xinference.launch(SERVICE).env) == {
        "XINFERENCE_AUTH_ADVANCED": "0", "XINFERENCE_ENABLE_VIRTUAL_ENV": "0",
        "XINFERENCE_VIRTUAL_ENV_OFFLINE_INSTALL": "1", "XINFERENCE_MODEL_SRC": "huggingface",
        "XINFERENCE_TRUST_REMOTE_CODE": "0", "XINFERENCE_HOME": "/cache/tiny/xinference",
    }  # fmt: skip
    assert health(replace(SERVICE, engine="xinference")) == "/v1/models/tiny"


def test_ollama_is_told_everything_by_environment_and_its_model_by_its_api() -> None:
    service = replace(SERVICE, weights="/store/model.gguf", options=(("max-queue", "9"),))
    launch = ollama.launch(service)
    assert dict(launch.env) == {
        "OLLAMA_HOST": "127.0.0.1:18100", "OLLAMA_MODELS": "/cache/tiny/models", "OLLAMA_CONTEXT_LENGTH": "8192", "OLLAMA_NUM_PARALLEL": "3",
        "OLLAMA_MAX_LOADED_MODELS": "1", "OLLAMA_KEEP_ALIVE": "-1", "OLLAMA_LOAD_TIMEOUT": "90s",
        "OLLAMA_NO_CLOUD": "1", "OLLAMA_MAX_QUEUE": "9",
    }  # fmt: skip
    assert launch.programs == (
        Program(argv=("/env/bin/program", "serve"), ready="127.0.0.1:18100/api/version"),
        Program(
            argv=(
                "{python}", "-m", "appliance.system.prepare.ollama", "127.0.0.1:18100", "tiny", "/store/model.gguf",
                "8192", "0", "5",
            ),
            once=True,
        ),
    )  # fmt: skip
    quantised = replace(ON_GPUS, setting=replace(SETTING, kv_type="q8_0", gpu_layers=17), options=())
    env = dict(ollama.launch(quantised).env)
    assert (env["OLLAMA_KV_CACHE_TYPE"], env["OLLAMA_FLASH_ATTENTION"], env["OLLAMA_SCHED_SPREAD"]) == (
        "q8_0",
        "1",
        "1",
    )
    assert ollama.launch(quantised).programs[1].argv[-2] == "17"


def test_the_words_that_start_tei() -> None:
    assert tei.launch(replace(SERVICE, program="text-embeddings-router")) == Launch(
        argv=(
            "text-embeddings-router", "--json-output", "--model-id", "/store/dir", "--served-model-name", "tiny",
            "--hostname", "127.0.0.1", "--port", "18100", "--dtype", "float32", "--max-batch-tokens", "16384",
            "--seed", "1", "--x-y",
        ),
    )  # fmt: skip
    argv = tei.launch(ON_GPUS).argv
    assert argv[argv.index("--dtype") + 1] == "float16"


def test_the_words_that_start_lightllm() -> None:
    assert lightllm.launch(replace(ON_GPUS, program="python")) == Launch(
        argv=(
            "python", "-m", "lightllm.server.api_server", "--model_dir", "/store/dir", "--model_name", "tiny",
            "--host", "127.0.0.1", "--port", "18100", "--tp", "2", "--max_req_total_len", "8192",
            "--mem_fraction", "0.812", "--batch_max_tokens", "8192", "--data_type", "float16",
            "--llm_kv_type", "int8kv", "--running_max_req_size", "3", "--seed", "1", "--x-y",
        ),
    )  # fmt: skip


def test_what_is_made_of_pytorch_gets_more_time_to_start() -> None:
    """Xinference was seen to take 68 seconds on two cores, with a model of 3 MB."""
    plan = deployment(item(engine="xinference"), facts=safetensors(), catalog=catalog.load())
    assert plan.services[0].start_timeout > 600
    assert (plan.services[0].port, plan.gateway.routes[0].health) == (18100, "/v1/models/tiny")
