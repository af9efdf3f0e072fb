"""What comes from outside is read strictly and bounded, and what is written is read back the same."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance import codec
from appliance.domain.changes import Record
from appliance.domain.deployment import Deployment
from appliance.domain.host import Host
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.errors import SpecError

# JSON knows no other floats, and what is not one is refused.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))

MODEL = "name: a\nsource: /a.gguf\n"


def refusal(text: str, kind: type[object] = ModelSpec) -> str:
    with pytest.raises(SpecError) as caught:
        codec.load_yaml(kind, text, source="models.d/a.yaml")
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{MODEL}gpu: 1\n", "models.d/a.yaml: gpu: unknown key"),
        (f"{MODEL}gpus: true\n", "models.d/a.yaml: gpus"),
        (f"{MODEL}gpus: '1'\n", "models.d/a.yaml: gpus"),
        (f"{MODEL}gpus: [0, a]\n", "models.d/a.yaml: gpus"),
        (f"{MODEL}context: many\n", "models.d/a.yaml: context: Input should be a valid integer"),
        (f"{MODEL}context: '4096'\n", "models.d/a.yaml: context: Input should be a valid integer"),
        (f"{MODEL}replicas: 1.5\n", "models.d/a.yaml: replicas: Input should be a valid integer"),
        (f"{MODEL}replicas: true\n", "models.d/a.yaml: replicas: Input should be a valid integer"),
        (f"{MODEL}replicas:\n", "models.d/a.yaml: replicas: Input should be a valid integer"),
        (f"{MODEL}engine: no\n", "models.d/a.yaml: engine: Input should be a valid string"),
        (f"{MODEL}engine: 5\n", "models.d/a.yaml: engine: Input should be a valid string"),
        (f"{MODEL}options: [[a]]\n", "models.d/a.yaml: options.0.1: Field required"),
        ("source: /a\n", "models.d/a.yaml: name: Field required"),
        ("- a\n- b\n", "models.d/a.yaml: expected keys and values, found list"),
        ("text", "models.d/a.yaml: expected keys and values, found str"),
    ],
)
def test_a_refusal_names_the_file_and_the_key(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_a_refusal_names_the_whole_path() -> None:
    text = "models:\n- {name: a, source: /a}\n- {name: b, source: /b, replicas: two}\n"
    assert refusal(text, ApplianceSpec).startswith(
        "models.d/a.yaml: models.1.replicas: Input should be a valid integer"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\nsource: /a\n", "key given twice: name"),
        ("name: &x a\nsource: *x\n", "anchors and aliases"),
        ("a: &x [1, 2]\nb: [*x, *x]\n", "anchors and aliases"),
        ("&x a: *x\n", "anchors and aliases"),
        ("<<: {name: a}\nsource: /a\n", "not valid YAML"),
        ("no: 1\n", "key False"),
        ("1: a\n", "key 1"),
        ("2024-01-01: a\n", "key"),
        ("? [a, b]\n: c\n", "key"),
        ("? {a: b}\n: c\n", "key"),
        ("name: !!python/object/apply:os.system [echo]\n", "not valid YAML"),
        ("name: a\n\tsource: b\n", "not valid YAML"),
        ("name: a: b\n", "not valid YAML"),
        ("--- {a: 1}\n--- {b: 2}\n", "not valid YAML"),
        ("name: [", "not valid YAML"),
        ("name: \x00", "not valid YAML"),
        ("name: 2024-99-99\n", "not valid YAML"),
        ("name: !!int x\n", "not valid YAML"),
        ("name: !!bool x\n", "not valid YAML"),
        ("name: !!timestamp x\n", "not valid YAML"),
        (f"context: {'1' * 5000}\n", "not valid YAML"),
        ("context: 0x_\n", "not valid YAML"),
        (f"context: 0x{'f' * 5000}\n", "more than 4300 digits"),
    ],
)
def test_yaml_is_a_tree_of_words_without_surprises(text: str, message: str) -> None:
    said = refusal(text)
    assert said.startswith("models.d/a.yaml: ")
    assert message in said
    assert "\n" not in said


def test_nothing_at_all_is_an_empty_document() -> None:
    assert codec.load_yaml(ApplianceSpec, "# only a comment\n", source="x") == ApplianceSpec()


def test_a_huge_document_is_refused_unread() -> None:
    assert (
        refusal("#" * (codec.MAX_BYTES + 1))
        == f"models.d/a.yaml: {codec.MAX_BYTES + 1} characters; at most {codec.MAX_BYTES} are read"
    )
    with pytest.raises(SpecError, match="are read"):
        codec.load_json(ModelSpec, b" " * (codec.MAX_BYTES + 1), source="x")


@pytest.mark.parametrize("text", ["[" * 3000, "a: " + "[" * 3000, "a: " + "{a: " * 3000, "- " * 3000])
def test_a_deep_document_is_refused(text: str) -> None:
    assert refusal(text)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"name":' * 50_000, "", "nul", "{", b"\xff", b"{}{}", '{"name": NaN}']
)
def test_json_that_is_none_is_refused(text: str | bytes) -> None:
    with pytest.raises(SpecError, match=r"^p\.json: "):
        codec.load_json(ModelSpec, text, source="p.json")


def test_json_is_as_strict_as_yaml() -> None:
    for text, message in (
        ('{"name":"a","source":"/a","x":1}', "p.json: x: unknown key"),
        ('{"name":"a","source":1}', "p.json: source: Input should be a valid string"),
    ):
        with pytest.raises(SpecError) as caught:
            codec.load_json(ModelSpec, text, source="p.json")
        assert caught.value.message == message


@pytest.mark.parametrize("kind", [ModelSpec, ApplianceSpec, Host, Deployment, Record])
def test_what_is_dumped_is_loaded_again(kind: type[Any]) -> None:
    @settings(max_examples=15)
    @given(st.from_type(kind))
    def law(value: object) -> None:
        text = codec.dump_json(value)
        assert codec.load_json(kind, text, source="x") == value
        assert codec.from_data(kind, codec.to_data(value), source="x") == value
        assert codec.dump_json(codec.load_json(kind, text, source="x")) == text

    law()


words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20)
"""All but what YAML takes for a line break; names and paths with those are refused."""

trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(words, trees, max_size=4))
def test_yaml_that_is_dumped_is_read_again(data: dict[str, object]) -> None:
    assert codec.read_yaml(codec.dump_yaml(data), source="x") == data
