"""Elements that one recurrent layer keeps for each sequence, from config.json.

Each recipe is for one family: its keys, then (convolution, state) as vLLM shapes them
(model_executor/layers/mamba/mamba_utils.py). llama.cpp keeps the same elements.
"""

from collections.abc import Callable

from appliance.weights.part import Part

_LIGHTNING = ("attn_type_list", "layer_group_size")
_Kept = tuple[int, int]
_Recipe = Callable[[Part], _Kept | None]


def recurrence(part: Part, head_dim: int) -> tuple[int, int]:
    """Elements of the convolution and of the state; `head_dim` is that of the model's attention.

    (0, 0) where the configuration does not say.
    """
    for recipe in _RECIPES:
        if (kept := recipe(part)) is not None:
            return kept
    # Lightning attention (MiniMax-01, Ling) has no keys of its own: its heads are those of the attention.
    lightning = any(map(part.has, _LIGHTNING)) or part.word("model_type").startswith("minimax")
    return 0, part.number("num_attention_heads") * head_dim**2 if lightning else 0


def _delta_net(part: Part) -> _Kept | None:
    values = part.number("linear_num_value_heads")
    if not values:
        return None
    keys, key, value = (
        part.number(name) for name in ("linear_num_key_heads", "linear_key_head_dim", "linear_value_head_dim")
    )
    taps = (part.number("linear_conv_kernel_dim") or 4) - 1
    return (2 * keys * key + values * value) * taps, values * value * key


def _delta_attention(part: Part) -> _Kept | None:
    inner = part.part("linear_attn_config")
    heads = inner.number("num_heads") or part.number("linear_num_heads")
    head = inner.number("head_dim") or part.number("linear_head_dim")
    if not heads:
        return None
    taps = (inner.number("short_conv_kernel_size") or part.number("linear_conv_kernel_dim") or 4) - 1
    return 3 * heads * head * taps, heads * head**2


def _short_convolution(part: Part) -> _Kept | None:
    length = part.number("conv_L_cache")
    return (part.number("conv_dim", "hidden_size") * (length - 1), 0) if length else None


def _mamba2(part: Part) -> _Kept | None:
    heads = part.number("mamba_n_heads", "mamba_num_heads", "n_mamba_heads", "num_heads")
    state = part.number("mamba_d_state", "ssm_state_size", "state_size")
    if not heads or not state:
        return None
    inner = part.number("mamba_d_ssm") or part.number("mamba_expand", "expand") * part.number("hidden_size")
    head = part.number("mamba_d_head", "mamba_head_dim", "mamba_headdim") or inner // heads
    groups = part.number("mamba_n_groups", "mamba_ngroups", "n_groups") or 1
    taps = (part.number("mamba_d_conv", "conv_kernel") or 4) - 1
    return (heads * head + 2 * groups * state) * taps, heads * head * state


def _mamba1(part: Part) -> _Kept | None:
    state = part.number("mamba_d_state", "state_size")
    if not state:
        return None
    # Where Mamba is all there is, the feed-forward's key means its inner width (Falcon Mamba's `expand` is wrong).
    alone = 0 if part.number("mamba_d_state") else part.number("intermediate_size")
    inner = alone or part.number("mamba_expand", "expand") * part.number("hidden_size")
    taps = (part.number("mamba_d_conv", "conv_kernel") or 4) - 1
    return inner * taps, inner * state


_RECIPES: tuple[_Recipe, ...] = (_delta_net, _delta_attention, _short_convolution, _mamba2, _mamba1)
