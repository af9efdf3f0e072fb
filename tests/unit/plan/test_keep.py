"""What runs stays as it is: planning again moves nothing that nobody asked to move."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from appliance.domain.deployment import Deployment
from appliance.domain.host import Gpu, Host
from appliance.domain.service import Service
from appliance.domain.spec import ModelSpec
from appliance.domain.weights import Weights
from appliance.errors import HostError
from appliance.plan import plan
from appliance.plan.room import pools, room, summed
from tests.unit.plan.test_size import all_that_fits, hosts, wishes
from tests.unit.samples import (
    GIB,
    GPU_CATALOG,
    LAYOUT,
    PYTHON,
    VLLM,
    deployment,
    gpu,
    gpu_host,
    item,
    safetensors,
    weights,
)

TWO = gpu_host(gpu(0), gpu(1))
ALL = {"a": safetensors(size=8 * GIB), "b": weights(size=4 * GIB), "c": safetensors(size=8 * GIB)}


def planned(*items: ModelSpec, host: Host = TWO, before: Deployment | None = None, **more: Any) -> Deployment:
    return deployment(*items, facts=ALL, host=host, catalog=GPU_CATALOG, before=before, **more)


def running(host: Host, before: Deployment) -> Host:
    """Return the machine with what was planned in its memory."""
    taken = summed(tuple(load for service in before.services for load in service.loads), pools(host))
    gpus = tuple(
        one if one.memory is None or one.partitioned
        else replace(one, memory_free=max(0, (one.memory_free or one.memory) - taken.get(one.device, 0)))
        for one in host.gpus
    )  # fmt: skip
    return replace(host, gpus=gpus, memory_available=max(1, host.memory_available - taken.get("ram", 0)))


def anew(before: Deployment, host: Host) -> Deployment:
    return plan(before.spec, before.models, host, LAYOUT, GPU_CATALOG, python=PYTHON, before=before, anew=True)


def of(plan: Deployment, name: str) -> tuple[Service, ...]:
    return tuple(service for service in plan.services if service.model == name)


def changed(host: Host, index: int, **facts: Any) -> Host:
    gpus = tuple(replace(one, **facts) if one.index == index else one for one in host.gpus)
    return replace(host, gpus=gpus)


def test_the_same_again_is_the_same() -> None:
    before = planned(item("a"), item("b"))
    assert planned(item("a"), item("b"), before=before) == before
    assert planned(item("a"), item("b"), host=running(TWO, before), before=before) == before


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(hosts(), wishes())
def test_a_plan_is_a_fixed_point(host: Host, wanted: list[tuple[ModelSpec, Weights]]) -> None:
    """Whatever was planned is planned again, be the machine idle or full of what runs."""
    before = all_that_fits(wanted, host)
    for here in (host, running(host, before)) if before else ():
        assert before
        assert plan(before.spec, before.models, here, LAYOUT, GPU_CATALOG, python=PYTHON, before=before) == before


def test_a_model_that_is_added_touches_no_other() -> None:
    before = planned(item("a"))
    after = planned(item("a"), item("b"), host=running(TWO, before), before=before)
    assert of(after, "a") == before.services
    assert of(after, "b")[0].gpus == ("GPU-1",), "where there is room"
    assert [one for one in after.reasons if one.subject.endswith(" a")] == list(before.reasons[1:])


def test_a_model_that_is_added_before_another_touches_it_neither() -> None:
    before = planned(item("b"))
    after = planned(item("a"), item("b"), host=running(TWO, before), before=before)
    assert of(after, "b") == before.services
    assert [service.model for service in after.services] == ["a", "b"]
    assert planned(item("a"), item("b")).services != after.services, "planned anew, the first has the first GPU"


def test_a_model_that_is_added_gets_what_the_others_left() -> None:
    before = planned(item("a", gpus=(0,)))
    with pytest.raises(HostError, match=r"c does not fit: vllm 3\.0 .* 0 MiB are free of 24\.0 GiB"):
        planned(item("a", gpus=(0,)), item("c", gpus=(0,)), before=before)


def test_a_model_that_is_removed_leaves_the_plan_as_it_was() -> None:
    before = planned(item("a"))
    both = planned(item("a"), item("c"), before=before)
    assert planned(item("a"), host=running(TWO, both), before=both) == before


@pytest.mark.parametrize(
    "wish", [{"context": 2048}, {"parallel": 2}, {"replicas": 2}, {"gpus": (1,)}, {"options": (("max-logprobs", "1"),)}]
)
def test_another_wish_is_planned_anew_in_the_memory_that_it_gives_back(wish: dict[str, object]) -> None:
    host = replace(TWO, gpus=TWO.gpus[:1]) if wish.get("gpus") is None else TWO
    before, other = planned(item("a"), host=host), item("a", **wish)
    assert room(running(host, before)).free("nvidia:0") < 2 * GIB
    after = planned(other, host=running(host, before), before=before)
    assert after == planned(other, host=host)
    assert after.services != before.services


@pytest.mark.parametrize("engine", ["vllm", "sglang", "lmdeploy"])
def test_a_share_is_of_the_gpu_as_it_is_once_the_old_one_is_gone(engine: str) -> None:
    """Some flags are a part of what is free when the engine starts, and now the model itself holds nearly all of it."""
    free = gpu_host(gpu(0, memory_free=20 * GIB))
    before, other = (planned(item("a", engine=engine, context=context), host=free) for context in (4096, 2048))
    now = running(free, before)
    assert (now.gpus[0].memory_free or 0) < 2 * GIB
    after = planned(item("a", engine=engine, context=2048), host=now, before=before)
    assert after.services[0].setting.memory_share == other.services[0].setting.memory_share < 0.99


def test_all_is_planned_anew_in_the_memory_that_all_give_back() -> None:
    """Where that is asked for: as on a machine on which nothing runs."""
    before = planned(item("b"))
    after = planned(item("a"), item("b"), item("c"), host=running(TWO, before), before=before)
    fresh = planned(item("a"), item("b"), item("c"))
    assert after.services != fresh.services, "what ran was in the way"
    now = running(TWO, after)
    assert max(room(now).free(one.device) for one in now.gpus) < 2 * GIB
    assert anew(after, now) == fresh
    assert anew(after, TWO) == fresh


def test_the_wish_of_one_model_does_not_move_another() -> None:
    before = planned(item("a"), item("b"), item("c"))
    after = planned(item("a"), item("b", context=1024), item("c"), host=running(TWO, before), before=before)
    assert (of(after, "a"), of(after, "c")) == (of(before, "a"), of(before, "c"))
    assert of(after, "b")[0].setting.context == 1024


def again(before: Deployment, host: Host = TWO, **facts: Any) -> Deployment:
    """Plan the same with a model whose files differ."""
    models = tuple(replace(one, **facts) for one in before.models)
    return plan(before.spec, models, host, LAYOUT, GPU_CATALOG, python=PYTHON, before=before)


def test_other_files_are_planned_anew() -> None:
    before = planned(item("a"))
    after = again(before, digest="e" * 64)
    assert after.services[0].weights == f"/var/lib/llm-appliance/store/models/{'e' * 64}"
    assert again(before, source="/elsewhere").services == before.services, "the same files elsewhere are the same"


def test_a_newer_release_in_the_catalog_moves_nothing() -> None:
    before = planned(item("a"))
    newer = replace(GPU_CATALOG, releases=(replace(VLLM, version="9.0"), *GPU_CATALOG.releases))
    assert deployment(item("a"), facts=ALL, host=TWO, catalog=newer, before=before) == before
    assert deployment(item("a"), facts=ALL, host=TWO, catalog=newer).services[0].version == "9.0"


def test_a_model_whose_gpu_is_gone_is_planned_anew() -> None:
    before = planned(item("a"), item("c"))
    assert [service.gpus for service in before.services] == [("GPU-0",), ("GPU-1",)]
    one = replace(TWO, gpus=TWO.gpus[:1])
    after = planned(item("a"), item("b"), host=one, before=planned(item("a"), item("b")))
    assert [service.gpus for service in after.services] == [("GPU-0",), ()]
    with pytest.raises(HostError, match="c does not fit"):
        planned(item("a"), item("c"), host=one, before=before)


def test_a_model_whose_gpu_failed_is_planned_anew() -> None:
    before = planned(item("a"))
    after = planned(item("a"), host=changed(TWO, 0, failure="requires reset"), before=before)
    assert after.services[0].gpus == ("GPU-1",)
    assert planned(item("a"), host=changed(TWO, 1, failure="requires reset"), before=before) == before


def test_a_gpu_that_was_exchanged_is_another() -> None:
    before = planned(item("a"))
    after = planned(item("a"), host=changed(TWO, 0, uuid="GPU-new"), before=before)
    assert after.services[0].gpus == ("GPU-new",)


def test_a_gpu_that_has_another_number_now_is_planned_anew() -> None:
    """Its loads would be counted on the GPU that has the number now, or on none."""
    before = planned(item("a", gpus=1), host=changed(TWO, 0, memory_free=0))
    assert before.services[0].gpus == ("GPU-1",)
    moved: tuple[Gpu, ...] = (replace(TWO.gpus[1], index=0),)
    after = planned(item("a", gpus=1), host=replace(TWO, gpus=moved), before=before)
    assert [load.device for load in after.services[0].loads] == ["ram", "nvidia:0"]
    assert after.services[0].gpus == ("GPU-1",)


def test_another_runtime_is_planned_anew() -> None:
    before = planned(item("a"), item("b"))
    after = planned(item("b"), item("a"), before=before, runtime="supervisord")
    assert after == planned(item("b"), item("a"), runtime="supervisord")


def test_an_engine_that_nobody_knows_any_more_is_planned_anew() -> None:
    before = planned(item("b"))
    gone = replace(before, services=tuple(replace(one, engine="gone") for one in before.services))
    assert planned(item("b"), before=gone) == before


def test_memory_that_was_taken_out_counts_for_all_models_together() -> None:
    facts = dict.fromkeys("ab", weights(size=2 * GIB, context=32768))
    large, small = gpu_host(memory=32), gpu_host(memory=16)
    before = deployment(item("a"), item("b"), facts=facts, host=large)
    after = deployment(item("a"), item("b"), facts=facts, host=small, before=before)
    assert of(after, "a") == of(before, "a"), "the first that still fits stays"
    assert sum(service.memory for service in after.services) <= 16 * GIB * 0.9
    assert of(after, "b")[0].setting != of(before, "b")[0].setting
