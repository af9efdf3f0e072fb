"""How wide one token's feed-forward block is, and how many experts there are, from config.json."""

from appliance.weights.part import Part

_DENSE = (
    "intermediate_size",
    "ffn_hidden_size",
    "n_inner",
    "decoder_ffn_dim",
    "ffn_dim",
    "d_ff",
    "ffn_intermediate_size",
)
_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts", "num_moe_experts")
_USED = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "top_k",
)
_ONE = ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size", "expert_hidden_dim")
_SHARED = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)
_SHARED_COUNT = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


def experts(part: Part) -> int:
    """Experts of one layer that a token is routed among; 0 without any."""
    return part.number(*_EXPERTS) or part.part("ffn_config").number("moe_num_experts")


def feed_forward(part: Part, hidden: int) -> int:
    """Inner elements that one token goes through in one block, of all its experts together."""
    dense = part.number(*_DENSE) or max(part.numbers("intermediate_size"), default=0)
    if not experts(part):
        return dense or part.number("shared_intermediate_size") or (4 * hidden if part.has("n_embd") else 0)
    inner = part.part("ffn_config")
    one = part.number(*_ONE) or inner.number("ffn_hidden_size") or dense
    used = part.number(*_USED) or inner.number("moe_top_k") or 1
    return one * used + _shared(part, one, dense)


def _shared(part: Part, one: int, dense: int) -> int:
    """Inner elements of what every token goes through beside its experts."""
    if part.flag("enable_moe_block") or part.word("model_type") == "llama4_text":
        return dense
    return part.number(*_SHARED) or part.number(*_SHARED_COUNT) * one
