"""The bench's models: the attention shapes of published ones, cut to few layers, a small vocabulary and thin layers.

Heads, head sizes, windows, latent ranks, state sizes and the order of layer kinds are the published ones, since cache
sizes follow from them; hidden and feed-forward widths, expert counts and layer counts are cut, so that a model has
150 to 300 MB at most. `config` is what the model's own configuration class takes; `drop` and `put` afterwards make
config.json look like the published file (a class may write keys that publishers leave out, and the other way about).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

VOCAB: Final = 8192
"""Rows of the embedding; the tokenizer's vocabulary is filled up to nearly as many."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One model: `kind` says what it stands for, `like` which published model lent its shapes."""

    name: str
    kind: str
    like: str
    model: str
    """Class in transformers; config.json's `architectures` names it."""
    config: Mapping[str, Any]
    drop: tuple[str, ...] = ()
    put: Mapping[str, Any] = field(default_factory=dict)
    prediction_layer: str = ""
    """Prefix of the layer whose copy becomes the file's multi-token prediction layer; empty: the file has none."""

    side: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further JSON files that an engine asks for, by name."""


PIXELS: Final[dict[str, Any]] = {
    "size": {"longest_edge": 65536, "shortest_edge": 4096}, "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "processor_class": "Qwen3VLProcessor",
}  # fmt: skip
"""What a vision model's repository says of its pictures."""

COMMON: Final[dict[str, Any]] = {
    "vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 32768,
}  # fmt: skip


def shape(
    name: str,
    kind: str,
    like: str,
    model: str,
    *,
    drop: tuple[str, ...] = (),
    put: Mapping[str, Any] | None = None,
    prediction_layer: str = "",
    side: Mapping[str, Mapping[str, Any]] | None = None,
    **config: Any,
) -> Shape:
    """Give one row with what all have in common."""
    return Shape(name=name, kind=kind, like=like, model=model, config=COMMON | config, drop=drop, put=put or {},
                 prediction_layer=prediction_layer, side=side or {})  # fmt: skip


def alternate(first: str, every: int, other: str, layers: int) -> list[str]:
    """Layer kinds where each `every`-th layer is `other` and the rest `first`."""
    return [other if (i + 1) % every == 0 else first for i in range(layers)]


SHAPES: Final[tuple[Shape, ...]] = (
    shape("qwen3", "dense GQA, tied embedding", "Qwen3-0.6B and 8B", "Qwen3ForCausalLM",
          hidden_size=1024, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=32,
          num_key_value_heads=8, head_dim=128, tie_word_embeddings=True),
    shape("llama-gqa", "dense GQA, no head_dim key", "TinyLlama-1.1B", "LlamaForCausalLM", drop=("head_dim",),
          hidden_size=2048, intermediate_size=2816, num_hidden_layers=4, num_attention_heads=32,
          num_key_value_heads=4, tie_word_embeddings=False),
    shape("llama-mha", "dense MHA, no key for KV heads", "Llama-2-7B", "LlamaForCausalLM",
          drop=("head_dim", "num_key_value_heads"),
          hidden_size=2048, intermediate_size=2816, num_hidden_layers=3, num_attention_heads=16,
          num_key_value_heads=16, tie_word_embeddings=False),
    shape("qwen3-moe", "mixture of experts", "Qwen3-30B-A3B", "Qwen3MoeForCausalLM",
          hidden_size=1024, intermediate_size=3072, moe_intermediate_size=256, num_hidden_layers=4,
          num_attention_heads=32, num_key_value_heads=4, head_dim=128, num_experts=16, num_experts_per_tok=8,
          decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True, tie_word_embeddings=False),
    shape("mixtral", "mixture of experts", "Mixtral-8x7B", "MixtralForCausalLM", drop=("head_dim",),
          hidden_size=2048, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=16,
          num_key_value_heads=4, num_local_experts=8, num_experts_per_tok=2, sliding_window=None,
          tie_word_embeddings=False),
    shape("gpt-oss", "window 128 every other layer", "gpt-oss-20b", "GptOssForCausalLM",
          hidden_size=1024, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=64,
          num_key_value_heads=8, head_dim=64, num_local_experts=4, num_experts_per_tok=2, sliding_window=128,
          layer_types=alternate("sliding_attention", 2, "full_attention", 6), tie_word_embeddings=False),
    shape("gemma3", "window 1024, five of six layers", "gemma-3-4b", "Gemma3ForCausalLM",
          hidden_size=1024, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8,
          num_key_value_heads=4, head_dim=256, query_pre_attn_scalar=256, sliding_window=1024,
          layer_types=alternate("sliding_attention", 6, "full_attention", 12), tie_word_embeddings=True),
    shape("qwen3-next", "gated delta net, three of four layers", "Qwen3-Next-80B-A3B", "Qwen3NextForCausalLM",
          drop=("layer_types",), put={"full_attention_interval": 4},
          hidden_size=1024, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=16,
          num_key_value_heads=2, head_dim=256, linear_num_key_heads=16, linear_num_value_heads=32,
          linear_key_head_dim=128, linear_value_head_dim=128, linear_conv_kernel_dim=4, num_experts=8,
          num_experts_per_tok=4, moe_intermediate_size=128, shared_expert_intermediate_size=128,
          decoder_sparse_step=1, tie_word_embeddings=False),
    shape("qwen3.5", "gated delta net, vision tower and prediction layer in the file", "Qwen3.5-27B",
          "Qwen3_5ForConditionalGeneration",
          prediction_layer="model.language_model.layers.7.", put={"mtp_num_hidden_layers": 1},
          side={"preprocessor_config.json": PIXELS | {"image_processor_type": "Qwen2VLImageProcessorFast"},
                "video_preprocessor_config.json": PIXELS | {"video_processor_type": "Qwen3VLVideoProcessor"}},
          text_config={**COMMON, "hidden_size": 1024, "intermediate_size": 1024, "num_hidden_layers": 8,
                       "num_attention_heads": 24, "num_key_value_heads": 4, "head_dim": 256,
                       "linear_num_key_heads": 16, "linear_num_value_heads": 48, "linear_key_head_dim": 128,
                       "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "tie_word_embeddings": False},
          vision_config={"depth": 2, "hidden_size": 128, "intermediate_size": 256, "num_heads": 2,
                         "out_hidden_size": 1024, "num_position_embeddings": 256},
          image_token_id=8000, video_token_id=8001, vision_start_token_id=8002, vision_end_token_id=8003),
    shape("granite-hybrid", "mamba 2 with few attention layers, MoE", "Granite-4.0-H-Tiny",
          "GraniteMoeHybridForCausalLM",
          put={"layer_types": ["mamba"] * 5 + ["attention"] + ["mamba"] * 2},
          hidden_size=1536, intermediate_size=512, shared_intermediate_size=1024, num_hidden_layers=8,
          num_attention_heads=12, num_key_value_heads=4, num_local_experts=4, num_experts_per_tok=2,
          layer_types=["mamba"] * 5 + ["attention"] + ["mamba"] * 2, mamba_n_heads=48, mamba_d_head=64,
          mamba_d_state=128, mamba_n_groups=1, mamba_d_conv=4, mamba_expand=2, position_embedding_type="nope",
          tie_word_embeddings=True),
    shape("falcon-h1", "mamba 2 beside attention in each layer", "Falcon-H1-1.5B", "FalconH1ForCausalLM",
          hidden_size=1536, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=8,
          num_key_value_heads=2, head_dim=128, mamba_d_ssm=3072, mamba_n_heads=48, mamba_d_head=64,
          mamba_d_state=256, mamba_n_groups=1, mamba_d_conv=4, mamba_expand=2, tie_word_embeddings=False),
    shape("nemotron-h", "mamba 2, attention and feed-forward as layers of their own", "Nemotron-Nano-9B-v2",
          "NemotronHForCausalLM",
          drop=("layers_block_type", "mtp_layers_block_type", "n_routed_experts", "n_shared_experts", "n_group",
                "num_experts_per_tok", "moe_intermediate_size", "moe_latent_size", "moe_shared_expert_intermediate_size",
                "moe_shared_expert_overlap", "norm_topk_prob", "routed_scaling_factor", "topk_group"),
          put={"hybrid_override_pattern": "M-M*-M-M", "num_hidden_layers": 8},
          hidden_size=1024, intermediate_size=2048, hybrid_override_pattern="M-M*-M-M", num_attention_heads=40,
          num_key_value_heads=8, head_dim=128, mamba_num_heads=128, mamba_head_dim=80, n_groups=8,
          ssm_state_size=128, conv_kernel=4, expand=2, tie_word_embeddings=False),
    # llama.cpp knows the variant without a query latent by its 27 layers.
    shape("deepseek-v2", "MLA, no query latent", "DeepSeek-V2-Lite", "DeepseekV2ForCausalLM",
          hidden_size=512, intermediate_size=1024, moe_intermediate_size=128, num_hidden_layers=27,
          num_attention_heads=16, num_key_value_heads=16, kv_lora_rank=512, q_lora_rank=None, qk_rope_head_dim=64,
          qk_nope_head_dim=128, v_head_dim=128, n_routed_experts=4, n_shared_experts=2, num_experts_per_tok=2,
          first_k_dense_replace=1, topk_method="greedy", tie_word_embeddings=False),
    shape("deepseek-v3", "MLA", "DeepSeek-V3", "DeepseekV3ForCausalLM",
          put={"topk_method": "noaux_tc", "scoring_func": "sigmoid"},
          hidden_size=1024, intermediate_size=2048, moe_intermediate_size=256, num_hidden_layers=4,
          num_attention_heads=32, num_key_value_heads=32, kv_lora_rank=512, q_lora_rank=768, qk_rope_head_dim=64,
          qk_nope_head_dim=128, v_head_dim=128, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2,
          n_group=2, topk_group=1, first_k_dense_replace=1, tie_word_embeddings=False),
    shape("phi3", "dense MHA, head of 96, window 2047 in the config", "Phi-3-mini-4k", "Phi3ForCausalLM",
          hidden_size=1536, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=16,
          num_key_value_heads=16, sliding_window=2047, original_max_position_embeddings=32768,
          tie_word_embeddings=False),
    shape("mistral", "dense GQA, head_dim apart from hidden size", "Mistral-Nemo", "MistralForCausalLM",
          hidden_size=1280, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=32,
          num_key_value_heads=8, head_dim=128, sliding_window=None, tie_word_embeddings=False),
    shape("mistral-window", "window 4096 in all layers", "Mistral-7B-v0.1", "MistralForCausalLM", drop=("head_dim",),
          hidden_size=2048, intermediate_size=2048, num_hidden_layers=3, num_attention_heads=16,
          num_key_value_heads=4, sliding_window=4096, tie_word_embeddings=False),
    shape("lfm2", "short convolutions with few attention layers", "LFM2-1.2B", "Lfm2ForCausalLM",
          put={"conv_dim": 2048, "conv_dim_out": 2048, "block_dim": 2048, "block_ff_dim": 2048},
          hidden_size=2048, intermediate_size=2048, block_auto_adjust_ff_dim=False, num_hidden_layers=5,
          num_attention_heads=32, num_key_value_heads=8, conv_L_cache=3, conv_bias=False,
          layer_types=["conv", "conv", "full_attention", "conv", "full_attention"], tie_word_embeddings=True),
)  # fmt: skip

BY_NAME: Final = {s.name: s for s in SHAPES}
