"""What servers made of PyTorch reserve on each GPU, worked out by hand for one model of each kind."""

from dataclasses import replace

import pytest

from appliance.domain.service import Setting
from appliance.domain.weights import Layers, Weights
from appliance.memory import MIB, heads_on_rank, rounded
from appliance.memory.torch import COLLECTIVES, CONTEXT, activations, cache, divides, overhead, weights_on_rank
from tests.unit.samples import GIB, safetensors

ONE = Setting(context=4096, parallel=1)
GQA = Layers(kind="full", count=16, kv_heads=8, key=128, value=128)
WINDOW = Layers(kind="window", count=16, kv_heads=8, key=128, value=128, window=1024)


def ranks(number: int) -> Setting:
    return replace(ONE, tensor_parallel=number)


def on(ranks: int, group: Layers = GQA, **setting: object) -> int:
    return cache(safetensors(cache=(group,)), replace(ONE, tensor_parallel=ranks, **setting), 2048)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("group", "amount"),
    [
        pytest.param(replace(GQA, kv_heads=32), 4096 * 16 * 32 * 256 * 2, id="MHA"),
        pytest.param(GQA, 4096 * 16 * 8 * 256 * 2, id="GQA"),
        pytest.param(Layers(kind="latent", count=16, kv_heads=1, key=576), 4096 * 16 * 576 * 2, id="MLA"),
        # 1023 tokens before, 2048 in flight, in blocks of 16 and one more.
        pytest.param(WINDOW, (3072 + 16) * 16 * 8 * 256 * 2, id="window"),
        pytest.param(replace(WINDOW, window=9000), (4096 + 16) * 16 * 8 * 256 * 2, id="wide"),
        pytest.param(Layers(kind="recurrent", count=16, convolution=24576, state=524288), 16 * 548864 * 2, id="state"),
    ],
)  # fmt: skip
def test_the_cache_of_one_request(group: Layers, amount: int) -> None:
    assert on(1, group) == amount
    assert on(1, group, parallel=3) == 3 * amount


def test_contexts_are_made_of_blocks() -> None:
    assert on(1, context=4081) == on(1)
    assert on(1, context=4080) == on(1) * 255 // 256
    assert cache(safetensors(), replace(ONE, context=4081), 2048, block=1) == 4081 * 64 * 1024


def test_gpus_share_the_kv_heads_and_repeat_them_where_there_are_too_few() -> None:
    assert [on(ranks) // MIB for ranks in (1, 2, 4, 8, 16, 32)] == [256, 128, 64, 32, 32, 32]
    assert [heads_on_rank(GQA, ranks) for ranks in (1, 3, 8, 16)] == [8, 3, 1, 1]


def test_a_latent_row_is_whole_on_every_gpu() -> None:
    group = Layers(kind="latent", count=16, kv_heads=1, key=576)
    assert {on(ranks, group) for ranks in (1, 2, 8)} == {4096 * 16 * 576 * 2}


def test_a_state_is_shared_evenly() -> None:
    group = Layers(kind="recurrent", count=16, convolution=24576, state=524288)
    assert on(4, group) * 4 == on(1, group)


@pytest.mark.parametrize(("kv_type", "width"), [("auto", 32), ("fp8", 16), ("int8", 17), ("int4", 9)])
def test_a_smaller_cache_of_16ths_of_a_byte(kv_type: str, width: int) -> None:
    assert on(1, kv_type=kv_type) * 32 == on(1) * width


def test_weights_are_shared_and_32_bits_become_16() -> None:
    assert weights_on_rank(safetensors(size=10 * GIB), ranks(1)) == 10 * GIB
    assert weights_on_rank(safetensors(size=10 * GIB), ranks(3)) == -(-10 * GIB // 3), "rounded up"
    assert weights_on_rank(safetensors(size=10 * GIB, quantisation="float32"), ranks(2)) == 2.5 * GIB


def test_what_a_step_computes_in() -> None:
    facts = safetensors(hidden=1000, feed_forward=3000, vocabulary=50_000)
    assert activations(facts, 2048, 256, 1) == 2048 * 2 * (5000 + 9000) + 256 * 50_000 * 6
    assert activations(facts, 2048, 256, 3) == 2048 * 2 * (5000 + 3000) + 256 * 50_000 * 6


def test_several_gpus_talk_to_each_other() -> None:
    assert (overhead(1), overhead(2)) == (CONTEXT, CONTEXT + COLLECTIVES)


def shaped(heads: int, *kv: int) -> Weights:
    return safetensors(heads=heads, cache=tuple(replace(GQA, kv_heads=one) for one in kv))


@pytest.mark.parametrize(
    ("facts", "ranks"),
    [
        (shaped(32, 8), [1, 2, 4, 8, 16]),
        (shaped(40, 8), [1, 2, 4, 8]),
        (shaped(28, 4), [1, 2, 4]),
        (shaped(14, 2), [1, 2, 14]),
        (shaped(24, 3), [1, 3, 6, 12]),
        (shaped(32, 8, 2), [1, 2, 4, 8, 16]),
        (shaped(32, 8, 3), [1]),
        (safetensors(heads=16, cache=(Layers(kind="latent", count=1, kv_heads=1, key=576),)), [1, 2, 4, 8, 16]),
        (safetensors(heads=12, cache=(Layers(kind="recurrent", count=1, state=1),)), [1, 2, 3, 4, 6, 12]),
    ],
)
def test_over_how_many_gpus_the_heads_divide(facts: Weights, ranks: list[int]) -> None:
    assert [one for one in range(1, 17) if divides(facts, one)] == ranks


def test_rounding_goes_up() -> None:
    assert [rounded(number, 16) for number in (0, 1, 16, 17)] == [0, 16, 16, 32]
