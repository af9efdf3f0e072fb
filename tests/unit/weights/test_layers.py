"""What models keep for each token and each sequence: one row for each model, by config.json and by GGUF header."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.domain.weights import Layers, Weights
from appliance.errors import ArtifactError
from appliance.weights.blocks import cache as gguf_cache
from appliance.weights.config import read_config
from appliance.weights.gguf import parse
from appliance.weights.inspect import inspect
from appliance.weights.layers import MAX_LAYERS
from tests.unit.weights.build import ARRAY, BOOL, I32, MODEL, STRING, U32, Pair, directory, entry, gguf, safetensors

HERE = Path(__file__).parent
MODELS: dict[str, dict[str, Any]] = {
    one["id"]: one for one in yaml.safe_load((HERE / "architectures.yaml").read_text())
}
HEADERS: list[dict[str, Any]] = yaml.safe_load((HERE / "headers.yaml").read_text())
FIELDS = ("kind", "count", "kv_heads", "key", "value", "window", "convolution", "state", "state_bits")


def groups(rows: list[list[Any]]) -> tuple[Layers, ...]:
    return tuple(Layers(**dict(zip(FIELDS, row, strict=False))) for row in rows)


# Safetensors


def of(tmp_path: Path, config: dict[str, Any]) -> Weights:
    return inspect(directory(tmp_path / "m", config=config))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_by_its_config(tmp_path: Path, name: str) -> None:
    model = MODELS[name]
    weights = of(tmp_path, model["config"])
    assert weights.cache == groups(model["cache"])
    assert weights.kv_bytes_per_token == model["kv_bytes_per_token"]
    for field in ("feed_forward", "experts"):
        assert getattr(weights, field) == model.get(field, getattr(weights, field))


def test_dimensions(tmp_path: Path) -> None:
    weights = of(tmp_path, {**MODELS["qwen3-30b-a3b"]["config"], "num_experts": 128, "num_experts_per_tok": 8})
    assert (weights.heads, weights.hidden, weights.vocabulary, weights.experts) == (32, 2048, 151936, 128)
    weights = of(tmp_path, MODELS["gemma-3-4b-it"]["config"])
    assert (weights.heads, weights.hidden, weights.vocabulary, weights.layers) == (8, 2560, 262208, 34)
    assert (weights.kv_heads, weights.head_dim, weights.context_length) == (4, 256, 131072)


UNKNOWN = {"architectures": ["NeverSeenForCausalLM"], "num_hidden_layers": 3, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("more", "rows"),
    [
        ({"hidden_size": 64}, [["full", 3, 4, 16, 16]]),
        ({"hidden_size": 64, "num_key_value_heads": 2, "sliding_window": 8}, [["window", 3, 2, 16, 16, 8]]),
        ({}, []),
        ({"hidden_size": 64, "num_hidden_layers": 0}, []),
        ({"hidden_size": 64, "num_hidden_layers": MAX_LAYERS + 1}, []),
        ({"hidden_size": 64, "num_hidden_layers": 2**32 - 1}, []),
        ({"hidden_size": 64, "sliding_window": 8, "max_position_embeddings": 8}, [["full", 3, 4, 16, 16]]),
        ({"hidden_size": 64, "sliding_window": 8, "use_sliding_window": False}, [["full", 3, 4, 16, 16]]),
        ({"hidden_size": 64, "sliding_window": -8}, [["full", 3, 4, 16, 16]]),
        ({"hidden_size": 64, "sliding_window": 2**32}, [["full", 3, 4, 16, 16]]),
        ({"hidden_size": 64, "sliding_window": "8"}, [["full", 3, 4, 16, 16]]),
        ({"hidden_size": 64, "layer_types": [["full_attention"]]}, [["full", 3, 4, 16, 16]]),
        ({"hidden_size": 64, "layer_types": "full_attention"}, [["full", 3, 4, 16, 16]]),
        ({"hidden_size": 64, "layer_types": ["moe", "full_attention"] * 9}, [["full", 1, 4, 16, 16]]),
        ({"hidden_size": 64, "layer_types": ["something_new"]}, [["full", 3, 4, 16, 16]]),
        ({"hidden_size": 64, "layer_types": ["linear_attention"]}, []),
        (
            {"hidden_size": 64, "sliding_window": 8, "max_window_layers": 1},
            [["full", 1, 4, 16, 16], ["window", 2, 4, 16, 16, 8]],
        ),
        ({"hidden_size": 64, "full_attention_interval": 0}, [["full", 3, 4, 16, 16]]),
        ({"hidden_size": 64, "num_kv_shared_layers": 9}, []),
        (
            {"hidden_size": 64, "per_layer_config": {"1": {"head_dim": 32}}},
            [["full", 2, 4, 16, 16], ["full", 1, 4, 32, 32]],
        ),
        ({"block_configs": [{"attention": 5}, 7], "hidden_size": 64}, [["full", 2, 1, 16, 16]]),
    ],
)
def test_an_architecture_that_nobody_knows(tmp_path: Path, more: dict[str, Any], rows: list[list[Any]]) -> None:
    assert of(tmp_path, {**UNKNOWN, **more}).cache == groups(rows)


def test_bytes_by_use(tmp_path: Path) -> None:
    tensors = {
        "model.embed_tokens.weight": 64,
        "model.layers.0.mlp.experts.7.up_proj.weight": 8,
        "model.layers.0.self_attn.q_proj.weight": 8,
        "model.layers.1.mlp.up_proj.weight": 20,
        "model.layers.2.eh_proj.weight": 90,
        "visual.blocks.0.attn.qkv.weight": 6,
        "model.norm.weight": 2,
        "lm_head.weight": 62,
    }
    header, at = {}, 0
    for name, size in tensors.items():
        header[name] = entry((size,), at, at + size, "U8")
        at += size
    path = directory(tmp_path / "m")
    (path / "model.safetensors").write_bytes(safetensors(header, at))
    weights = inspect(path)
    # Layer 2 is for drafting ahead: the model has two.
    assert (weights.embedding, weights.output, weights.layer) == (64, 62, 20)
    assert weights.draft == 90
    assert weights.tensors == weights.files[0].size - 90, "which engines do not load"
    assert weights.files[0].size == (path / "model.safetensors").stat().st_size
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    assert inspect(path).output == 0


@pytest.mark.parametrize(
    ("tensors", "draft"),
    [
        ({"model.layers.0.a.weight": 4, "model.layers.1.a.weight": 4}, 0),
        ({"model.layers.1.a.weight": 4, "model.layers.2.embed_tokens.weight": 6, "model.layers.3.a.weight": 5}, 11),
        ({"model.layers.1.a.weight": 4, "mtp.layers.0.a.weight": 6, "mtp.fc.weight": 5}, 11),
        ({"model.layers.1.a.weight": 4, "model.mtp.fc.weight": 5}, 5),
        # A tower of its own may have more layers than the language model.
        ({"model.layers.1.a.weight": 9, "visual.blocks.2.a.weight": 4, "visual.blocks.3.a.weight": 4}, 0),
    ],
)
def test_what_drafts_ahead(tmp_path: Path, tensors: dict[str, int], draft: int) -> None:
    """The model has two layers."""
    header, at = {}, 0
    for name, size in tensors.items():
        header[name] = entry((size,), at, at + size, "U8")
        at += size
    path = directory(tmp_path / "m")
    (path / "model.safetensors").write_bytes(safetensors(header, at))
    weights = inspect(path)
    assert weights.draft == draft
    assert weights.tensors == weights.files[0].size - draft
    assert weights.size == sum(file.size for file in weights.files), "on the disk it lies all the same"


MAMBA = {
    "architectures": ["MambaForCausalLM"],
    "model_type": "mamba",
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "state_size": 16,
}


@pytest.mark.parametrize(
    ("changes", "bits"),
    [
        ({}, 0),
        ({"mamba_ssm_dtype": "float32"}, 32),
        ({"mamba_ssm_cache_dtype": "float32"}, 32),
        ({"mamba_ssm_dtype": "bfloat16"}, 0),
        ({"mamba_ssm_dtype": 32}, 0),
    ],
)
def test_states_are_as_wide_as_the_config_says(tmp_path: Path, changes: dict[str, object], bits: int) -> None:
    (group,) = of(tmp_path, {**MAMBA, **changes}).cache
    assert (group.kind, group.state_bits) == ("recurrent", bits)


def test_states_of_nemotron_h_are_wide_by_default(tmp_path: Path) -> None:
    config = MODELS["nvidia-nemotron-3-nano-30b-a3b-bf16"]["config"]
    assert of(tmp_path, config).cache[0].state_bits == 32
    assert of(tmp_path, {**config, "mamba_ssm_cache_dtype": "bfloat16"}).cache[0].state_bits == 0


@pytest.mark.parametrize(
    "name",
    [
        "transformer.wte.weight",
        "gpt_neox.embed_in.weight",
        "backbone.embeddings.weight",
        "model.tok_embeddings.weight",
        "model.language_model.embed_tokens.weight",
        "transformer.embedding.word_embeddings.weight",
        "model.embed_tokens.qweight",
    ],
)
def test_embeddings_by_any_name(tmp_path: Path, name: str) -> None:
    path = directory(tmp_path / "m")
    (path / "model.safetensors").write_bytes(safetensors({name: entry((8,), 0, 16)}, 16))
    weights = inspect(path)
    assert (weights.embedding, weights.output, weights.layer) == (16, 0, 0)


# GGUF


def pairs(header: dict[str, Any]) -> tuple[Pair, ...]:
    keys = dict(header["keys"])
    for key, letters in header.get("by_letter", {}).items():
        keys[key] = [letters.get(letter, 0) for letter in header["pattern"]]
    name = header["architecture"]
    return (("general.architecture", STRING, name), *(pair(f"{name}.{key}", value) for key, value in keys.items()))


def pair(key: str, value: object) -> Pair:
    if isinstance(value, list):
        return key, ARRAY, (BOOL if isinstance(value[0], bool) else I32, value)
    return key, U32, value


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: f"{header['id']}-{header['architecture']}")
def test_a_model_by_its_header(tmp_path: Path, header: dict[str, Any]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(pairs(header)))
    weights = inspect(path)
    # A header does not say how wide states are: llama.cpp keeps all of them in 32 bits.
    config = tuple(replace(group, state_bits=0) for group in groups(MODELS[header["id"]]["cache"]))
    assert weights.cache == (groups(header["cache"]) if "cache" in header else config)
    assert weights.feed_forward == header.get("feed_forward", weights.feed_forward)
    # A row that says why llama.cpp differs must differ.
    assert ("why" in header) == (weights.cache != config)


def test_recurrent_models_of_the_rwkv_family() -> None:
    keys = {"block_count": 32, "embedding_length": 4096, "attention.head_count": 0, "wkv.head_size": 64}
    assert read("rwkv7", keys) == groups([["recurrent", 32, 0, 0, 0, 0, 2 * 4096, 4096 * 64]])
    assert read("rwkv6qwen2", {**keys, "token_shift_count": 1})[0].convolution == 4096


def read(architecture: str, keys: dict[str, Any]) -> tuple[Layers, ...]:
    data = gguf(pairs({"architecture": architecture, "keys": keys}))
    return gguf_cache(parse(io.BytesIO(data), len(data)), architecture)


PLAIN = {"block_count": 4, "embedding_length": 64, "attention.head_count": 4, "attention.sliding_window": 8}


@pytest.mark.parametrize(
    ("architecture", "more", "rows"),
    [
        ("never-seen", {}, [["full", 4, 4, 16, 16]]),
        ("never-seen", {"attention.head_count_kv": [2, 0, 4, 2]}, [["full", 2, 2, 16, 16], ["full", 1, 4, 16, 16]]),
        ("never-seen", {"attention.head_count_kv": [2]}, [["full", 4, 2, 16, 16]]),
        ("never-seen", {"attention.head_count_kv": [2, 2]}, [["full", 2, 2, 16, 16]]),
        ("never-seen", {"block_count": 0}, []),
        ("never-seen", {"block_count": 2**32 - 1}, []),
        ("gemma3", {"block_count": 2**32 - 1}, []),
        ("gemma3", {"attention.sliding_window": 0}, [["full", 4, 4, 16, 16]]),
        ("gemma3", {"attention.sliding_window_pattern": 2}, [["window", 2, 4, 16, 16, 8], ["full", 2, 4, 16, 16]]),
        ("gemma3", {"attention.sliding_window_pattern": 0}, [["window", 4, 4, 16, 16, 8]]),
        (
            "gemma3",
            {"attention.sliding_window_pattern": [True, False]},
            [["window", 1, 4, 16, 16, 8], ["full", 3, 4, 16, 16]],
        ),
        ("gemma3", {"attention.sliding_window_pattern": [1] * 9}, [["window", 4, 4, 16, 16, 8]]),
        ("smallthinker", {}, [["full", 1, 4, 16, 16], ["window", 3, 4, 16, 16, 4096]]),
        ("exaone4", {}, [["full", 4, 4, 16, 16]]),
        ("qwen35", {"full_attention_interval": 0}, [["full", 1, 4, 16, 16]]),
        ("granitehybrid", {"attention.head_count_kv": [0, 0, 0, 0]}, []),
        ("gemma4", {"attention.shared_kv_layers": 99}, []),
    ],
)
def test_other_headers(architecture: str, more: dict[str, Any], rows: list[list[Any]]) -> None:
    assert read(architecture, {**PLAIN, **more}) == groups(rows)


def test_values_that_sizing_cannot_use_count_as_absent(tmp_path: Path) -> None:
    odd: tuple[Pair, ...] = (
        ("qwen3.attention.value_length", STRING, "16"),
        ("qwen3.attention.sliding_window", I32, -1),
        ("qwen3.attention.sliding_window_pattern", ARRAY, (STRING, ["a", "b"])),
        ("qwen3.expert_count", ARRAY, (I32, [-1, 2])),
        ("qwen3.ssm.state_size", ARRAY, (U32, [1] * 5000)),
    )
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf((*MODEL, *odd)))
    weights = inspect(path)
    assert weights.cache == groups([["full", 2, 2, 16, 16]])
    assert (weights.experts, weights.vocabulary, weights.heads, weights.hidden) == (0, 3, 4, 64)
    # token_embd.weight has 512 elements of 2 bytes, output.weight two blocks of Q4_K, block 0 64 of 4 bytes.
    assert (weights.embedding, weights.output, weights.layer) == (1024, 288, 256)


# Laws

NUMBERS = st.integers(-2, 5) | st.integers(2**31, 2**33)
ANY = st.recursive(
    st.none()
    | st.booleans()
    | NUMBERS
    | st.floats()
    | st.sampled_from(["full_attention", "mamba", "M*E-", "auto", ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["attention", "head_dim", "1"]), inner),
    max_leaves=6,
)
KEYS = sorted(
    {
        key
        for model in MODELS.values()
        for part in (model["config"], *model["config"].values())
        if isinstance(part, dict)
        for key in part
    }
    - {"architectures"}
)
TYPES = sorted({str(model["config"]["model_type"]) for model in MODELS.values()})


@given(st.sampled_from(TYPES), st.dictionaries(st.sampled_from(KEYS), ANY, max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_config_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, more: dict[str, Any]
) -> None:
    read_or_refused(tmp_path_factory, {**UNKNOWN, "model_type": kind, "hidden_size": 64, **more})


@given(st.sampled_from(sorted(MODELS)), st.data())
@settings(max_examples=300, deadline=None)
def test_a_real_config_with_changes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    config = json.loads(json.dumps(MODELS[name]["config"]))
    part = next((value for key, value in config.items() if key.endswith("_config") and "hidden_size" in value), config)
    for key in data.draw(st.lists(st.sampled_from(sorted(part)), max_size=3)):
        part[key] = data.draw(ANY)
    read_or_refused(tmp_path_factory, config)


def read_or_refused(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    try:
        found = read_config(path)
    except ArtifactError as error:
        assert error.message.isprintable()
    else:
        sensible(found.cache)
        assert min(found.heads, found.hidden, found.feed_forward, found.vocabulary, found.experts) >= 0


SUFFIXES = sorted({key for header in HEADERS for key in (*header["keys"], *header.get("by_letter", {}))})
VALUES = st.integers(0, 6) | st.sampled_from([2**31, 2**32 - 1]) | st.lists(st.integers(0, 4), min_size=1, max_size=6)


@given(
    st.sampled_from(sorted({header["architecture"] for header in HEADERS} | {"rwkv7", "never-seen", "dots3note"})),
    st.dictionaries(st.sampled_from(SUFFIXES), VALUES | st.lists(st.booleans(), min_size=1, max_size=6)),
)
@settings(max_examples=400, deadline=None)
def test_any_header_is_read_or_refused(architecture: str, keys: dict[str, Any]) -> None:
    try:
        found = read(architecture, {"block_count": 4, **keys})
    except ArtifactError as error:
        assert error.message.isprintable()
    else:
        sensible(found)


def sensible(groups: tuple[Layers, ...]) -> None:
    assert len(set(groups)) == len(groups)
    for group in groups:
        assert group.kind in ("full", "window", "latent", "index", "recurrent")
        assert group.count > 0
        assert group.row or group.convolution or group.state
        assert bool(group.window) == (group.kind == "window")
        assert min(group.kv_heads, group.key, group.value, group.convolution, group.state) >= 0
