"""The largest layout that fits: on which GPUs, with how much context; and what a refusal says."""

import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from appliance.domain.deployment import Deployment, Refusal
from appliance.domain.host import Gpu, Host, Slice
from appliance.domain.release import Release
from appliance.domain.service import Service
from appliance.domain.spec import ModelSpec
from appliance.domain.weights import Layers, Weights
from appliance.errors import HostError
from appliance.plan.choose import Candidate
from appliance.plan.place import Fitted
from appliance.plan.room import Room, pools, room, summed
from appliance.plan.size import fit
from tests.unit.samples import (
    CATALOG,
    GIB,
    GPU_CATALOG,
    HOST,
    LLAMA_CUDA,
    LMDEPLOY,
    SGLANG,
    VLLM,
    deployment,
    gpu,
    gpu_host,
    item,
    model,
    safetensors,
    weights,
)

MIB = 1 << 20
TOKEN = 64 << 10
"""Bytes of KV cache for a token of the sample model."""
LAYER = 512 * (4 * 3 * (4096 + 12288) + 24)
"""Bytes that llama.cpp computes one layer in."""
BUFFERS = LAYER + 2 * 512 * 4096 + 4 * 4 * 151936 + 48 * MIB
"""That, the mask of 4096 tokens, the logits of four requests, and the program."""
CPU = CATALOG.releases[0]
FOUR = tuple(gpu(index) for index in range(4))


def fitted(spec: ModelSpec, facts: Weights, host: Host, *rows: Release, here: Room | None = None) -> Fitted:
    """Fit one model with these releases; those for the CPU get no GPU."""
    candidates = tuple(
        Candidate(release=row, gpus=() if row.accelerator == "cpu" else host.devices) for row in rows or (CPU,)
    )
    return fit(spec, model(spec.name, facts), candidates, host, here or room(host))[0]


def refusal(spec: ModelSpec, facts: Weights, host: Host, *rows: Release) -> HostError:
    with pytest.raises(HostError) as caught:
        fitted(spec, facts, host, *rows)
    return caught.value


def numbers(found: Fitted) -> list[list[int]]:
    """Return the GPUs of each replica."""
    return [[one.index for one in place.gpus] for place in found.places]


# On the CPU: all in RAM.


def test_the_sample_takes_64_kib_a_token() -> None:
    assert weights().kv_bytes_per_token == TOKEN


def test_a_model_that_fits_gets_what_it_was_trained_for() -> None:
    found = fitted(item(), weights(), HOST)
    (place,) = found.places
    assert (place.setting.context, place.setting.parallel, place.setting.kv_type) == (4096, 4, "auto")
    (load,) = place.loads
    assert load.device == "ram"
    assert load.items == (("weights", GIB), ("KV cache", 4096 * 4 * TOKEN), ("buffers", BUFFERS))
    assert (found.steps, found.refused, place.gpus) == ((), (), ())


def test_a_plan_says_where_everything_went() -> None:
    reason = deployment().reasons[-1]
    assert reason.subject == "memory of tiny"
    assert reason.chosen == "4096 tokens × 4 at the same time on the CPU"
    assert reason.why == "ram 2198 MiB of 10.0 GiB: weights 1024 MiB, KV cache 1024 MiB, buffers 150 MiB"
    cut = deployment(facts=weights(context=131072)).reasons[-1]
    assert cut.chosen == "16384 tokens × 4 at the same time on the CPU (trained for 131072)"
    assert [step.name for step in cut.refused] == [
        "131072 tokens × 4 at the same time", "65536 tokens × 4 at the same time", "32768 tokens × 4 at the same time",
    ]  # fmt: skip
    assert cut.refused[2].why == "needs 9394 MiB of ram, 9216 MiB are free of 10.0 GiB"


def test_context_is_halved_until_it_fits() -> None:
    facts = weights(context=131072)
    assert fitted(item(), facts, HOST).places[0].setting.context == 16384
    one = fitted(item(parallel=1), facts, HOST).places[0].setting
    assert (one.context, one.parallel) == (65536, 1)


def test_a_context_that_was_asked_for_is_never_cut() -> None:
    found = fitted(item(context=40000), weights(), HOST)
    assert (found.places[0].setting.context, found.places[0].setting.parallel) == (40000, 2), "less at the same time"
    error = refusal(item(context=500000), weights(), HOST)
    assert error.message == (
        "tiny does not fit: llama-cpp 1.0 (cpu): 500000 tokens × 1 at the same time, KV cache q4_0 "
        "needs 10.2 GiB of ram, 9216 MiB are free of 10.0 GiB (weights 1024 MiB, KV cache 8793 MiB, buffers 633 MiB)"
    )
    assert error.hint == "try --context 4096"


def test_every_replica_counts() -> None:
    each = GIB + 4096 * 4 * TOKEN + BUFFERS
    exactly = replace(HOST, memory=1 << 50, memory_available=3 * each)
    assert (
        fitted(item(replicas=3), weights(), exactly).places[2].setting
        == fitted(item(), weights(), HOST).places[0].setting
    )
    less = replace(exactly, memory_available=3 * each - 9 * MIB)
    found = fitted(item(replicas=3), weights(), less)
    assert {place.setting for place in found.places} == {replace(found.places[0].setting, parallel=2)}
    assert found.steps[0].why.endswith("2189 MiB are free of 1048576.0 GiB"), "what the two before it left"
    error = refusal(item(replicas=8), weights(), HOST)
    assert error.hint == "try --replicas 1"


def test_the_second_model_gets_what_the_first_left() -> None:
    plan = deployment(item("a"), item("b"), facts={"a": weights(), "b": weights(context=131072)})
    assert [service.setting.context for service in plan.services] == [4096, 16384]
    assert plan.services[1].memory <= 9 * GIB - plan.services[0].memory
    little = replace(HOST, memory_available=3 * GIB)
    with pytest.raises(HostError, match=r"^b does not fit: .* 873 MiB are free of 10\.0 GiB"):
        deployment(item("a"), item("b"), facts={"a": weights(), "b": weights()}, host=little)


def test_the_largest_is_placed_first_whatever_the_order() -> None:
    """A small one fits beside a large one, where a large one beside a small one might not."""
    facts = {"a": weights(context=131072), "b": weights(size=4 * GIB)}
    plan = deployment(item("a"), item("b"), facts=facts)
    assert [service.model for service in plan.services] == ["a", "b"], "told in the order of the spec"
    assert [service.setting.context for service in plan.services] == [8192, 4096], "the large one has all it wants"
    assert deployment(item("b"), item("a"), facts=facts).services == plan.services[::-1]
    with pytest.raises(HostError, match=r"^a does not fit: .* 362 MiB are free of 10\.0 GiB"):
        deployment(item("a"), item("b"), facts={"a": weights(), "b": weights(size=8 * GIB)})


def test_a_header_that_says_nothing_gets_4096_tokens() -> None:
    assert fitted(item(), weights(context=0), HOST).places[0].setting.context == 4096


def test_an_engine_of_one_request_counts_one() -> None:
    (place,) = fitted(item(), weights(), HOST, CATALOG.releases[1]).places
    assert place.setting.parallel == 1
    assert dict(place.loads[0].items)["KV cache"] == 4096 * TOKEN


def test_safetensors_on_the_cpu_lie_in_ram() -> None:
    row = replace(VLLM, accelerator="cpu", capabilities=(), driver="")
    (place,) = fitted(item(), safetensors(), replace(HOST, memory=1 << 40, memory_available=1 << 40), row).places
    (load,) = place.loads
    assert load.device == "ram"
    assert dict(load.items)["weights"] == GIB
    assert place.setting.tensor_parallel == 1


# Which GPUs.


def test_one_gpu_is_enough_where_it_holds_everything() -> None:
    found = fitted(item(), safetensors(size=15 * GIB), gpu_host(*FOUR), VLLM)
    assert numbers(found) == [[0]]
    assert found.places[0].setting.tensor_parallel == 1
    assert [load.device for load in found.places[0].loads] == ["ram", "nvidia:0"]


def test_the_fewest_gpus_that_hold_it() -> None:
    host = gpu_host(*FOUR)
    assert numbers(fitted(item(), safetensors(size=30 * GIB), host, VLLM)) == [[0, 1]]
    assert numbers(fitted(item(), safetensors(size=60 * GIB), host, VLLM)) == [[0, 1, 2, 3]]
    assert numbers(fitted(item(), weights(size=50 * GIB), host, LLAMA_CUDA)) == [[0, 1, 2]]


def test_a_layer_is_shared_by_gpus_only_where_the_heads_divide() -> None:
    host = gpu_host(*FOUR)
    forty = safetensors(size=45 * GIB, heads=40, cache=(Layers(kind="full", count=16, kv_heads=8, key=128, value=128),))
    assert numbers(fitted(item(), forty, host, VLLM)) == [[0, 1, 2, 3]], "40 heads among 3: no"
    three = safetensors(size=45 * GIB, heads=30, cache=(Layers(kind="full", count=16, kv_heads=6, key=128, value=128),))
    found = fitted(item(), three, host, VLLM)
    assert numbers(found) == [[0, 1, 2]]
    assert found.places[0].setting.tensor_parallel == 3
    assert "on each of 2 GPUs" in fitted(item(), three, host, LMDEPLOY, CPU).refused[0].why, "powers of two only"


def test_an_engine_that_moves_layers_does_not_divide_them() -> None:
    found = fitted(item(), weights(size=50 * GIB, heads=7), gpu_host(*FOUR), LLAMA_CUDA)
    setting = found.places[0].setting
    assert (setting.tensor_parallel, setting.gpu_layers) == (1, 17)


@pytest.mark.parametrize(("capability", "dtype"), [("7.0", "half"), ("7.5", "half"), ("8.0", "auto"), ("10.0", "auto")])
def test_gpus_older_than_compute_capability_8_compute_in_half(capability: str, dtype: str) -> None:
    host = gpu_host(gpu(0, compute_capability=capability))
    assert fitted(item(), safetensors(), host, VLLM).places[0].setting.dtype == dtype
    assert fitted(item(), weights(), host, LLAMA_CUDA).places[0].setting.dtype == "auto", "GGUF says its own types"


def test_replicas_get_gpus_of_their_own() -> None:
    assert numbers(fitted(item(replicas=3), safetensors(size=15 * GIB), gpu_host(*FOUR), VLLM)) == [[0], [1], [2]]
    assert numbers(fitted(item(replicas=2), safetensors(size=30 * GIB), gpu_host(*FOUR), VLLM)) == [[0, 1], [2, 3]]


def test_several_models_live_on_one_gpu() -> None:
    plan = deployment(item("a"), item("b"), item("c"), host=gpu_host(gpu()), catalog=GPU_CATALOG)
    assert [service.gpus for service in plan.services] == [("GPU-0",)] * 3
    assert {service.engine for service in plan.services} == {"llama-cpp"}


def test_the_second_model_goes_where_there_is_more_room() -> None:
    plan = deployment(item("a"), item("b"), host=gpu_host(gpu(), gpu(1)), catalog=GPU_CATALOG)
    assert [service.gpus for service in plan.services] == [("GPU-0",), ("GPU-1",)]


def test_what_others_hold_of_a_gpu_is_not_taken() -> None:
    host = gpu_host(gpu(0, memory_free=10 * GIB), gpu(1, memory_free=23 * GIB))
    assert numbers(fitted(item(), safetensors(size=8 * GIB), host, VLLM)) == [[1]]


def test_a_model_larger_than_the_gpu_leaves_layers_in_ram() -> None:
    found = fitted(item(), weights(size=32 * GIB), gpu_host(gpu()), LLAMA_CUDA)
    setting = found.places[0].setting
    assert (setting.context, setting.parallel, setting.kv_type) == (4096, 1, "auto"), "all else is given up before"
    assert 0 < setting.gpu_layers < 17
    loads = {load.device: dict(load.items) for load in found.places[0].loads}
    assert loads["nvidia:0"]["weights"] == (setting.gpu_layers - 1) * 1792 * MIB + 2 * GIB, "the output comes first"
    assert loads["ram"]["weights"] == (17 - setting.gpu_layers) * 1792 * MIB + 2 * GIB, "the embedding stays"
    more = replace(setting, gpu_layers=setting.gpu_layers + 1)
    assert (more.gpu_layers - 1) * 1792 * MIB + 2 * GIB > 19 * GIB, "one more would be too much"
    assert len(found.steps) == 8, "the ends of a long way"


def test_where_ram_is_short_too_a_smaller_context_helps_with_layers_in_ram() -> None:
    host = gpu_host(gpu(), memory=19)
    facts = weights(
        size=34 * GIB, context=8192, cache=(Layers(kind="full", count=16, kv_heads=128, key=256, value=256),)
    )
    setting = fitted(item(), facts, host, LLAMA_CUDA).places[0].setting
    assert setting.context < 8192
    assert 0 < setting.gpu_layers < 17


def test_slices_of_a_gpu_are_used_one_by_one() -> None:
    parts = tuple(Slice(index=n, uuid=f"MIG-{n}", profile="3g.40gb", memory=40 * GIB) for n in (0, 1))
    host = gpu_host(gpu(0, 80, partitioned=True, slices=parts))
    found = fitted(item(replicas=2), safetensors(size=20 * GIB), host, VLLM)
    assert [place.gpus[0].visible for place in found.places] == ["MIG-0", "MIG-1"]
    assert [load.device for load in found.places[1].loads] == ["ram", "nvidia:0.1"]
    error = refusal(item(), safetensors(size=50 * GIB), host, VLLM)
    assert "on each of" not in error.message, "no process sees two"
    named = fitted(item(gpus=(0,), replicas=2), safetensors(size=20 * GIB), host, VLLM)
    assert [len(place.gpus) for place in named.places] == [1, 1]


# What the operator says of GPUs.


def test_so_many_gpus_are_used_even_where_fewer_would_do() -> None:
    found = fitted(item(gpus=2), safetensors(), gpu_host(*FOUR), VLLM)
    assert numbers(found) == [[0, 1]]
    assert found.places[0].setting.tensor_parallel == 2


def test_these_gpus_are_used_even_where_fewer_would_do() -> None:
    assert numbers(fitted(item(gpus=(2,)), safetensors(), gpu_host(*FOUR), VLLM)) == [[2]]
    found = fitted(item(gpus=(1, 3)), safetensors(), gpu_host(*FOUR), VLLM)
    assert (numbers(found), found.places[0].setting.tensor_parallel) == ([[1, 3]], 2)


def test_no_gpu_means_the_cpu() -> None:
    plan = deployment(item(gpus=0), host=gpu_host(*FOUR), catalog=GPU_CATALOG)
    assert (plan.services[0].gpus, plan.services[0].accelerator) == ((), "cpu")
    assert "computes on GPUs, the CPU was asked for" in {one.why for one in plan.reasons[1].refused}


@pytest.mark.parametrize("gpus", [3, (0, 1, 2)])
def test_a_number_of_gpus_that_the_heads_do_not_divide_by_is_refused(gpus: int | tuple[int, ...]) -> None:
    error = refusal(item(gpus=gpus), safetensors(), gpu_host(*FOUR), VLLM)
    assert error.message == "tiny does not fit: vllm 3.0 (cuda12.9): cannot be spread over 3 GPUs of one kind here"
    assert error.hint == "try --gpus 1"


def test_more_gpus_than_there_are_is_refused() -> None:
    error = refusal(item(gpus=8), safetensors(), gpu_host(*FOUR), VLLM)
    assert "cannot be spread over 8 GPUs" in error.message


@pytest.mark.parametrize("gpus", [None, 1, (0,)])
def test_a_gpu_of_which_nobody_knows_the_memory_is_refused(gpus: int | tuple[int, ...] | None) -> None:
    host = gpu_host(replace(gpu(), memory=None))
    error = refusal(item(gpus=gpus), safetensors(), host, VLLM)
    assert error.message == "tiny does not fit: vllm 3.0 (cuda12.9): how much memory nvidia:0 has is not known"
    found = fitted(item(), weights(), host, LLAMA_CUDA, CPU)
    assert found.refused == (
        Refusal(name="llama-cpp 1.0 (cuda12.9)", why="how much memory nvidia:0 has is not known"),
    )  # fmt: skip


@pytest.mark.parametrize(("kv_type", "row"), [("q8_0", VLLM), ("fp8", LMDEPLOY), ("int8", SGLANG)])
def test_a_kv_cache_that_an_engine_does_not_know_is_refused(kv_type: str, row: Release) -> None:
    error = refusal(item(kv_type=kv_type), safetensors(), gpu_host(gpu()), row)
    assert f"knows no KV cache of type {kv_type} there, only auto, " in error.message
    assert error.hint == "try --kv-type auto"
    found = fitted(item(kv_type="int8"), safetensors(), gpu_host(gpu()), VLLM, LMDEPLOY)
    assert (found.candidate.release, found.places[0].setting.kv_type) == (LMDEPLOY, "int8")
    assert found.refused[0].name == "vllm 3.0 (cuda12.9)"


# Which engine.


def test_the_first_candidate_that_fits_wins() -> None:
    host = gpu_host(gpu())
    assert fitted(item(), safetensors(), host, VLLM, LMDEPLOY).candidate.release == VLLM
    assert fitted(item(), safetensors(), host, LMDEPLOY, VLLM).candidate.release == LMDEPLOY


def test_what_does_not_fit_is_passed_over_with_the_numbers() -> None:
    host = gpu_host(gpu(), memory=100)
    row = replace(VLLM, accelerator="cpu")
    found = fitted(item(), safetensors(size=40 * GIB), host, VLLM, row)
    assert found.candidate.release == row
    (passed,) = found.refused
    assert passed.name == "vllm 3.0 (cuda12.9)"
    assert re.fullmatch(r"needs 42\.0 GiB of nvidia:0, 22\.1 GiB are free of 24\.0 GiB", passed.why)


def test_what_was_refused_before_is_told_in_order() -> None:
    early, late = Refusal(name="one", why="too new"), Refusal(name="two", why="too old")
    candidates = (
        Candidate(release=VLLM, gpus=(gpu(),), refused=(early,)),
        Candidate(release=replace(VLLM, accelerator="cpu"), refused=(late,)),
    )
    host = gpu_host(gpu(), memory=100)
    found, _ = fit(item(), model(facts=safetensors(size=40 * GIB)), candidates, host, room(host))
    assert [one.name for one in found.refused] == ["one", "vllm 3.0 (cuda12.9)", "two"]


def test_another_kind_of_gpu_is_another_candidate() -> None:
    small, large = gpu(0, 16, name="T4"), gpu(1, 80, name="H100")
    host = gpu_host(small, large)
    candidates = (Candidate(release=VLLM, gpus=(small,)), Candidate(release=VLLM, gpus=(large,)))
    found, _ = fit(item(), model(facts=safetensors(size=40 * GIB)), candidates, host, room(host))
    assert numbers(found) == [[1]]


# Refusals.


def test_a_refusal_has_the_numbers_of_the_nearest_attempt_of_every_engine() -> None:
    python = CATALOG.releases[1]
    error = refusal(item(), weights(size=200 * GIB), gpu_host(gpu()), CPU, LLAMA_CUDA, python)
    llama, other = error.message.removeprefix("tiny does not fit: ").split("; ")
    assert llama == (
        "llama-cpp 1.0 (cuda12.9): 512 tokens × 1 at the same time, 0 of 16 layers on the GPU "
        "needs 187.6 GiB of ram, 115.2 GiB are free of 128.0 GiB (weights 187.5 GiB, KV cache 32 MiB, buffers 64 MiB)"
    ), "the CPU alone lacks 13 GiB more"
    assert other.startswith("llama-cpp-python 2.0 (cpu): 512 tokens × 1 at the same time needs 200.3 GiB of ram")
    without = refusal(item(), weights(size=200 * GIB), gpu_host(gpu()), CPU)
    assert "(cpu): 512 tokens × 1 at the same time, KV cache q4_0 needs 200.2 GiB of ram" in without.message
    assert "(weights 200.0 GiB, KV cache 9 MiB, buffers " in without.message


def test_a_refusal_has_the_items_of_the_memory_that_is_too_small() -> None:
    """The processes of four GPUs take more RAM than there is missing on each of these."""
    host = gpu_host(*(gpu(index, memory_free=2 * GIB) for index in range(4)))
    message = refusal(item(gpus=4), safetensors(), host, VLLM).message
    assert re.search(
        r"needs 2\d{3} MiB on each of 4 GPUs, 1792 MiB are free of 24\.0 GiB \(weights 256 MiB, KV ", message
    )


def test_a_refusal_names_what_was_passed_over_for_what_it_needs() -> None:
    """Those that read other files are of no interest, and the first six are enough."""
    passed = tuple(Refusal(name=f"vllm {n}", why=f"needs driver >= {n}") for n in range(8))
    other = Refusal(name="llama-cpp 1", why="reads GGUF files only, tiny is safetensors")
    candidates = (
        Candidate(release=VLLM, gpus=(gpu(),), refused=(passed[0], other, *passed[1:4])),
        Candidate(release=LMDEPLOY, gpus=(gpu(),), refused=passed[4:]),
    )
    host = gpu_host(gpu())
    with pytest.raises(HostError) as caught:
        fit(item(), model(facts=safetensors(size=40 * GIB)), candidates, host, room(host))
    attempts, said = caught.value.message.split("; vllm 0: ")
    assert [part.split(":")[0] for part in attempts.removeprefix("tiny does not fit: ").split("; ")] == [
        "vllm 3.0 (cuda12.9)",
        "lmdeploy 4.0 (cuda12.9)",
    ]
    assert f"vllm 0: {said}" == "; ".join(f"{one.name}: {one.why}" for one in passed[:6])


def test_a_type_that_a_gpu_cannot_compute_with_is_passed_over_before_memory_is_counted() -> None:
    old = gpu_host(gpu(name="Tesla T4", compute_capability="7.5"))
    facts = safetensors(quantisation="mxfp4")
    said = "mxfp4 needs compute capability 8.0, Tesla T4 has 7.5"
    found = fitted(item(), facts, old, VLLM, SGLANG, LMDEPLOY)
    assert found.candidate.release == LMDEPLOY
    assert found.refused == (
        Refusal(name="vllm 3.0 (cuda12.9)", why=said), Refusal(name="sglang 5.0 (cuda12.9)", why=said),
    )  # fmt: skip
    assert refusal(item(), facts, old, VLLM).message == f"tiny does not fit: vllm 3.0 (cuda12.9): {said}"


def test_a_smaller_quantisation_is_named_with_its_size_where_it_is_much_smaller() -> None:
    hint = refusal(item(), safetensors(size=200 * GIB), gpu_host(gpu()), VLLM).hint
    assert hint == "take a smaller quantisation (a 4-bit GGUF has about 56.2 GiB), more GPUs, or remove another model"
    hint = refusal(item(), weights(size=200 * GIB), gpu_host(gpu()), LLAMA_CUDA).hint
    assert hint == "take a smaller quantisation, more GPUs, or remove another model"


@pytest.mark.parametrize(
    "gpus",
    [
        pytest.param((), id="none"),
        pytest.param((replace(gpu(), memory=None, unified=True),), id="unified memory"),
        pytest.param(
            (gpu(0, 80, partitioned=True, slices=(Slice(index=0, uuid="MIG", profile="3g.40gb", memory=40 * GIB),)),),
            id="slices",
        ),
    ],
)
def test_more_gpus_are_no_way_out_where_they_would_not_help(gpus: tuple[Gpu, ...]) -> None:
    row = VLLM if gpus else replace(VLLM, accelerator="cpu")
    hint = refusal(item(), safetensors(size=200 * GIB), gpu_host(*gpus), row).hint
    assert hint == "take a smaller quantisation (a 4-bit GGUF has about 56.2 GiB), or remove another model"


def test_a_wish_that_can_give_way_is_the_way_out() -> None:
    host = gpu_host(*FOUR)
    assert refusal(item(gpus=1), safetensors(size=30 * GIB), host, VLLM).hint == "try --gpus 2"
    assert refusal(item(replicas=9), safetensors(size=15 * GIB), host, VLLM).hint == "try --replicas 1"
    assert refusal(item(parallel=10**6), safetensors(size=15 * GIB), host, VLLM).hint == "try --parallel 1"
    both = refusal(item(parallel=10**6, gpus=1, context=1 << 20), safetensors(size=30 * GIB), host, VLLM)
    assert both.hint == "4096 tokens would fit"


def test_strict_is_the_wish_or_nothing() -> None:
    facts = weights(context=131072)
    assert fitted(item(strict=True), weights(), HOST).places[0].setting.context == 4096
    error = refusal(item(strict=True), facts, HOST)
    assert "131072 tokens × 4 at the same time needs 33.3 GiB of ram, 9216 MiB are free" in error.message
    assert error.hint == "leave --strict out, and it steps down to what fits"
    error = refusal(item(strict=True, replicas=20), facts, HOST)
    assert error.hint == "leave --strict out and try --replicas 1"
    error = refusal(item(strict=True), weights(size=20 * GIB), HOST)
    assert error.hint.startswith("take a smaller quantisation"), "stepping down would not help"


@given(
    st.integers(64, 1 << 20),
    st.integers(0, 3),
    st.integers(1, 40),
    st.sampled_from([None, 1, 4, 16]),
    st.sampled_from(["gguf", "safetensors"]),
)
def test_a_context_that_is_offered_fits(
    context: int, count: int, size: int, parallel: int | None, kind: str
) -> None:  # fmt: skip
    make = weights if kind == "gguf" else safetensors
    host = gpu_host(*(gpu(index) for index in range(count)), memory=32)

    def planned(asked: int | None) -> Deployment:
        facts = make(size=size * GIB, context=32768)
        return deployment(item(context=asked, parallel=parallel), facts=facts, host=host, catalog=GPU_CATALOG)

    try:
        planned(context)
    except HostError as error:
        offered = re.fullmatch(r"try --context (\d+)", error.hint)
        assume(offered)
        assert offered
        assert int(offered[1]) < context
        (service,) = planned(int(offered[1])).services
        assert service.setting.context == int(offered[1])


# Nothing is promised twice.

heads = st.sampled_from([(32, 8), (40, 8), (28, 4), (64, 64), (14, 2), (7, 1), (24, 3)])
kinds = st.sampled_from(["full", "window", "latent", "recurrent"])


@st.composite
def facts(draw: st.DrawFn) -> Weights:
    """A model of any shape and format, 100 MB to 200 GiB."""
    query, kv = draw(heads)
    layers = draw(st.integers(1, 80))
    size = draw(st.integers(100 << 20, 200 << 30) | st.integers(1 << 30, 20 << 30))
    mixed = draw(st.integers(0, layers))
    kind = draw(kinds)
    others = {
        "full": Layers(kind="full", count=layers - mixed, kv_heads=kv, key=128, value=128),
        "window": Layers(kind="window", count=layers - mixed, kv_heads=kv, key=128, value=128, window=1024),
        "latent": Layers(kind="latent", count=layers - mixed, kv_heads=1, key=576),
        "recurrent": Layers(kind="recurrent", count=layers - mixed, convolution=1 << 15, state=1 << 19),
    }[kind]
    cache = (Layers(kind="full", count=mixed, kv_heads=kv, key=128, value=128), others)
    make = weights if draw(st.booleans()) else safetensors
    found = make(size=size, context=draw(st.sampled_from([0, 2048, 40960, 131072])))
    return replace(
        found, layers=layers, heads=query, kv_heads=kv, cache=cache, layer=draw(st.sampled_from([0, size // layers])),
        experts=draw(st.sampled_from([0, 64])),
    )  # fmt: skip


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    """A machine with up to eight GPUs, some of them used, broken, old, in parts, or with memory that nobody knows."""
    gpus: list[Gpu] = []
    size, capability = draw(st.sampled_from([8, 16, 24, 80, 141])), draw(st.sampled_from(["7.0", "8.0", "9.0"]))
    unified = draw(st.integers(0, 9)) == 0
    for index in range(draw(st.integers(0, 8))):
        one = gpu(index, size, compute_capability=capability)
        if unified:
            one = replace(one, unified=True, memory=None)
        elif draw(st.booleans()):
            one = replace(one, memory_free=draw(st.integers(0, size * GIB)))
        odd = draw(st.integers(0, 15))
        one = replace(one, memory=None) if odd == 0 else one
        one = replace(one, failure="requires reset") if odd == 1 else one
        if odd == 2 and not unified:
            parts = tuple(
                Slice(index=n, uuid=f"MIG-{index}-{n}", profile="x", memory=size * GIB // 4) for n in range(3)
            )
            one = replace(one, partitioned=True, slices=parts)
        gpus.append(one)
    memory = draw(st.integers(4, 512))
    return gpu_host(*gpus, memory=memory, memory_available=draw(st.integers(1, memory)) * GIB)


@st.composite
def wishes(draw: st.DrawFn) -> list[tuple[ModelSpec, Weights]]:
    found = []
    for number in range(draw(st.integers(1, 6))):
        asked = draw(
            st.builds(
                item,
                st.just(f"m{number}"),
                context=st.none() | st.integers(64, 1 << 18),
                parallel=st.none() | st.integers(1, 8),
                replicas=st.integers(1, 3),
                gpus=st.none()
                | st.integers(0, 4)
                | st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True).map(tuple),
                engine=st.sampled_from(["auto", "auto", "auto", "lmdeploy", "sglang", "llama-cpp-python"]),
            )
        )
        found.append((asked, draw(facts())))
    return found


def all_that_fits(wanted: list[tuple[ModelSpec, Weights]], host: Host) -> Deployment | None:
    """Plan the models one after another, those that find no place left out."""
    taken: list[tuple[ModelSpec, Weights]] = []
    found: Deployment | None = None
    for pair in wanted:
        try:
            named = {spec.name: facts for spec, facts in (*taken, pair)}
            found = deployment(*(spec for spec, _ in (*taken, pair)), facts=named, host=host, catalog=GPU_CATALOG)
        except HostError as error:
            assert error.message
            continue
        taken.append(pair)
    return found


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(hosts(), wishes())
def test_no_memory_is_promised_beyond_its_share(host: Host, wanted: list[tuple[ModelSpec, Weights]]) -> None:
    plan = all_that_fits(wanted, host)
    services: tuple[Service, ...] = plan.services if plan else ()
    here, where = room(host), pools(host)
    taken = summed(tuple(load for service in services for load in service.loads), where)
    for pool, amount in taken.items():
        assert amount <= here.free(pool), pool
    devices = {one.device: one for one in host.devices}
    known = {spec.name: found for spec, found in wanted}
    for service in services:
        found = known[service.model]
        used = [devices[load.device] for load in service.loads if load.device != "ram"]
        assert tuple(one.visible for one in used) == service.gpus
        assert not any(one.failure for one in used)
        assert len(used) <= 1 or not any(one.slice is not None for one in used)
        if service.engine in ("vllm", "sglang", "lmdeploy"):
            assert len(used) == service.setting.tensor_parallel
            assert found.heads % service.setting.tensor_parallel == 0
            assert 0 < service.setting.memory_share < 1
            assert service.setting.dtype == ("half" if used[0].compute_capability == "7.0" else "auto")
    for spec, _ in wanted:
        mine = [service for service in services if service.model == spec.name]
        assert len(mine) in (0, spec.replicas)
        for service in mine:
            assert spec.context in (None, service.setting.context)
            assert spec.parallel in (None, service.setting.parallel)
            assert spec.gpus is None or len(service.gpus) == (
                spec.gpus if isinstance(spec.gpus, int) else len(spec.gpus)
            )
