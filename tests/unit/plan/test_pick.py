"""The choice among forms: its order, what speaks against each, and that what is taken can be served."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import catalog
from appliance.catalog.models import Entry, Shape, Variant, shelf
from appliance.catalog.models.names import Found, find
from appliance.domain.deployment import Model
from appliance.domain.host import Host
from appliance.domain.service import Load
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.domain.weights import Layers
from appliance.errors import HostError
from appliance.plan import plan
from appliance.plan.formats import ladder, matching
from appliance.plan.offer import Choice, choices
from appliance.plan.outline import outline
from appliance.plan.pick import Picked, pick
from appliance.plan.room import pools, room
from tests.unit.plan.machines import machine
from tests.unit.samples import CATALOG, GIB, GPU_CATALOG, HOST, LAYOUT, PYTHON, gpu, gpu_host

SHIPPED = catalog.load()
FAMILIES = ("qwen3", "gemma3", "deepseek-r1", "gpt-oss", "glm", "mistral", "phi4", "qwen3-embedding", "qwen3.5")
GGUF = Variant(format="gguf", hf="them/{id}-GGUF", quantisations=("Q8_0", "Q4_K_M", "Q2_K"))
FORMS = (
    Variant(format="bf16", bits=16, hf="us/model", ms="cn/model"),
    Variant(format="awq", bits=4, hf="them/model-AWQ"),
    Variant(format="fp8", bits=8, hf="us/model-FP8"),
    replace(GGUF, hf="them/model-GGUF"),
)


def entry(name: str = "m-8b", billions: float = 8, forms: tuple[Variant, ...] = FORMS, **more: Any) -> Entry:
    """Return a model with 32 layers and 32 KiB of cache for a token in each of four."""
    return Entry(
        id=name, kind="chat", parameters=billions, context=32768, variants=forms, family="m",
        shape=Shape(layers=32, hidden=4096, heads=32, vocabulary=100_000),
        cache=(Layers(kind="full", count=32, kv_heads=8, key=128, value=128),), **more,
    )  # fmt: skip


def picked(*entries: Entry, host: Host = HOST, item: ModelSpec | None = None, **more: Any) -> Picked:
    rows = GPU_CATALOG if host.gpus else CATALOG
    found = Found(entries=entries or (entry(),))
    return pick(found, item or ModelSpec(name="m", source=""), host, rows, room(host), **more)


def best(*entries: Entry, **more: Any) -> str:
    return picked(*entries, **more).best.choice.label


def ram(gib: int) -> Host:
    return replace(HOST, memory=gib * GIB, memory_available=gib * GIB)


@pytest.mark.parametrize(
    ("gib", "label"), [(80, "m-8b BF16"), (16, "m-8b FP8"), (12, "m-8b AWQ 4-bit")],
)  # fmt: skip
def test_on_gpus_16_bits_before_8_before_4(gib: int, label: str) -> None:
    assert best(host=gpu_host(gpu(memory=gib))) == label


def test_on_the_cpu_there_is_gguf_only() -> None:
    assert best(host=ram(64)) == "m-8b Q8_0"
    assert best(host=ram(9)) == "m-8b Q4_K_M"


def test_a_larger_model_of_less_bits_comes_before_a_smaller_one() -> None:
    large, small = entry("m-20b", 20), entry("m-8b", 8)
    found = picked(small, large, host=gpu_host(gpu(memory=24)))
    assert found.best.choice.label == "m-20b AWQ 4-bit"
    assert [one.choice.entry.id for one in found.others][-1] == "m-8b"
    assert found.others[-1].choice.label == "m-8b BF16"


def test_what_lies_wholly_on_gpus_comes_before_what_only_the_ram_holds() -> None:
    large, small = entry("m-70b", 70), entry("m-8b", 8)
    assert best(large, small, host=gpu_host(gpu(memory=24), memory=512)) == "m-8b BF16"


def test_without_room_on_the_gpus_the_ram_is_used() -> None:
    found = picked(entry("m-70b", 70), host=gpu_host(gpu(memory=24), memory=512))
    assert found.best.choice.label == "m-70b Q8_0"
    assert found.why.startswith("the largest that fits the machine's memory")


def test_less_than_4_bits_must_be_asked_for() -> None:
    small = entry("m-20b", 20, (FORMS[0], FORMS[3]))
    with pytest.raises(HostError) as caught:
        picked(small, host=ram(11))
    assert "--quantisation Q2_K" in caught.value.hint
    assert best(small, host=ram(11), quantisation="q2_k") == "m-20b Q2_K"


def test_a_name_may_ask_for_the_quantisation() -> None:
    found = pick(
        Found(entries=(entry(),), quantisation="q2_K"), ModelSpec(name="m", source=""), ram(64), CATALOG, room(ram(64))
    )
    assert found.best.choice.source == "hf:them/model-GGUF:Q2_K"


def test_a_form_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(HostError, match="knows no m-8b in q9 at Hugging Face") as caught:
        picked(host=ram(64), quantisation="q9")
    assert caught.value.hint == "there are: bf16, awq, fp8, Q8_0, Q4_K_M, Q2_K"


def test_modelscope_has_what_is_known_to_be_there() -> None:
    host = gpu_host(gpu(memory=80))
    assert picked(host=host, hub="ms").best.choice.source == "ms:cn/model"
    with pytest.raises(HostError, match="at ModelScope"):
        picked(host=host, hub="ms", quantisation="fp8")


def test_gpus_without_kernels_for_a_form_are_told() -> None:
    old = replace(gpu(memory=16), name="Tesla V100", compute_capability="7.0")
    with pytest.raises(HostError, match="awq needs compute capability 7.5, Tesla V100 has 7.0"):
        picked(entry(forms=FORMS[1:2]), host=gpu_host(old))


def test_what_the_operator_asks_for_is_what_must_fit() -> None:
    host = ram(13)
    assert best(host=host) == "m-8b Q8_0"
    assert best(host=host, item=ModelSpec(name="m", source="", context=32768)) == "m-8b Q4_K_M"
    on_cpu = ModelSpec(name="m", source="", gpus=0)
    assert best(host=gpu_host(gpu(memory=80)), item=on_cpu) == "m-8b Q8_0"


def test_with_less_than_the_default_context_the_smallest_is_the_last_hope() -> None:
    found = picked(entry("m-8b", 8), entry("m-20b", 20), host=ram(6))
    assert found.best.choice.label == "m-8b Q4_K_M"
    assert "less context" in found.why
    with pytest.raises(HostError, match="no form of m fits this machine"):
        picked(host=ram(6), item=ModelSpec(name="m", source="", strict=True))


def test_every_form_that_was_passed_over_has_its_reason() -> None:
    found = picked(entry("m-70b", 70), entry("m-20b", 20), host=gpu_host(gpu(memory=24)))
    reason = found.reason("fast")
    assert reason.subject == "model for fast"
    assert reason.chosen.startswith("m-20b AWQ 4-bit with vllm 3.0")
    told = {one.name: one.why for one in reason.refused}
    assert "22528 MiB are free" in told["m-70b AWQ 4-bit"] or "22.1 GiB are free" in told["m-70b AWQ 4-bit"]
    assert "m-20b BF16" in told and "m-20b FP8" in " ".join(told)
    assert all(one.why for one in reason.refused)


def test_memory_that_others_have_is_not_there() -> None:
    host = gpu_host(gpu(memory=80))
    taken = room(host).take((Load(device="nvidia:0", items=(("weights", 63 * GIB),)),), pools(host))
    item = ModelSpec(name="m", source="")
    found = pick(Found(entries=(entry(),)), item, host, GPU_CATALOG, taken)
    assert found.best.choice.label == "m-8b AWQ 4-bit"


def test_a_gguf_ladder_prefers_plain_names_and_takes_a_publishers_own_mixture() -> None:
    assert ladder(GGUF) == ("Q8_0", "Q4_K_M")
    own = replace(GGUF, quantisations=("UD-Q8_K_XL", "UD-Q4_K_M", "UD-IQ2_M"))
    assert ladder(own) == ("UD-Q8_K_XL", "UD-Q4_K_M")
    assert matching(GGUF, "q4") == ("Q4_K_M",)
    assert matching(GGUF, "Q4-K-M") == ("Q4_K_M",)
    assert matching(FORMS[0], "fp16") == ("",)
    assert matching(FORMS[1], "int4") == ("",)
    assert matching(FORMS[1], "q4") == ()


@pytest.mark.parametrize(
    ("name", "form", "gigabytes"),
    [
        # Published sizes of the repositories' weights.
        ("qwen3-8b", "bf16", 16.38), ("qwen3-32b", "bf16", 65.52), ("qwen3-8b", "q4_k_m", 5.03),
        ("llama-3.3-70b-instruct", "bf16", 141.1), ("gpt-oss-20b", "mxfp4", 13.76), ("deepseek-r1", "fp8", 688.6),
        ("qwen3.5-27b", "fp8", 30.87), ("qwen3-0.6b", "bf16", 1.5),
    ],
)  # fmt: skip
def test_sizes_are_about_those_that_are_published(name: str, form: str, gigabytes: float) -> None:
    found = find(name)
    assert found
    one = next(one for one in found.entries if one.id == name)
    size = choices(one, "hf", form)[0].weights.size / 1e9
    assert gigabytes * 0.97 <= size <= gigabytes * 1.12


@pytest.mark.parametrize("one", [one for entry in shelf().entries for one in choices(entry)], ids=lambda one: one.label)
def test_an_outline_is_like_the_weights_of_a_header(one: Choice) -> None:
    weights = one.weights
    assert weights == outline(one.entry, one.variant, one.quantisation)
    assert weights.size == weights.tensors > 0
    assert 0 < weights.layer * weights.layers <= weights.size
    assert weights.embedding + weights.output < weights.size


HOSTS = st.one_of(
    st.integers(4, 600).map(ram),
    st.tuples(st.sampled_from(("T4", "A100", "RTX 3090", "H100")), st.integers(1, 8), st.integers(6, 141)).map(
        lambda each: cards_of(*each)
    ),
)


def cards_of(name: str, count: int, gib: int) -> Host:
    """Return a machine with so many GPUs of a kind, with another amount of memory than it is sold with."""
    names = {"T4": "Tesla T4"}
    host = machine(*[names.get(name, name)] * count, memory=512 * GIB, memory_available=500 * GIB, glibc="2.39")
    return replace(host, gpus=tuple(replace(one, memory=gib * GIB) for one in host.gpus))


@given(host=HOSTS, name=st.sampled_from(FAMILIES))
def test_what_is_picked_can_be_planned(host: Host, name: str) -> None:
    found = find(name)
    assert found
    item = ModelSpec(name="m", source=name)
    try:
        chosen = pick(found, item, host, SHIPPED, room(host))
    except HostError:
        return
    choice = chosen.best
    model = Model(name="m", source=choice.choice.source, weights=choice.choice.weights, digest="d" * 64)
    engine = choice.engine if model.weights.format == "safetensors" else "auto"
    spec = ApplianceSpec(models=(replace(item, engine=engine),))
    done = plan(spec, (model,), host, LAYOUT, SHIPPED, python=PYTHON)
    assert done.services[0].engine == choice.engine
    assert done.services[0].setting.context == choice.fitted.places[0].setting.context
    if "less context" not in chosen.why:
        assert done.services[0].setting.context >= min(8192, choice.choice.entry.context)
    if "GPUs" in chosen.why and done.services[0].setting.gpu_layers:
        assert done.services[0].setting.gpu_layers == model.weights.layers + 1


@given(name=st.sampled_from(FAMILIES), gib=st.integers(4, 500), more=st.integers(1, 500))
def test_more_ram_never_brings_a_smaller_model(name: str, gib: int, more: int) -> None:
    assert size_of(name, ram(gib)) <= size_of(name, ram(gib + more))


@given(
    name=st.sampled_from(FAMILIES), card=st.sampled_from(("A100", "H100")), count=st.sampled_from((1, 2, 4)),
    gib=st.integers(24, 96), more=st.integers(1, 96),
)  # fmt: skip
def test_more_gpu_memory_never_brings_a_smaller_model(name: str, card: str, count: int, gib: int, more: int) -> None:
    """Once something lies on the GPUs: before that, the RAM may hold more."""
    small, large = cards_of(card, count, gib), cards_of(card, count, gib + more)
    if on_gpus(name, small):
        assert size_of(name, small) <= size_of(name, large)
        assert size_of(name, small) <= size_of(name, cards_of(card, 2 * count, gib))


def size_of(name: str, host: Host) -> float:
    """Return billions of parameters; 0 = nothing fits."""
    found = find(name)
    assert found
    try:
        return pick(found, ModelSpec(name="m", source=name), host, SHIPPED, room(host)).best.choice.entry.parameters
    except HostError:
        return 0


def on_gpus(name: str, host: Host) -> bool:
    found = find(name)
    assert found
    try:
        return "GPUs" in pick(found, ModelSpec(name="m", source=name), host, SHIPPED, room(host)).why
    except HostError:
        return False
