"""Who stands in for a model's only replica while it is replaced, where, and when nobody can."""

from dataclasses import replace
from typing import Any

from appliance.domain.deployment import Deployment
from appliance.domain.host import Host
from appliance.domain.service import Container, Service
from appliance.domain.spec import ModelSpec
from appliance.plan.room import pools, room, summed
from appliance.plan.standin import with_standins
from tests.unit.plan.test_keep import running
from tests.unit.samples import CONTAINER, GIB, GPU_CATALOG, HOST, deployment, gpu, gpu_host, item, safetensors, weights

SOMETHING = Container(image="engine:1")


def standins(bridged: Deployment) -> dict[str, Service]:
    return {service.model: service for service in bridged.services if service.standin}


def measured(host: Host, before: Deployment) -> Host:
    """The machine while that runs: weights that are only mapped count as available."""
    return replace(running(host, before), memory_available=host.memory_available)


def changed(*items: ModelSpec, host: Host = HOST, **more: Any) -> dict[str, Service]:
    """Who stands in where these models run and get less context."""
    before = deployment(*items, host=host, **more)
    after = deployment(*(replace(one, context=512) for one in items), host=host, **more)
    names = tuple(service.name for service in after.started)
    return standins(with_standins(before, after, names, measured(host, before)))


def test_it_is_what_the_replica_is_to_be_under_a_name_and_a_socket_of_its_own() -> None:
    before, after = deployment(item("a", context=1024)), deployment(item("a", context=512))
    bridged = with_standins(before, after, ("a",), HOST)
    (one,) = standins(bridged).values()
    assert one == replace(
        after.services[0], name="a_0", socket="/run/llm-appliance/a_0/engine.sock", home="/var/cache/llm-appliance/a_0"
    )
    assert bridged.passing and not after.passing
    assert bridged.gateway.routes[0].replicas == (
        ("a", "unix:/run/llm-appliance/a/engine.sock"), ("a_0", "unix:/run/llm-appliance/a_0/engine.sock"),
    )  # fmt: skip
    assert replace(bridged, services=after.services, gateway=after.gateway) == after, "nothing else differs"


def test_nobody_stands_in_for_a_model_that_has_another_replica_or_stays_as_it_is() -> None:
    short = {"context": 1024, "parallel": 1}
    before = deployment(item("a", **short), item("b", replicas=2, **short), item("c", **short))
    changed = {"context": 512, "parallel": 1}
    after = deployment(item("a", **changed), item("b", replicas=2, **changed), item("c", **short))
    assert set(standins(with_standins(before, after, ("a", "b_1", "b_2"), HOST))) == {"a"}
    assert with_standins(before, after, (), HOST) == after


def test_it_needs_memory_beside_all_that_runs_and_all_that_is_to_run() -> None:
    large: dict[str, Any] = {"facts": weights(size=3 * GIB)}
    assert set(changed(item("a", parallel=1), **large)) == {"a"}
    assert set(changed(item("a", parallel=1), item("b", parallel=1), **large)) == set(), "three times 3 GiB and a bit"
    busy = replace(HOST, memory_available=4 * GIB)
    assert changed(item("a", parallel=1), host=busy, **large) == {}, "somebody else has it now"


def test_as_many_stand_in_as_fit_in_the_order_of_the_plan() -> None:
    assert set(changed(item("a", parallel=1), item("b", parallel=1), facts=weights(size=2 * GIB))) == {"a"}


def test_a_gpu_that_is_full_leaves_it_to_another_of_the_same_kind() -> None:
    many = {"facts": safetensors(size=8 * GIB), "catalog": GPU_CATALOG}
    assert changed(item("a"), host=gpu_host(gpu(0)), **many) == {}
    two = changed(item("a"), host=gpu_host(gpu(0), gpu(1)), **many)
    assert two["a"].gpus == ("GPU-1",)
    assert {load.device for load in two["a"].loads} == {"ram", "nvidia:1"}
    assert changed(item("a"), host=gpu_host(gpu(0), gpu(1, name="NVIDIA T4")), **many) == {}
    assert changed(item("a"), host=gpu_host(gpu(0), gpu(1, failure="fell off the bus")), **many) == {}


def test_an_image_is_handed_the_gpus_that_it_was_planned_for_and_no_others() -> None:
    host = gpu_host(gpu(0), gpu(1))
    before, after = (
        deployment(item("a", context=context), host=host, facts=safetensors(size=8 * GIB), catalog=GPU_CATALOG)
        for context in (1024, 512)
    )
    boxed = replace(after, services=tuple(replace(one, container=SOMETHING) for one in after.services))
    assert standins(with_standins(before, boxed, ("a",), measured(host, before))) == {}


def test_what_listens_on_loopback_gets_a_port_that_nobody_has() -> None:
    before, after = (
        replace(plan, services=tuple(replace(one, port=18100) for one in plan.services))
        for plan in (deployment(item("a", context=context), host=CONTAINER) for context in (1024, 512))
    )
    assert standins(with_standins(before, after, ("a",), CONTAINER))["a"].port == 18101


def test_what_runs_what_comes_and_who_stands_in_never_take_more_than_there_is() -> None:
    for size in range(1, 9):
        facts = weights(size=size * GIB)
        items = [item(name, parallel=1, context=512) for name in ("a", "b", "c", "d")[: 8 // size]]
        before = deployment(*items, facts=facts)
        bridged = with_standins(before, before, tuple(one.name for one in before.started), measured(HOST, before))
        loads = tuple(load for service in bridged.services for load in service.loads)
        assert summed(loads, pools(HOST))["ram"] <= room(HOST).left["ram"]
