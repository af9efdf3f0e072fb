"""What llama.cpp reserves, worked out by hand for one model of each kind."""

from dataclasses import replace

import pytest

from appliance.domain.service import Load, Setting
from appliance.domain.weights import Layers, Weights
from appliance.memory import MIB
from appliance.memory.llama import DRIVER, buffers, cache, cells, estimate, state
from tests.unit.samples import GIB, gpu, weights

ONE = Setting(context=4096, parallel=1)
PROCESS = 48 * MIB


def kept(group: Layers) -> Weights:
    return weights(cache=(group,))


def loads(facts: Weights, setting: Setting, count: int = 1) -> dict[str, dict[str, int]]:
    found = estimate(facts, setting, tuple(gpu(index) for index in range(count)), PROCESS)
    return {load.device: dict(load.items) for load in found}


@pytest.mark.parametrize(
    ("context", "parallel", "number"),
    [
        (1, 1, 256), (256, 1, 256), (257, 1, 512), (4096, 1, 4096), (40960, 1, 40960),
        # The whole is 1024 of 1000 tokens, and four have 256 each; of 1028 it is 1280, and four have 320, which is 512.
        (250, 4, 256), (256, 4, 256), (257, 4, 512), (4096, 4, 4096),
        # Three share 768 of 600 evenly; of 900 it is 1024, and 341 each is 512.
        (200, 3, 256), (300, 3, 512),
        (1, 3, 256), (1, 300, 256),
    ],
)  # fmt: skip
def test_the_cache_is_made_of_256_cells_at_a_time(context: int, parallel: int, number: int) -> None:
    assert cells(Setting(context=context, parallel=parallel)) == number


@pytest.mark.parametrize(
    ("group", "amount"),
    [
        pytest.param(Layers(kind="full", count=16, kv_heads=32, key=128, value=128), 4096 * 16 * 32 * 256 * 2, id="MHA"),
        pytest.param(Layers(kind="full", count=16, kv_heads=8, key=128, value=128), 4096 * 16 * 8 * 256 * 2, id="GQA"),
        pytest.param(Layers(kind="full", count=16, kv_heads=8, key=192, value=128), 4096 * 16 * 8 * 320 * 2, id="K ≠ V"),
        pytest.param(Layers(kind="latent", count=16, kv_heads=1, key=576), 4096 * 16 * 576 * 2, id="MLA"),
        # 1024 tokens and 512 that are computed, in 256s.
        pytest.param(
            Layers(kind="window", count=16, kv_heads=8, key=128, value=128, window=1024), 1536 * 16 * 8 * 256 * 2, id="window"
        ),
        # A window of 1000 needs as much; one that is wider than the context, no more than the context.
        pytest.param(
            Layers(kind="window", count=16, kv_heads=8, key=128, value=128, window=1000), 1536 * 16 * 8 * 256 * 2, id="odd"
        ),
        pytest.param(
            Layers(kind="window", count=16, kv_heads=8, key=128, value=128, window=9000), 4096 * 16 * 8 * 256 * 2, id="wide"
        ),
        # In 32 bits, whatever the context.
        pytest.param(Layers(kind="recurrent", count=16, convolution=3 * 8192, state=524288), 16 * 548864 * 4, id="state"),
    ],
)  # fmt: skip
def test_the_cache_of_one_slot(group: Layers, amount: int) -> None:
    assert cache(kept(group), ONE) == amount
    assert cache(kept(group), replace(ONE, parallel=4)) == 4 * amount, "every slot has its own"


def test_layers_of_several_kinds_add_up() -> None:
    full = Layers(kind="full", count=2, kv_heads=4, key=256, value=256)
    window = Layers(kind="window", count=10, kv_heads=4, key=256, value=256, window=512)
    both = cache(weights(cache=(full, window)), ONE)
    assert both == cache(kept(full), ONE) + cache(kept(window), ONE) == 2 * 4 * 512 * (2 * 4096 + 10 * 1024)


def test_a_quantised_cache_carries_a_scale_for_32_elements() -> None:
    plain = cache(weights(), ONE)
    assert cache(weights(), replace(ONE, kv_type="f16")) == plain
    assert cache(weights(), replace(ONE, kv_type="q8_0")) == plain * 34 // 64
    assert cache(weights(), replace(ONE, kv_type="q4_0")) == plain * 18 // 64
    scan = kept(Layers(kind="recurrent", count=16, convolution=1024, state=1024))
    assert cache(scan, replace(ONE, kv_type="q4_0")) == cache(scan, ONE), "a state is not quantised"


def test_a_state_is_counted_apart() -> None:
    group = Layers(kind="recurrent", count=16, convolution=1024, state=2048, state_bits=16)
    assert state(kept(group), replace(ONE, parallel=3)) == 3 * 16 * 3072 * 4, "32 bits, whatever other engines keep"
    assert state(weights(), ONE) == 0


def widest(facts: Weights, setting: Setting = ONE, mask: int = 4096) -> int:
    """Return the numbers for each token that the widest layer needs, from what is reserved beside masks and logits."""
    fixed = 512 * 24 + 2 * 512 * mask + 4 * facts.vocabulary * setting.parallel
    number, rest = divmod(buffers(facts, setting) - fixed, 512 * 4)
    assert rest == 0
    return number


def test_a_step_computes_512_tokens() -> None:
    """In the widest layer, beside a mask of 16 bits for each cell, six numbers a token, and the logits of each slot."""
    facts = weights(vocabulary=100_000, hidden=1000, feed_forward=9000)
    one = 512 * (4 * (3 * 1000 + 3 * 9000) + 24) + 2 * 512 * 4096 + 4 * 100_000
    assert buffers(facts, ONE) == one, "the vocabulary counts once, not for every token of the step"
    assert buffers(facts, replace(ONE, parallel=4)) == one + 3 * 4 * 100_000
    short = 256 * (4 * 30_000 + 24) + 2 * 256 * 256 + 4 * 100_000
    assert buffers(facts, replace(ONE, context=100)) == short, "a step is no longer than all slots together"


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        pytest.param({"feed_forward": 9000}, 3 * 1000 + 3 * 9000, id="feed forward"),
        pytest.param({"heads": 32}, 3 * 1000 + 2 * 32 * 128, id="queries"),
        pytest.param({"experts": 64}, 3 * 1000 + 2 * 8 * 1000, id="experts"),
        pytest.param({"experts": 64, "heads": 80}, 3 * 1000 + 2 * 80 * 128, id="more queries than experts"),
        pytest.param({"hidden": 5000}, 3 * 5000 + 3 * 100, id="hidden"),
    ],
)
def test_the_widest_layer(changes: dict[str, int], number: int) -> None:
    facts = weights(**{"hidden": 1000, "feed_forward": 100, "heads": 1} | changes)
    assert widest(facts) == number


def test_latent_attention_computes_with_the_row_of_every_head() -> None:
    latent = Layers(kind="latent", count=16, kv_heads=1, key=576)
    assert widest(weights(cache=(latent,), heads=128, hidden=1000, feed_forward=100)) == 128 * 2 * 576


def test_every_window_has_a_mask_of_its_own() -> None:
    full = Layers(kind="full", count=2, kv_heads=4, key=128, value=128)
    near, far = (Layers(kind="window", count=2, kv_heads=4, key=128, value=128, window=width) for width in (512, 1024))
    both = buffers(weights(cache=(full, near, far)), ONE)
    assert both - buffers(weights(cache=(full,)), ONE) == 2 * 512 * (1024 + 1536)
    assert buffers(weights(cache=(near,)), ONE) == both - 2 * 512 * (4096 + 1536), "no layer sees everything"


def test_a_recurrent_layer_computes_in_copies_of_its_state() -> None:
    group = Layers(kind="recurrent", count=16, convolution=30_000, state=500_000)
    facts = weights(cache=(group,), hidden=1000, feed_forward=100)
    one = 512 * (4 * 50_000 + 24) + 4 * (500_000 + 60_000) + 4 * facts.vocabulary
    assert buffers(facts, ONE) == one, "five thirds of the convolution; no mask"
    assert buffers(facts, replace(ONE, parallel=2)) == one + 4 * (560_000 + facts.vocabulary)


def test_without_gpus_everything_lies_in_ram() -> None:
    assert estimate(weights(), ONE, (), PROCESS) == (
        Load(
            device="ram",
            items=(("weights", GIB), ("KV cache", 256 * MIB), ("buffers", buffers(weights(), ONE) + PROCESS)),
        ),
    )
    assert estimate(weights(), replace(ONE, gpu_layers=0), (gpu(),), PROCESS)[0].device == "ram"


def test_on_one_gpu_the_embedding_stays_in_ram() -> None:
    found = loads(weights(), replace(ONE, gpu_layers=17))
    assert found["ram"] == {"weights": 64 * MIB, "buffers": 512 * 8 * 4096 + PROCESS}
    assert found["nvidia:0"] == {
        "weights": GIB - 64 * MIB, "KV cache": 256 * MIB, "buffers": buffers(weights(), ONE), "driver": DRIVER,
    }  # fmt: skip


def test_an_embedding_that_is_the_output_too_is_there_twice() -> None:
    tied = weights(embedding=64 * MIB, output=0, layer=60 * MIB)
    found = loads(tied, replace(ONE, gpu_layers=17))
    assert found["ram"]["weights"] == 64 * MIB
    assert found["nvidia:0"]["weights"] == GIB


def test_the_output_goes_first_then_layers_from_the_last_one() -> None:
    """`--gpu-layers N` counts the output as one of N (llama-model.cpp, `i_gpu_start`)."""
    only = loads(weights(), replace(ONE, gpu_layers=1))
    assert only["nvidia:0"]["weights"] == 64 * MIB
    assert "KV cache" not in only["nvidia:0"]
    assert only["ram"]["weights"] == GIB - 64 * MIB
    assert only["ram"]["KV cache"] == 256 * MIB
    five = loads(weights(), replace(ONE, gpu_layers=5))
    assert five["nvidia:0"]["weights"] == 64 * MIB + 4 * 56 * MIB
    assert five["nvidia:0"]["KV cache"] == 64 * MIB
    assert five["ram"]["weights"] == 64 * MIB + 12 * 56 * MIB
    assert five["ram"]["KV cache"] == 192 * MIB


def test_layers_that_differ_are_counted_as_the_largest_on_both_sides() -> None:
    facts = weights(layer=70 * MIB)
    found = loads(facts, replace(ONE, gpu_layers=9))
    assert found["nvidia:0"]["weights"] == 64 * MIB + 8 * 70 * MIB
    assert found["ram"]["weights"] == 64 * MIB + 8 * 70 * MIB
    assert loads(facts, replace(ONE, gpu_layers=17))["nvidia:0"]["weights"] == GIB - 64 * MIB, "all are all"
    assert loads(facts, replace(ONE, gpu_layers=2))["ram"]["weights"] == 64 * MIB + 896 * MIB, "never more than all"
    untold = loads(weights(layer=0), replace(ONE, gpu_layers=9))
    assert untold["nvidia:0"]["weights"] == 64 * MIB + 8 * 56 * MIB


def test_several_gpus_get_layers_evenly_and_the_last_one_the_output() -> None:
    found = loads(weights(), replace(ONE, gpu_layers=17), 2)
    assert found["nvidia:0"]["weights"] == 9 * 56 * MIB, "17 things for two"
    assert found["nvidia:1"]["weights"] == 7 * 56 * MIB + 64 * MIB
    assert (found["nvidia:0"]["KV cache"], found["nvidia:1"]["KV cache"]) == (144 * MIB, 112 * MIB)
    assert {one["driver"] for name, one in found.items() if name != "ram"} == {DRIVER}
    three = loads(weights(), replace(ONE, gpu_layers=17), 3)
    assert [three[f"nvidia:{n}"]["weights"] // (56 * MIB) for n in range(3)] == [6, 6, 5]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("layers", [1, 2, 7, 16, 17, 99])
def test_nothing_is_lost_on_the_way(count: int, layers: int) -> None:
    found = estimate(weights(), replace(ONE, gpu_layers=layers), tuple(gpu(n) for n in range(count)), PROCESS)
    assert sum(dict(load.items).get("weights", 0) for load in found) == GIB
    assert sum(dict(load.items).get("KV cache", 0) for load in found) == 256 * MIB
