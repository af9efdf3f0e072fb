"""The way down from what is wanted to what fits: which step comes when, and what is never stepped."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.host import Gpu
from appliance.domain.service import Setting
from appliance.domain.spec import ModelSpec
from appliance.domain.weights import Weights
from appliance.engines import Engine, engine, llama_cpp, llama_cpp_python, lmdeploy, vllm
from appliance.memory.llama import WIDTHS
from appliance.plan.ladder import ladder, wanted
from tests.unit.samples import gpu, item, model, safetensors, weights

WIDTH = WIDTHS | {"fp8": 1.0, "int8": 1.0, "int4": 0.5}


def steps(spec: ModelSpec, facts: Weights, module: Engine, gpus: tuple[Gpu, ...] = ()) -> list[Setting]:
    return [setting for setting, _ in ladder(spec, model(facts=facts), module, gpus)]


def names(spec: ModelSpec, facts: Weights, module: Engine, gpus: tuple[Gpu, ...] = ()) -> list[str]:
    return [name for _, name in ladder(spec, model(facts=facts), module, gpus)]


def test_what_is_wanted_is_what_the_model_was_trained_for() -> None:
    assert wanted(item(), model(facts=weights(context=40960)), llama_cpp) == Setting(context=40960, parallel=4)
    assert wanted(item(), model(facts=weights(context=0)), llama_cpp).context == 4096, "the header does not say"
    asked = item(context=100, parallel=7, kv_type="q8_0")
    assert wanted(asked, model(), llama_cpp) == Setting(context=100, parallel=7, kv_type="q8_0")
    assert wanted(item(), model(), llama_cpp_python).parallel == 1


def test_the_order_on_the_cpu() -> None:
    assert names(item(), weights(context=32768), llama_cpp) == [
        "", "context 16384", "context 8192", "2 at the same time", "1 at the same time",
        "KV cache q8_0", "KV cache q4_0", "context 4096", "context 2048", "context 1024", "context 512",
    ]  # fmt: skip


def test_the_order_on_gpus_of_an_engine_that_moves_layers() -> None:
    found = names(item(), weights(context=8192, layers=3), llama_cpp, (gpu(),))
    assert found == [
        "", "2 at the same time", "1 at the same time", "KV cache q8_0", "KV cache q4_0",
        "2 of 3 layers on the GPU", "1 of 3 layers on the GPU", "0 of 3 layers on the GPU",
        *(
            name
            for context in (4096, 2048, 1024, 512)
            for name in (
                f"context {context}",
                "2 of 3 layers on the GPU", "1 of 3 layers on the GPU", "0 of 3 layers on the GPU",
            )
        ),
    ]  # fmt: skip
    layers = [setting.gpu_layers for setting in steps(item(), weights(context=8192, layers=3), llama_cpp, (gpu(),))]
    assert layers == [4, 4, 4, 4, 4, 3, 2, 1] + [4, 3, 2, 1] * 4, "the output counts as one more"


def test_layers_in_ram_have_the_cache_that_was_wanted() -> None:
    """A smaller cache is worth it only where it keeps all layers on the GPUs."""
    found = steps(item(), weights(context=1024, layers=2), llama_cpp, (gpu(),))
    assert [(setting.context, setting.kv_type, setting.gpu_layers) for setting in found[2:]] == [
        (1024, "auto", 3), (1024, "q8_0", 3), (1024, "q4_0", 3), (1024, "auto", 2), (1024, "auto", 1),
        (512, "q4_0", 3), (512, "auto", 2), (512, "auto", 1),
    ]  # fmt: skip
    asked = steps(item(kv_type="q8_0"), weights(context=1024, layers=2), llama_cpp, (gpu(),))
    assert {setting.kv_type for setting in asked} == {"q8_0"}


def test_the_order_of_an_engine_that_keeps_everything_on_gpus() -> None:
    facts = safetensors(context=16384)
    assert names(item(), facts, vllm, (gpu(),)) == [
        "", "context 8192", "KV cache fp8", "context 4096", "context 2048", "context 1024", "context 512",
    ]  # fmt: skip
    assert "KV cache fp8" not in names(item(), facts, vllm, (gpu(), gpu(1, compute_capability="8.6")))
    assert names(item(), facts, lmdeploy, (gpu(),))[2:4] == ["KV cache int8", "KV cache int4"]
    assert {setting.gpu_layers for setting in steps(item(), facts, vllm, (gpu(),))} == {0}


def test_without_a_gpu_no_layer_is_moved() -> None:
    assert {setting.gpu_layers for setting in steps(item(), weights(), llama_cpp)} == {0}


@pytest.mark.parametrize(
    ("asked", "field", "value"),
    [
        ({"context": 30000}, "context", 30000),
        ({"parallel": 3}, "parallel", 3),
        ({"kv_type": "q8_0"}, "kv_type", "q8_0"),
    ],
)
def test_what_was_asked_for_stays(asked: dict[str, Any], field: str, value: object) -> None:
    found = steps(item(**asked), weights(context=131072), llama_cpp, (gpu(),))
    assert {getattr(setting, field) for setting in found} == {value}
    assert len(found) > 10, "the rest may give way"


def test_strict_is_all_or_nothing() -> None:
    assert steps(item(strict=True), weights(context=131072), llama_cpp, (gpu(),)) == [
        Setting(context=131072, parallel=4, gpu_layers=17)
    ]


def test_a_small_context_stays_as_it_is() -> None:
    assert {setting.context for setting in steps(item(), weights(context=1000), llama_cpp)} == {1000}
    assert min(setting.context for setting in steps(item(), weights(context=40960), llama_cpp)) == 640


items = st.builds(
    item,
    context=st.none() | st.integers(64, 1 << 24),
    parallel=st.none() | st.integers(1, 1024),
    kv_type=st.sampled_from(["auto", "q8_0"]),
)


@given(
    items,
    st.integers(0, 1 << 20),
    st.integers(1, 100),
    st.sampled_from(["llama-cpp", "llama-cpp-python", "vllm", "lmdeploy"]),
    st.integers(0, 2),
)
def test_every_step_gives_up_something(spec: ModelSpec, context: int, layers: int, name: str, count: int) -> None:
    """In the order in which things are given up: the first that differs is smaller, so no setting comes twice."""

    def size(setting: Setting) -> tuple[int, int, int, float]:
        return setting.context, setting.parallel, setting.gpu_layers, WIDTH[setting.kv_type]

    facts = weights(context=context, layers=layers)
    gpus = tuple(gpu(index) for index in range(count))
    found = steps(spec, facts, engine(name), gpus)
    for before, after in pairwise(found):
        assert size(after) < size(before)
    for setting in found:
        assert setting.context == found[0].context or setting.context >= 512
        assert 0 < setting.gpu_layers <= layers + 1 or not (gpus and engine(name).layers(model(facts=facts)))
        assert setting.parallel >= 1
