"""Each engine: what it refuses, what it takes, and with which words it is started."""

import re
from dataclasses import replace

import pytest

from appliance.catalog import providers
from appliance.domain.host import Gpu
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting
from appliance.domain.version import version
from appliance.domain.weights import Layers
from appliance.engines import dummy, engine, engines, llama_cpp, llama_cpp_python, lmdeploy, sglang, vllm
from appliance.errors import SpecError
from appliance.memory import MIB
from appliance.render.pages import launches
from tests.unit.samples import CATALOG, GIB, HOST, LMDEPLOY, VLLM, deployment, gpu, model, safetensors, weights

SERVICE = Service(
    name="tiny_1",
    model="tiny",
    engine="llama-cpp",
    version="1.0",
    program="/engines/program",
    weights="/store/model.gguf",
    socket="/run/tiny_1/engine.sock",
    setting=Setting(context=2048, parallel=4),
    threads=3,
    start_timeout=60,
    options=(("temp", "0.5"), ("mlock", ""), ("n-gpu-layers", "0")),
    home="/cache/tiny",
)
SAFETENSORS = model(facts=safetensors())
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


def test_the_dummy_serves_what_has_no_weights() -> None:
    assert dummy.refuse(NONE, HOST, row("dummy")) is None
    assert dummy.refuse(model(), HOST, row("dummy")) == "serves no weights, it only pretends"


@pytest.mark.parametrize("name", ["vllm", "sglang", "lmdeploy"])
def test_what_is_made_of_pytorch_reads_safetensors_only(name: str) -> None:
    assert engine(name).refuse(SAFETENSORS, HOST, VLLM) is None
    said = engine(name).refuse(model(), HOST, VLLM)
    assert said
    assert re.fullmatch(r"reads safetensors only( here)?, tiny is gguf", said)


def test_a_release_that_is_too_old_for_an_architecture_is_refused() -> None:
    new = model(facts=safetensors(architecture="Qwen3NextForCausalLM"))
    assert vllm.refuse(new, HOST, replace(VLLM, version="0.16.2")) == "knows Qwen3NextForCausalLM from 0.17.0 on"
    assert vllm.refuse(new, HOST, replace(VLLM, version="0.17.0")) is None
    assert lmdeploy.refuse(model(facts=safetensors(architecture="Gemma4ForCausalLM")), HOST, LMDEPLOY) == (
        "does not know Gemma4ForCausalLM"
    )


@pytest.mark.parametrize(
    ("quantisation", "lowest"),
    [
        ("mxfp4", {"vllm": "8.0", "sglang": "8.0", "lmdeploy": ""}),
        ("fp8", {"vllm": "7.5", "sglang": "8.9", "lmdeploy": "8.9"}),
        ("bfloat16", {"vllm": "", "sglang": "", "lmdeploy": ""}),
        ("awq", {"vllm": "", "sglang": "", "lmdeploy": ""}),
    ],
)
def test_types_that_old_gpus_cannot_compute_with(quantisation: str, lowest: dict[str, str]) -> None:
    known = model(facts=safetensors(quantisation=quantisation))
    for name, needed in lowest.items():
        for capability in ("7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"):
            why = engine(name).unfit(known, (gpu(0, compute_capability="12.0"), gpu(1, compute_capability=capability)))
            assert why == (
                f"{quantisation} needs compute capability {needed}, NVIDIA L4 has {capability}"
                if version(capability) < version(needed) else None
            )  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "by"),
    [
        ("Gemma2ForCausalLM", {"vllm", "sglang", "lmdeploy", "lightllm", "xinference"}),
        ("Gemma3ForConditionalGeneration", {"vllm", "sglang", "lmdeploy", "lightllm", "xinference"}),
        ("Glm4ForCausalLM", {"vllm"}),
        ("Plamo2ForCausalLM", {"vllm"}),
        ("GemmaForCausalLM", set()),
        ("Qwen3ForCausalLM", set()),
    ],
)
def test_architectures_that_need_bfloat16(architecture: str, by: set[str]) -> None:
    known = model(facts=safetensors(architecture=architecture))
    turing, ampere = gpu(name="Tesla T4", compute_capability="7.5"), gpu(compute_capability="8.0")
    said = f"{architecture} needs bfloat16, which Tesla T4 (7.5) has not"
    for name in engines():
        assert engine(name).unfit(known, (turing,)) == (said if name in by else None)
        assert engine(name).unfit(known, (ampere,)) is None


@pytest.mark.parametrize("name", sorted(engines()))
def test_what_is_not_known_of_a_gpu_refuses_nothing(name: str) -> None:
    known = model(facts=safetensors(architecture="Gemma3ForCausalLM", quantisation="nvfp4"))
    silent, other = gpu(compute_capability=""), replace(gpu(compute_capability="7.0"), vendor="amd")
    assert [engine(name).unfit(known, gpus) for gpus in ((), (silent,), (other,))] == [None] * 3


def test_llama_cpp_reserves_every_slot() -> None:
    (load,) = llama_cpp.estimate(model(), Setting(context=1024, parallel=4), ())
    assert load.device == "ram"
    assert dict(load.items)["weights"] == 1 << 30
    assert dict(load.items)["KV cache"] == 1024 * 4 * (64 << 10)


def test_llama_cpp_python_serves_one_request_whatever_is_asked() -> None:
    four, one = (Setting(context=1024, parallel=parallel) for parallel in (4, 1))
    assert llama_cpp_python.estimate(model(), four, ()) == llama_cpp_python.estimate(model(), one, ())
    assert dict(llama_cpp_python.estimate(model(), four, ())[0].items)["KV cache"] == 1024 * (64 << 10)


def items(name: str, setting: Setting, *gpus: Gpu) -> dict[str, int]:
    """Return what each GPU takes; all the same."""
    ram, *loads = engine(name).estimate(SAFETENSORS, setting, gpus)
    assert (ram.device, dict(ram.items)) == ("ram", {"processes": 3 * len(gpus) * GIB})
    assert [load.device for load in loads] == [one.device for one in gpus]
    assert len({load.items for load in loads}) == 1
    return dict(loads[0].items)


def test_what_vllm_takes_of_a_gpu() -> None:
    assert items("vllm", Setting(context=4096, parallel=2), gpu()) == {
        "weights": GIB,
        "KV cache": 2 * 256 * MIB,
        "activations": 2048 * 2 * (5 * 4096 + 3 * 12288) + 256 * 151936 * 6,
        "CUDA graphs": (256 + 16 * 6) * MIB,
        "libraries": 600 * MIB,
        "reserve": (512 << 20) + 24 * GIB // 200,
    }
    two = items("vllm", Setting(context=4096, parallel=2, tensor_parallel=2), gpu(0, 80), gpu(1, 80))
    assert two["weights"] == GIB // 2
    assert two["KV cache"] == 256 * MIB
    assert two["activations"] == 8192 * 2 * (5 * 4096 + 3 * 12288 // 2) + 1024 * 151936 * 6, (
        "a larger GPU, larger steps"
    )
    assert two["libraries"] == (600 + 512) * MIB
    assert two["reserve"] == (512 << 20) + 80 * GIB // 200
    assert "reserve" not in items("vllm", Setting(context=4096, parallel=2), replace(gpu(), memory=None, unified=True))


def test_what_vllm_takes_of_the_ram_without_a_gpu() -> None:
    (load,) = vllm.estimate(SAFETENSORS, Setting(context=4096, parallel=5), ())
    assert load.device == "ram"
    assert dict(load.items)["weights"] == GIB
    assert dict(load.items)["KV cache"] == 2 * GIB, "5 × 256 MiB, in whole GiB"


def test_what_sglang_takes_of_a_gpu() -> None:
    small = items("sglang", Setting(context=4000, parallel=1), gpu())
    assert small["KV cache"] == 4000 * (64 << 10), "its blocks are of one token"
    assert small["activations"] == (512 + 4096 * 3 // 2 + 128 + 2 * 48) * MIB
    large = items("sglang", Setting(context=4000, parallel=1), gpu(0, 80))
    assert large["activations"] == (512 + 8192 * 3 // 2 + 128 + 2 * 256) * MIB
    assert items("sglang", Setting(context=4000, parallel=1), gpu(0, 8))["activations"] == (512 + 3072 + 128 + 16) * MIB


def test_what_lmdeploy_takes_of_a_gpu() -> None:
    found = items("lmdeploy", Setting(context=4000, parallel=1, kv_type="int8"), gpu())
    assert found["KV cache"] == 4032 * (64 << 10) * 17 // 32, "blocks of 64 tokens; 8 bits and what scales them"
    assert found["activations"] == (8192 + 512) * 151936 * 2


def test_how_many_gpus_one_replica_can_have() -> None:
    thirty = model(facts=safetensors(heads=30, cache=(Layers(kind="full", count=16, kv_heads=6, key=128, value=128),)))
    assert vllm.spreads(thirty, 8) == sglang.spreads(thirty, 8) == (1, 2, 3, 6)
    assert lmdeploy.spreads(thirty, 8) == (1, 2)
    assert llama_cpp.spreads(thirty, 5) == (1, 2, 3, 4, 5)
    assert llama_cpp.spreads(model(facts=weights(layers=2)), 5) == (1, 2), "a layer is on one GPU"
    assert dummy.spreads(NONE, 8) == ()


def test_which_smaller_caches_there_are() -> None:
    new, old = gpu(), gpu(1, compute_capability="8.0")
    assert vllm.caches(SAFETENSORS, (new,)) == sglang.caches(SAFETENSORS, (new,)) == ("fp8",)
    assert (
        vllm.caches(SAFETENSORS, (new, old)) == sglang.caches(SAFETENSORS, (old,)) == vllm.caches(SAFETENSORS, ()) == ()
    )
    assert lmdeploy.caches(SAFETENSORS, (old,)) == ("int8", "int4")
    assert llama_cpp.caches(model(), ()) == ("q8_0", "q4_0")


def test_the_words_that_start_llama_cpp() -> None:
    assert llama_cpp.launch(SERVICE) == Launch(
        argv=(
            "/engines/program", "--model", "/store/model.gguf", "--alias", "tiny", "--host", "/run/tiny_1/engine.sock",
            "--ctx-size", "8192",  # 2048 for each of 4 slots
            "--parallel", "4", "--threads", "3", "--jinja", "--metrics", "--no-webui", "--offline", "--cache-ram", "0",
            "--temp", "0.5", "--mlock", "--n-gpu-layers", "0",  # a flag without a value is one word
        )
    )  # fmt: skip


def test_the_words_that_start_llama_cpp_on_a_gpu() -> None:
    setting = Setting(context=2048, parallel=4, gpu_layers=17)
    service = replace(SERVICE, setting=setting, accelerator="cuda12.9", gpus=("GPU-0",), options=())
    assert llama_cpp.launch(service).argv[-6:] == ("--gpu-layers", "17", "--split-mode", "layer", "--fit", "off")
    two = replace(service, gpus=("GPU-0", "GPU-1"))
    assert value(llama_cpp.launch(two).argv, "--tensor-split") == "1,1", "by itself it would look at what is free"
    none = replace(service, gpus=(), setting=replace(setting, gpu_layers=0))
    assert value(llama_cpp.launch(none).argv, "--gpu-layers") == "0"


def test_a_quantised_cache_needs_flash_attention() -> None:
    service = replace(SERVICE, setting=Setting(context=2048, parallel=4, kv_type="q8_0"), options=())
    assert llama_cpp.launch(service).argv[9:15] == (
        "--cache-type-k", "q8_0", "--cache-type-v", "q8_0", "--flash-attn", "on",
    )  # fmt: skip


ON_GPUS = replace(
    SERVICE, accelerator="cuda12.9", weights="/store/dir", port=18100, gpus=("GPU-0", "GPU-1"), vendor="nvidia",
    setting=Setting(context=8192, parallel=1, tensor_parallel=2, memory_share=0.9), options=(("seed", "1"), ("x", "")),
)  # fmt: skip
TIGHT = replace(
    ON_GPUS, gpus=("GPU-0",), options=(),
    setting=Setting(context=8192, parallel=8, kv_type="fp8", dtype="half", memory_share=0.6155),
)  # fmt: skip


def test_the_words_that_start_vllm() -> None:
    assert vllm.launch(ON_GPUS) == Launch(
        argv=(
            "/engines/program", "serve", "/store/dir", "--served-model-name", "tiny", "--uds", "/run/tiny_1/engine.sock",
            "--max-model-len", "8192", "--dtype", "auto", "--kv-cache-dtype", "auto",
            "--tensor-parallel-size", "2", "--gpu-memory-utilization", "0.900", "--seed", "1", "--x",
        ),
        env=(
            ("VLLM_NO_USAGE_STATS", "1"), ("VLLM_DO_NOT_TRACK", "1"), ("VLLM_CACHE_ROOT", "/cache/tiny/vllm"),
            ("VLLM_USE_MODELSCOPE", "False"),
        ),
    )  # fmt: skip
    tight = vllm.launch(TIGHT).argv
    assert (value(tight, "--dtype"), value(tight, "--kv-cache-dtype"), value(tight, "--max-num-seqs")) == (
        "half",
        "fp8",
        "8",
    )


def test_the_words_that_start_vllm_on_the_cpu() -> None:
    items = (("weights", GIB), ("KV cache", 3 * GIB))
    service = replace(
        SERVICE, accelerator="cpu", loads=(Load(device="ram", items=items),), options=(),
        setting=Setting(context=8192, parallel=1),
    )  # fmt: skip
    launch = vllm.launch(service)
    assert dict(launch.env)["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert not {"--gpu-memory-utilization", "--tensor-parallel-size"} & set(launch.argv)


def test_the_words_that_start_sglang() -> None:
    assert sglang.launch(ON_GPUS) == Launch(
        argv=(
            "/engines/program", "-m", "sglang.launch_server", "--model-path", "/store/dir", "--served-model-name", "tiny",
            "--host", "127.0.0.1", "--port", "18100", "--enable-metrics",
            "--context-length", "8192", "--dtype", "auto", "--kv-cache-dtype", "auto", "--tp-size", "2",
            "--mem-fraction-static", "0.900", "--seed", "1", "--x",
        ),
    )  # fmt: skip
    tight = sglang.launch(TIGHT).argv
    assert (value(tight, "--kv-cache-dtype"), value(tight, "--max-running-requests")) == ("fp8_e4m3", "8")


def test_the_words_that_start_lmdeploy() -> None:
    assert lmdeploy.launch(ON_GPUS) == Launch(
        argv=(
            "/engines/program", "serve", "api_server", "/store/dir", "--model-name", "tiny",
            "--server-name", "127.0.0.1", "--server-port", "18100", "--session-len", "8192",
            "--quant-policy", "0", "--tp", "2", "--cache-max-entry-count", "0.900", "--seed", "1", "--x",
        ),
    )  # fmt: skip
    tight = lmdeploy.launch(replace(TIGHT, setting=replace(TIGHT.setting, kv_type="int4"))).argv
    assert (value(tight, "--quant-policy"), value(tight, "--dtype"), value(tight, "--max-batch-size")) == (
        "4",
        "float16",
        "8",
    )


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("vllm", "--gpu-memory-utilization"),
        ("sglang", "--mem-fraction-static"),
        ("lmdeploy", "--cache-max-entry-count"),
    ],
)
@pytest.mark.parametrize("share", [0.001, 0.615, 0.925, 0.99])
def test_a_share_is_not_rounded_away(name: str, flag: str, share: float) -> None:
    service = replace(ON_GPUS, setting=replace(ON_GPUS.setting, memory_share=share))
    assert float(value(engine(name).launch(service).argv, flag)) == share


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


def test_llama_cpp_python_is_told_its_layers_on_a_gpu() -> None:
    service = replace(
        SERVICE, accelerator="cuda12.9", setting=Setting(context=2048, parallel=1, gpu_layers=9), options=()
    )
    one, two, other = (
        dict(llama_cpp_python.launch(replace(service, **changes)).env)
        for changes in (
            {"gpus": ("GPU-0",)},
            {"gpus": ("GPU-0", "GPU-1")},
            {"accelerator": "rocm6.4", "gpus": ("0", "1")},
        )
    )
    assert one["N_GPU_LAYERS"] == two["N_GPU_LAYERS"] == other["N_GPU_LAYERS"] == "9"
    assert "TENSOR_SPLIT" not in one
    assert two["TENSOR_SPLIT"] == other["TENSOR_SPLIT"] == "[1,1]", "as the plan has counted"
    assert one["LD_LIBRARY_PATH"] == "/engines/program/lib/nvidia"
    assert "LD_LIBRARY_PATH" not in other, "those wheels use the machine's"


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


@pytest.mark.parametrize("name", ["vllm", "sglang", "lmdeploy"])
def test_an_environment_is_named_by_its_digest(name: str) -> None:
    release = replace(VLLM, artifacts=(replace(VLLM.artifacts[0], digest="0123456789abcdef" + "f" * 48),))
    assert engine(name).program(release, "/s", "/py").startswith(f"/s/engines/{name}-0123456789abcdef/bin/")


@pytest.mark.parametrize("name", sorted(engines()))
def test_nobody_else_can_reach_an_engine(name: str) -> None:
    module = engine(name)
    remote = providers.place("remote:moonshot/kimi") if name == "remote" else None
    here = replace(ON_GPUS, options=(), port=18100 if module.ADDRESS == "tcp" else 0, remote=remote)
    launch = module.launch(here)
    programs = (word for one in launch.programs for word in one.argv)
    words = (*launch.argv, *programs, *(value for _, value in launch.env))
    parts = {part for word in words for part in re.split("[/:]", word)}
    assert not any("0.0.0.0" in word for word in words)
    assert sum(SERVICE.socket in word for word in words) == (module.ADDRESS == "unix")
    assert ("127.0.0.1" in parts) == (module.ADDRESS == "tcp")
    assert ("18100" in parts) == (module.ADDRESS == "tcp")


@pytest.mark.parametrize(
    ("vendor", "variable"),
    [
        ("nvidia", "CUDA_VISIBLE_DEVICES"), ("amd", "HIP_VISIBLE_DEVICES"), ("intel", "ZE_AFFINITY_MASK"),
        ("ascend", "ASCEND_RT_VISIBLE_DEVICES"), ("metax", "CUDA_VISIBLE_DEVICES"),
        ("moore-threads", "MUSA_VISIBLE_DEVICES"), ("hygon", "HIP_VISIBLE_DEVICES"),
    ],
)  # fmt: skip
def test_a_replica_sees_its_own_gpus_only(vendor: str, variable: str) -> None:
    plan = replace(deployment(), services=(replace(ON_GPUS, engine="vllm", vendor=vendor),))
    (unit,) = launches(plan)
    assert unit.launch.env[-1] == (variable, "GPU-0,GPU-1")
    assert unit.launch.argv == vllm.launch(ON_GPUS).argv


def test_a_replica_on_the_cpu_is_told_of_no_gpu() -> None:
    (unit,) = launches(deployment())
    assert unit.launch.argv == llama_cpp.launch(unit.service).argv
    assert not [name for name, _ in unit.launch.env if name.endswith("VISIBLE_DEVICES")]


@pytest.mark.parametrize("name", sorted(engines()))
def test_what_every_engine_says_of_itself(name: str) -> None:
    module = engine(name)
    assert module.NAME == name
    assert module.HEALTH.startswith("/") or name == "remote"
    assert module.PARALLEL >= 1 or name == "remote"
    assert getattr(module, "METRICS", "/metrics") == "/metrics"
    assert module.pages(SERVICE) == ()
    assert module.ADDRESS in ("unix", "tcp")
    setting = Setting(context=512, parallel=1, gpu_layers=17)
    for load in module.estimate(model(), setting, (gpu(),)):
        assert load.total > 0 or name == "remote"
        assert all(amount > 0 for _, amount in load.items)
