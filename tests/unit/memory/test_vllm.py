"""What one request takes of vLLM's cache, worked out by hand: pages of one size, whatever a layer keeps."""

from dataclasses import replace

import pytest

from appliance.domain.weights import Layers, Weights
from appliance.memory.vllm import Pages, request
from tests.unit.samples import safetensors

FULL = Layers(kind="full", count=16, kv_heads=8, key=128, value=128)
TOKEN = 8 * 256 * 2
"""Bytes of a token in one layer of it."""
WINDOW = Layers(kind="window", count=16, kv_heads=8, key=128, value=128, window=1024)
STATE = Layers(kind="recurrent", count=16, convolution=8192, state=131072)
"""272 KiB in 16 bits, which 68 tokens of one layer take too; so a block has 80 tokens and a page 320 KiB."""
PAGE = 80 * TOKEN


def model(*groups: Layers, architecture: str = "Qwen3ForCausalLM") -> Weights:
    return safetensors(cache=groups, architecture=architecture)


def test_a_context_is_made_of_whole_blocks() -> None:
    assert request(model(FULL), 4096) == Pages(4096 * 16 * TOKEN, 0)
    assert request(model(FULL), 4097) == Pages(4112 * 16 * TOKEN, 0)
    assert request(model(FULL), 4097, block=128) == Pages(4224 * 16 * TOKEN, 0)
    assert request(model(FULL), 4096, width=1) == Pages(4096 * 16 * TOKEN // 2, 0)
    assert request(model(), 4096) == Pages(0, 0)


def test_gpus_share_the_heads() -> None:
    assert request(model(FULL), 4096, ranks=2) == Pages(4096 * 16 * TOKEN // 2, 0)
    assert request(model(FULL), 4096, ranks=16) == Pages(4096 * 16 * TOKEN // 8, 0), "no less than one head each"
    latent = Layers(kind="latent", count=16, kv_heads=1, key=576)
    assert request(model(latent), 4096, ranks=8) == Pages(4096 * 16 * 576 * 2, 0), "a latent row is whole everywhere"


def test_a_window_keeps_what_is_computed_at_once_too() -> None:
    assert request(model(WINDOW), 65536, in_flight=2048) == Pages((3072 + 16) * 16 * TOKEN, 0)
    assert request(model(WINDOW), 2048, in_flight=2048) == Pages((2048 + 16) * 16 * TOKEN, 0), "no more than there is"


@pytest.mark.parametrize(
    ("windows", "each"),
    [
        pytest.param(16, 16, id="as many"),
        pytest.param(20, 20, id="nearly as many: the rarer have pages that nobody fills"),
        pytest.param(48, 16, id="three times as many are three groups"),
        pytest.param(40, 16, id="a group that is not full takes as much"),
    ],
)
def test_layers_of_one_kind_share_pages_in_groups_of_one_size(windows: int, each: int) -> None:
    both = model(FULL, replace(WINDOW, count=windows))
    tokens = 65536 + -(-windows // each) * (3072 + 16)
    assert request(both, 65536, in_flight=2048) == Pages(tokens * each * TOKEN, 0)


def test_a_page_holds_a_whole_state() -> None:
    found = request(model(FULL, STATE), 4096)
    assert found == Pages(-(-4096 // 80) * 16 * PAGE, 3 * 16 * PAGE)
    assert request(model(FULL, STATE), 4096, prefixes=False).state == 16 * PAGE
    assert request(model(FULL, STATE, architecture="Qwen3NextForCausalLM"), 4096).state == 2 * 16 * PAGE
    coarse = request(model(FULL, STATE), 4096, least=32)
    assert coarse == Pages(-(-4096 // 96) * 16 * 96 * TOKEN, 3 * 16 * 96 * TOKEN), "in steps of 32"


def test_states_are_as_wide_as_the_configuration_says() -> None:
    """528 KiB in 32 bits: 132 tokens, in steps of 16."""
    wide = request(model(FULL, replace(STATE, state_bits=32)), 4096)
    assert wide.state == 3 * 16 * 144 * TOKEN
    assert request(model(FULL, STATE), 4096, state_width=4) == wide
    narrow = request(model(FULL, replace(STATE, state_bits=32)), 4096, state_width=2)
    assert narrow == request(model(FULL, STATE), 4096)


def test_a_model_of_states_only_has_pages_of_their_size() -> None:
    assert request(model(STATE), 1 << 20) == Pages(0, 3 * 16 * (8192 + 131072) * 2)
    assert request(model(STATE), 1 << 20, ranks=2) == Pages(0, 3 * 16 * (8192 + 131072))


def test_an_index_has_8_bits_and_a_scale_for_each_token() -> None:
    latent = Layers(kind="latent", count=16, kv_heads=1, key=576)
    index = Layers(kind="index", count=16, kv_heads=1, key=128)
    more = request(model(latent, index), 4096).attention - request(model(latent), 4096).attention
    assert more == 4096 * 16 * (128 + 4)


def test_a_group_without_layers_counts_as_none() -> None:
    assert request(model(FULL, replace(WINDOW, count=0)), 4096) == request(model(FULL), 4096)
    assert request(model(replace(FULL, count=0)), 4096) == Pages(0, 0)
