"""What will run: runtime, services, gateway, accounts, artifacts; each decision with its reason."""

from dataclasses import replace
from typing import Any

import pytest

from appliance import codec
from appliance.domain.deployment import Deployment, Model, Refusal
from appliance.domain.host import Port
from appliance.domain.spec import ApplianceSpec
from appliance.errors import HostError, SpecError
from appliance.plan import plan
from tests.unit.samples import (
    CATALOG,
    CONTAINER,
    GIB,
    GPU_CATALOG,
    HOST,
    LAYOUT,
    PYTHON,
    deployment,
    gpu,
    gpu_host,
    item,
    layout,
    model,
    safetensors,
    weights,
)

PREFIX = layout("/home/ann/llm")


def test_the_preferred_runtime_that_works_here_is_taken() -> None:
    plan = deployment()
    assert plan.runtime == "systemd"
    assert plan.reasons[0].chosen == "systemd"
    assert plan.reasons[0].refused == ()


def test_a_runtime_that_is_passed_over_says_why() -> None:
    plan = deployment(host=CONTAINER)
    assert plan.runtime == "supervisord"
    assert plan.reasons[0].why == "the first that works here"
    assert plan.reasons[0].refused == (
        Refusal(name="systemd", why="PID 1 is sleep, not systemd"),
        Refusal(name="compose", why="Docker is not installed"),
    )


def test_a_second_plan_gives_the_same_reasons() -> None:
    first = deployment(host=CONTAINER)
    assert deployment(host=CONTAINER, before=first).reasons == first.reasons


def test_a_runtime_that_was_asked_for_is_taken() -> None:
    plan = deployment(runtime="supervisord")
    assert (plan.runtime, plan.reasons[0].why) == ("supervisord", "asked for")


def test_a_runtime_that_was_asked_for_and_cannot_be_is_an_error() -> None:
    with pytest.raises(HostError) as caught:
        deployment(host=CONTAINER, runtime="systemd")
    assert caught.value.message == "runtime systemd cannot be used here: PID 1 is sleep, not systemd"
    with pytest.raises(HostError, match=f"its units live outside the prefix {PREFIX.prefix}"):
        deployment(where=PREFIX, runtime="systemd")


def test_an_unknown_runtime_is_named_with_those_there_are() -> None:
    with pytest.raises(SpecError, match="no runtime is called 'launchd'") as caught:
        deployment(runtime="launchd")
    assert caught.value.hint == "auto, compose, supervisord, systemd"


def test_one_replica_has_the_name_of_its_model() -> None:
    (service,) = deployment().services
    assert (service.name, service.model) == ("tiny", "tiny")
    assert service.socket == "/run/llm-appliance/tiny/engine.sock"
    assert service.weights == f"/var/lib/llm-appliance/store/models/{'d' * 64}/model.gguf"
    assert service.program.startswith("/var/lib/llm-appliance/engines/llama-cpp-")
    assert service.program.endswith("/bin/llama-server")


def test_several_replicas_are_numbered_and_share_the_processors() -> None:
    plan = deployment(item(replicas=3))
    assert [service.name for service in plan.services] == ["tiny_1", "tiny_2", "tiny_3"]
    assert {service.model for service in plan.services} == {"tiny"}
    assert {service.threads for service in plan.services} == {2}
    assert len({service.socket for service in plan.services}) == 3
    (route,) = plan.gateway.routes
    assert (route.name, route.upstream_model, route.health) == ("tiny", "tiny", "/health")
    assert route.replicas == tuple((f"tiny_{n}", f"unix:/run/llm-appliance/tiny_{n}/engine.sock") for n in (1, 2, 3))


def test_a_replica_has_at_least_one_thread() -> None:
    assert {service.threads for service in deployment(item(replicas=2), host=replace(HOST, cpus=1)).services} == {1}


def test_beside_gpus_16_threads_are_enough() -> None:
    host = gpu_host(gpu(), cpus=40)

    def threads(replicas: int, **more: Any) -> set[int]:
        plan = deployment(item(replicas=replicas, **more), host=host, catalog=GPU_CATALOG)
        return {service.threads for service in plan.services}

    assert (threads(1), threads(2), threads(4)) == ({16}, {16}, {10})
    assert (threads(1, gpus=0), threads(4, gpus=0)) == ({40}, {10}), "on the CPU all of them compute"


def test_the_plan_knows_the_version_of_its_runtime() -> None:
    assert deployment().runtime_version == HOST.systemd
    assert deployment(runtime="supervisord").runtime_version == 0


def test_code_that_a_model_brings_along_is_told_of() -> None:
    said = "; the Python that its repository brings or asks for is left behind"
    host = gpu_host(gpu())
    with_code = deployment(host=host, catalog=GPU_CATALOG, facts=safetensors(code=True)).reasons[-1]
    without = deployment(host=host, catalog=GPU_CATALOG, facts=safetensors()).reasons[-1]
    assert with_code == replace(without, why=without.why + said)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"cache": ()}, True),
        ({"cache": (), "architecture": "BertModel"}, False),
        ({"cache": (), "architecture": "nomic-bert"}, False),
        ({"cache": (), "layers": 0}, False),
        ({}, False),
    ],
)
def test_a_cache_of_which_nobody_knows_the_size_is_told_of(facts: dict[str, Any], told: bool) -> None:
    assert deployment(facts=weights(**facts)).reasons[-1].why.endswith("; what its cache takes is not known") == told


def test_models_stay_in_the_order_of_the_spec() -> None:
    plan = deployment(item("b"), item("a"))
    assert [service.name for service in plan.services] == ["b", "a"]
    assert [route.name for route in plan.gateway.routes] == ["b", "a"]
    assert [reason.subject for reason in plan.reasons] == [
        "runtime", "engine for b", "memory of b", "engine for a", "memory of a",
    ]  # fmt: skip


def test_two_models_of_one_engine_need_it_once() -> None:
    assert [artifact.name for artifact in deployment(item("a"), item("b")).artifacts] == ["gateway", "llama-server"]


def test_a_large_model_gets_more_time_to_start() -> None:
    (service,) = deployment(facts=weights(size=4000 << 20)).services
    assert service.start_timeout == 60 + 40


def test_options_reach_every_replica() -> None:
    plan = deployment(item(replicas=2, options=(("temp", "0.5"),)))
    assert [service.options for service in plan.services] == [(("temp", "0.5"),)] * 2


def test_a_socket_path_that_the_kernel_would_cut_is_refused() -> None:
    where = layout("/" + "d" * 80)
    deployment(item("a"), host=CONTAINER, where=where)
    with pytest.raises(HostError) as caught:
        deployment(item("a" * 20), host=CONTAINER, where=where)
    path = f"{where.run}/{'a' * 20}/engine.sock"
    assert caught.value.message == f"socket path of {len(path)} bytes, the kernel takes 107: {path}"
    assert "--prefix" in caught.value.hint


def test_the_limit_of_a_socket_path_is_in_bytes() -> None:
    room = 107 - len("/run/a/engine.sock")
    deployment(item("a"), host=CONTAINER, where=layout("/" + "d" * (room - 1)))
    with pytest.raises(HostError, match="socket path of 108 bytes"):
        deployment(item("a"), host=CONTAINER, where=layout("/" + "d" * room))
    with pytest.raises(HostError, match="socket path of 108 bytes"):
        deployment(item("a"), host=CONTAINER, where=layout("/" + "d" * (room - 2) + "ö"))


def test_every_name_fits_system_wide() -> None:
    plan = deployment(item("a" * 63, replicas=64), host=replace(HOST, memory=1 << 50, memory_available=1 << 50))
    assert max(len(service.socket) for service in plan.services) <= 107


def test_a_processor_that_nothing_was_made_for_is_refused() -> None:
    with pytest.raises(HostError, match=r"no engine can serve tiny: llama-cpp 1\.0 .*is for x86_64, this machine is"):
        deployment(host=replace(HOST, arch="riscv64"))
    rows = (replace(CATALOG.releases[-1], arch=("riscv64",)),)
    with pytest.raises(HostError, match="no gateway packages for riscv64") as caught:
        deployment(
            facts=weights(format="none"), host=replace(HOST, arch="riscv64"), catalog=replace(CATALOG, releases=rows)
        )
    assert caught.value.hint == "supported: x86_64, aarch64"


def test_the_gateway_comes_from_its_own_packages() -> None:
    plan = deployment(port=9000)
    gateway, artifact = plan.gateway, plan.artifacts[0]
    assert (gateway.host, gateway.port) == ("127.0.0.1", 9000)
    assert gateway.root == f"/var/lib/llm-appliance/gateway/{artifact.digest[:16]}"
    assert gateway.program == f"{gateway.root}/usr/sbin/nginx"
    assert gateway.ld_library_path.split(":")[0] == f"{gateway.root}/usr/lib/x86_64-linux-gnu"


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (4, 4), (64, 8)])
def test_the_gateway_has_a_worker_for_each_processor_up_to_eight(cpus: int, workers: int) -> None:
    assert deployment(host=replace(HOST, cpus=cpus)).gateway.workers == workers


def test_engines_and_gateway_are_separate_users_system_wide() -> None:
    plan = deployment()
    assert (plan.user, plan.gateway_user, plan.group) == ("llm-engine", "llm-gateway", "llm-appliance")


@pytest.mark.parametrize(("root", "account"), [(True, "root"), (False, "")])
def test_below_a_prefix_everything_runs_as_its_owner(root: bool, account: str) -> None:
    plan = deployment(host=replace(CONTAINER, root=root), where=PREFIX)
    assert (plan.user, plan.gateway_user, plan.group) == (account,) * 3


def test_a_plan_is_whole_and_the_same_each_time() -> None:
    plan = deployment(item(replicas=2))
    assert plan == deployment(item(replicas=2))
    assert (plan.python, plan.layout) == (PYTHON, LAYOUT)
    assert codec.load_json(Deployment, codec.dump_json(plan), source="x") == plan


def test_more_disk_or_other_ports_change_nothing() -> None:
    assert deployment(host=replace(HOST, disk_free=1, kernel="7", ports=(Port(port=80),))) == deployment()


def test_an_engine_on_a_gpu_gets_the_weights_directory_and_more_time() -> None:
    (service,) = deployment(facts=safetensors(size=4000 << 20), host=gpu_host(gpu()), catalog=GPU_CATALOG).services
    assert (service.engine, service.accelerator, service.vendor) == ("vllm", "cuda12.9", "nvidia")
    assert service.weights == f"/var/lib/llm-appliance/store/models/{'d' * 64}"
    assert service.start_timeout == 60 + 40 + 600
    assert service.gpus == ("GPU-0",)
    assert [load.device for load in service.loads] == ["ram", "nvidia:0"]
    assert len(service.artifacts) == 1


def test_a_gpu_without_a_uuid_is_called_by_its_number() -> None:
    host = gpu_host(gpu(), gpu(1, uuid="", memory=48))
    (service,) = deployment(item(gpus=(1,)), facts=safetensors(), host=host, catalog=GPU_CATALOG).services
    assert service.gpus == ("1",)


@pytest.mark.parametrize("engine", ["sglang", "lmdeploy"])
def test_an_engine_that_knows_ports_only_gets_one_that_nobody_has(engine: str) -> None:
    host = gpu_host(gpu(), gpu(1), ports=(Port(port=18100), Port(port=18102)))
    plan = deployment(
        item("a", engine=engine, replicas=2), item("b"), facts=safetensors(), host=host, catalog=GPU_CATALOG
    )
    assert [service.port for service in plan.services] == [18101, 18103, 0]
    # Under systemd that is one of a network of its own, and what is said to its socket is passed on.
    assert [service.relayed for service in plan.services] == [True, True, False]
    socket = "unix:/run/llm-appliance/{}/engine.sock"
    assert plan.gateway.routes[0].replicas == (("a_1", socket.format("a_1")), ("a_2", socket.format("a_2")))


def test_without_systemd_the_gateway_asks_the_port_itself() -> None:
    host = replace(gpu_host(gpu()), systemd=0, init="sleep")
    plan = deployment(item("a", engine="sglang"), facts=safetensors(), host=host, catalog=GPU_CATALOG)
    assert (plan.runtime, plan.services[0].relayed) == ("supervisord", False)
    assert plan.gateway.routes[0].replicas == (("a", "127.0.0.1:18100"),)


def test_what_one_model_was_made_of_is_not_needed_by_another() -> None:
    facts = {"a": safetensors(), "b": weights()}
    plan = deployment(item("a"), item("b"), facts=facts, host=gpu_host(gpu(), gpu(1)), catalog=GPU_CATALOG)
    assert [artifact.name for artifact in plan.artifacts] == ["gateway", "vllm", "llama-cpp"]
    digests = {artifact.name: artifact.digest for artifact in plan.artifacts}
    assert [service.artifacts for service in plan.services] == [(digests["vllm"],), (digests["llama-cpp"],)]


def test_where_the_largest_first_leaves_one_out_the_smallest_goes_first() -> None:
    """Alone, the large one takes so much context that nothing is left; it steps down for the small one."""
    host = replace(HOST, memory=16 * GIB, memory_available=16 * GIB)
    large, small = model("large", weights(size=6 * GIB, context=131072)), model("small", weights(size=2 * GIB))

    def tokens(*models: Model) -> list[tuple[str, int]]:
        spec = ApplianceSpec(models=tuple(item(one.name) for one in models))
        planned = plan(spec, models, host, LAYOUT, CATALOG, python=PYTHON)
        return [(one.model, one.setting.context * one.setting.parallel) for one in planned.services]

    ((_, alone),) = tokens(large)
    (first, beside), (second, _) = tokens(large, small)
    assert (first, second) == ("large", "small")
    assert beside < alone
