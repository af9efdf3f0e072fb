"""What configuration classes fill in where config.json is silent (transformers 5, the class's defaults).

Inside a multimodal model's configuration, transformers writes only what differs from the class.
"""

_DIMENSIONS = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)

_ROWS: dict[str, tuple[int, ...]] = {
    "llama": (32, 4096, 32, 0, 0, 11008, 32000, 2048),
    "mistral": (32, 4096, 32, 8, 0, 14336, 32000, 131072),
    "ministral": (32, 4096, 32, 8, 0, 14336, 32000, 131072),
    "ministral3": (34, 4096, 32, 8, 128, 14336, 131072, 262144),
    "mixtral": (32, 4096, 32, 8, 0, 14336, 32000, 131072),
    "qwen2": (32, 4096, 32, 32, 0, 22016, 151936, 32768),
    "qwen2_vl_text": (80, 8192, 64, 8, 0, 29568, 152064, 32768),
    "qwen2_5_vl_text": (80, 8192, 64, 8, 0, 29568, 152064, 32768),
    "qwen2_5_omni_text": (28, 3584, 28, 4, 0, 18944, 152064, 32768),
    "qwen3": (32, 4096, 32, 32, 128, 22016, 151936, 32768),
    "qwen3_moe": (24, 2048, 32, 4, 0, 6144, 151936, 32768),
    "qwen3_vl_text": (32, 4096, 32, 32, 128, 22016, 151936, 128000),
    "qwen3_vl_moe_text": (24, 2048, 16, 16, 128, 5632, 151936, 128000),
    "qwen3_omni_moe_text": (28, 2048, 28, 4, 0, 18944, 3584, 32768),
    "qwen3_5_text": (32, 4096, 16, 4, 256, 12288, 248320, 32768),
    "qwen3_5_moe_text": (40, 2048, 16, 2, 256, 0, 248320, 32768),
    "gemma": (28, 3072, 16, 16, 256, 24576, 256000, 8192),
    "gemma2": (26, 2304, 8, 4, 256, 9216, 256000, 8192),
    "gemma3_text": (26, 2304, 8, 4, 256, 9216, 262208, 131072),
    "gemma3n_text": (35, 2048, 8, 2, 256, 16384, 262400, 32768),
    "gemma4_text": (30, 2304, 8, 4, 256, 9216, 262144, 131072),
    "cohere": (40, 8192, 64, 64, 0, 22528, 256000, 8192),
    "cohere2": (40, 8192, 64, 64, 128, 22528, 256000, 8192),
    "llama4_text": (48, 5120, 40, 8, 128, 8192, 202048, 131072),
    "mllama_text_model": (40, 4096, 32, 8, 0, 14336, 128256, 131072),
    "phi3": (32, 3072, 32, 32, 0, 8192, 32064, 4096),
    "deepseek_v2": (32, 4096, 32, 32, 0, 11008, 102400, 2048),
    "deepseek_v3": (61, 7168, 128, 128, 0, 18432, 129280, 4096),
    "granite": (32, 4096, 32, 32, 0, 11008, 32000, 2048),
    "lfm2": (32, 2560, 32, 8, 0, 12288, 65536, 128000),
    "glm4": (40, 4096, 32, 2, 128, 13696, 151552, 131072),
    "glm4v_text": (40, 4096, 32, 2, 0, 13696, 151552, 32768),
    "glm4v_moe_text": (46, 4096, 96, 8, 0, 10944, 151424, 65536),
    "opt": (12, 768, 12, 0, 0, 0, 50272, 2048),
}

INNER: dict[str, dict[str, int]] = {
    name: {key: value for key, value in zip(_DIMENSIONS, row, strict=True) if value} for name, row in _ROWS.items()
}
"""model_type of an inner configuration -> its dimensions; 0 above stands for "follows from the others"."""

SPARSE: dict[str, dict[str, int]] = {
    "mistral": {"sliding_window": 4096},
    "ministral": {"sliding_window": 4096},
    "gemma2": {"sliding_window": 4096},
    "gemma3": {"sliding_window": 4096},
    "gemma3_text": {"sliding_window": 4096},
    "gemma3n_text": {"sliding_window": 512, "num_kv_shared_layers": 15},
    "gemma4_text": {"sliding_window": 512, "global_head_dim": 512},
    "gemma4_unified_text": {"sliding_window": 1024, "global_head_dim": 512},
    "cohere2": {"sliding_window": 4096},
    "gpt_oss": {"sliding_window": 128},
    "llama4_text": {"attention_chunk_size": 8192},
    "deepseek_v4": {"sliding_window": 128, "head_dim": 512},
    "olmo3": {"sliding_window": 4096},
    "exaone4": {"sliding_window": 4096},
    "falcon_h1": {"mamba_d_conv": 4},
    "falcon_mamba": {"conv_kernel": 4, "state_size": 16, "expand": 2},
    "mamba": {"conv_kernel": 4, "state_size": 16, "expand": 2},
    "mamba2": {"conv_kernel": 4, "state_size": 128, "expand": 2, "n_groups": 8, "num_heads": 128, "head_dim": 64},
    "jamba": {"mamba_d_conv": 4, "mamba_d_state": 16, "mamba_expand": 2},
    "zamba2": {"mamba_d_conv": 4, "mamba_expand": 2, "mamba_ngroups": 1},
    "granitemoehybrid": {"mamba_d_conv": 4, "mamba_expand": 2},
    "bamba": {"mamba_d_conv": 4, "mamba_expand": 2},
    "lfm2": {"conv_L_cache": 3},
    "lfm2_moe": {"conv_L_cache": 3},
}
"""model_type -> what else sizing needs and a config.json may leave out, inside or not."""
