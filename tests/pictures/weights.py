"""The shape of a published model without its numbers: what a plan reads of it, in files that are all holes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

HIDDEN, FEED, LAYERS, HEADS, KV_HEADS, HEAD, VOCABULARY = 5120, 25600, 64, 64, 8, 128, 151936
"""Of Qwen3-32B, as its config.json has them."""
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "torch_dtype": "bfloat16", "hidden_act": "silu",
    "hidden_size": HIDDEN, "intermediate_size": FEED, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "vocab_size": VOCABULARY, "max_position_embeddings": 40960,
    "tie_word_embeddings": False, "attention_bias": False, "use_sliding_window": False, "rms_norm_eps": 1e-6,
    "rope_theta": 1000000, "eos_token_id": 151645, "bos_token_id": 151643,
}  # fmt: skip


def tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each tensor's name and shape."""
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        place = f"model.layers.{layer}"
        yield f"{place}.input_layernorm.weight", (HIDDEN,)
        yield f"{place}.post_attention_layernorm.weight", (HIDDEN,)
        yield f"{place}.self_attn.q_proj.weight", (HEADS * HEAD, HIDDEN)
        yield f"{place}.self_attn.k_proj.weight", (KV_HEADS * HEAD, HIDDEN)
        yield f"{place}.self_attn.v_proj.weight", (KV_HEADS * HEAD, HIDDEN)
        yield f"{place}.self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD)
        yield f"{place}.self_attn.q_norm.weight", (HEAD,)
        yield f"{place}.self_attn.k_norm.weight", (HEAD,)
        for name, shape in (("gate", (FEED, HIDDEN)), ("up", (FEED, HIDDEN)), ("down", (HIDDEN, FEED))):
            yield f"{place}.mlp.{name}_proj.weight", shape
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)


def make(home: Path) -> Path:
    """Make the directory `Qwen3-32B` there, 61 GiB long and a few blocks large."""
    folder = home / "Qwen3-32B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    header, end = {}, 0
    for name, shape in tensors():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)
    return folder
