"""The catalog of models: every model is found by each of its names, and a file that is wrong says where."""

from collections import Counter
from dataclasses import replace

import pytest

from appliance.catalog.models import FORMATS, KINDS, Entry, Family, Shelf, check, normal, read, shelf
from appliance.catalog.models.names import find, index, names, near, search
from appliance.errors import SpecError
from appliance.plan.formats import GGUF

ENTRIES = shelf().entries
GROUPS = {
    "qwen3": 9, "qwen3.5": 8, "llama3.3": 1, "deepseek-r1": 7, "deepseek-r1-distill": 6, "gpt-oss": 2, "gemma": 7,
    "gemma3": 3, "glm": 7, "kimi": 3, "mistral": 5, "phi4": 2, "minimax": 3, "qwen3-embedding": 3, "whisper": 2,
    "bge": 2,
}  # fmt: skip
"""Names that stand for several models, and for how many."""


def ids(name: str) -> list[str]:
    found = find(name)
    assert found, name
    return [entry.id for entry in found.entries]


def test_there_are_as_many_models_as_promised() -> None:
    assert len(ENTRIES) == 89
    assert {entry.kind for entry in ENTRIES} == set(KINDS)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_a_model_is_found_by_each_of_its_names(entry: Entry) -> None:
    for name in (entry.id, *entry.aliases, *filter(None, (entry.ollama,))):
        for written in (name, name.upper(), name.replace(":", "-"), f"{name}:latest"):
            assert entry.id in ids(written), written
    assert entry.id in ids(entry.family)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_the_facts_of_a_model_hold_together(entry: Entry) -> None:
    assert entry.active <= entry.parameters
    assert entry.shape.heads <= entry.shape.hidden
    per_token = [group for group in entry.cache if group.kind in ("full", "latent")]
    assert bool(per_token) == (
        entry.architecture not in ("XLMRobertaModel", "XLMRobertaForSequenceClassification", "NomicBertModel")
    )
    assert sum(group.count for group in entry.cache if group.kind != "index") <= 2 * entry.shape.layers + 40
    first = entry.variants[0]
    assert first.format in FORMATS and first.format != "gguf"
    assert len({(one.format, one.bits, one.hf) for one in entry.variants}) == len(entry.variants)
    for variant in entry.variants:
        for quantisation in variant.quantisations:
            assert quantisation.upper().removeprefix("UD-").startswith(tuple(GGUF)), quantisation


@pytest.mark.parametrize(("name", "count"), GROUPS.items(), ids=GROUPS)
def test_a_family_stands_for_all_of_its_models(name: str, count: int) -> None:
    assert len(ids(name)) == count


@pytest.mark.parametrize(
    ("name", "model", "quantisation"),
    [
        ("qwen3:8b", "qwen3-8b", ""),
        ("Qwen3-8B", "qwen3-8b", ""),
        ("qwen3:8b-q4_K_M", "qwen3-8b", "q4_K_M"),
        ("qwen3-8b:fp8", "qwen3-8b", "fp8"),
        ("llama-3.3-70b-instruct-awq", "llama-3.3-70b-instruct", "awq"),
        ("gpt-oss:20b", "gpt-oss-20b", ""),
        ("deepseek-r1:8b", "deepseek-r1-distill-llama-8b", ""),
        ("deepseek-r1:671b", "deepseek-r1", ""),
        ("bge-m3", "bge-m3", ""),
        ("phi4:14b", "phi-4", ""),
    ],
)
def test_a_tag_names_one_model_and_perhaps_a_quantisation(name: str, model: str, quantisation: str) -> None:
    found = find(name)
    assert found
    assert ([entry.id for entry in found.entries], found.quantisation) == ([model], quantisation)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("qwn3", "qwen3"), ("lama3.3", "llama3.3"), ("mistrall", "mistral"), ("qwen", "qwen3")],
)
def test_a_typing_mistake_gets_the_nearest_names(word: str, meant: str) -> None:
    assert find(word) is None
    assert meant in near(word)


def test_nothing_is_near_to_nonsense() -> None:
    assert near("zzzzzzzz") == ()


def test_a_search_looks_into_names_families_kinds_and_repositories() -> None:
    assert [entry.id for entry in search("whisper")] == ["whisper-large-v3", "whisper-large-v3-turbo"]
    assert {entry.kind for entry in search("embed")} == {"embed"}
    assert "llama-3.3-70b-instruct" in [entry.id for entry in search("casperhansen")]
    assert len(search("")) == len(ENTRIES)


def test_every_name_is_listed_once() -> None:
    assert max(Counter(names()).values()) == 1
    assert set(map(normal, names())) == set(index(shelf()))


FAMILY = """
family: tiny
models:
- id: tiny-1b
  kind: chat
  parameters: 1
  context: 4096
  shape: {layers: 2, hidden: 64, heads: 4, vocabulary: 100}
  cache: [{kind: full, count: 2, kv_heads: 1, key: 16, value: 16}]
  variants: [{format: bf16, bits: 16, hf: owner/tiny}]
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: chat", "kind: talk", "models.0 (tiny-1b): kind: 'talk' is none of chat, embed, rerank, transcribe"),
        ("kind: chat", "kind: chat\n  knd: chat", "models.0.knd: unknown key"),
        ("parameters: 1", "parameters: 0", "models.0 (tiny-1b): parameters, context and variants must be said"),
        ("format: bf16", "format: bf15", "models.0 (tiny-1b): variants.0: format: 'bf15' is none of"),
        ("owner/tiny", "tiny", "models.0 (tiny-1b): variants.0: 'tiny' is no OWNER/REPOSITORY"),
        ("kind: full", "kind: fool", "models.0 (tiny-1b): cache: 'fool' × 2"),
        ("family: tiny", "family: Tiny!", "'Tiny!' cannot be a family's name"),
        ("bits: 16", "quantisations: [Q8_0]", "quantisations belong to gguf"),
        (
            "{format: bf16, bits: 16,",
            "{format: gguf, quantisations: [Q8_0], file: x.gguf,",
            "{quantisation} is not in it",
        ),
    ],
)
def test_a_wrong_file_says_where(old: str, new: str, said: str) -> None:
    read(FAMILY, source="tiny.yaml")
    with pytest.raises(SpecError) as caught:
        read(FAMILY.replace(old, new, 1), source="tiny.yaml")
    assert caught.value.message.startswith("tiny.yaml: ")
    assert said in caught.value.message


def test_two_models_cannot_have_one_name() -> None:
    family = read(FAMILY, source="tiny.yaml")
    other = replace(family.models[0], id="tiny-2b", aliases=("tiny:1b",))
    twice = Shelf(families=(family, Family(family="other", models=(other,))))
    with pytest.raises(SpecError, match="tiny-1b names both tiny-1b and tiny-2b"):
        check(twice)


def test_families_may_share_a_name() -> None:
    family = read(FAMILY, source="tiny.yaml")
    one = replace(family, aliases=("small",))
    two = replace(family, family="other", aliases=("small",), models=(replace(family.models[0], id="other-1b"),))
    assert [entry.id for entry in index(Shelf(families=(one, two)))["small"]] == ["tiny-1b", "other-1b"]
