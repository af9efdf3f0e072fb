"""What a container gets: its image, its GPUs and no others, its limits; and where it cannot have them."""

from dataclasses import replace
from typing import Any

import pytest

from appliance.domain.deployment import Deployment
from appliance.domain.host import Docker, Driver, Host, Podman
from appliance.domain.release import Artifact
from appliance.domain.service import Container
from appliance.domain.spec import Images
from appliance.errors import HostError
from appliance.plan import containers
from tests.unit.samples import CATALOG, GIB, HOST, VLLM, deployment, gpu, gpu_host, item, safetensors

DOCKER = Docker(client="28.3.0", server="28.3.0", compose="2.38.2", runtimes=("runc",))
IMAGE = Artifact(name="vllm", kind="image", ref="vllm/vllm-openai:v3", digest="", program="vllm")
BOXED = replace(CATALOG, releases=(replace(VLLM, artifacts=(*VLLM.artifacts, IMAGE)),))


def host(docker: Docker = DOCKER, gpus: int = 2, **more: Any) -> Host:
    return replace(gpu_host(*(gpu(index) for index in range(gpus))), docker=docker, **more)


def plan(where: Host, **more: Any) -> Deployment:
    return deployment(item(**more), host=where, catalog=BOXED, runtime="compose", facts=safetensors())


def container(where: Host, **more: Any) -> Container:
    (service,) = plan(where, **more).services
    assert service.container
    return service.container


TOOLKIT = replace(DOCKER, toolkit="1.17.8", runtimes=("nvidia", "runc"))
SPECS = replace(TOOLKIT, cdi=("nvidia.com/gpu",))


def test_cdi_where_docker_and_compose_know_it_else_the_toolkit() -> None:
    assert container(host(SPECS), gpus=(1,)).devices == ("nvidia.com/gpu=1",)
    assert container(host(SPECS), gpus=(1,)).requests == ()
    for older in (TOOLKIT, replace(SPECS, server="27.5.1"), replace(SPECS, compose="2.29.7")):
        found = container(host(older), gpus=(1,))
        assert (found.devices, found.requests) == ((), ("GPU-1",))


def test_without_either_no_gpu_release_is_taken_and_it_says_why() -> None:
    with pytest.raises(HostError, match="Docker hands out no NVIDIA GPUs"):
        plan(host())
    with pytest.raises(HostError, match="from snap"):
        # Whoever asks for the snap by force finds it refused as a runtime first.
        plan(host(replace(TOOLKIT, snap=True)))
    podman = replace(
        SPECS, server="4.3.1", podman=Podman(socket="/run/podman/podman.sock", compose="/bin/docker-compose")
    )
    with pytest.raises(HostError, match="Podman 4.3.1 passes no CDI device on"):
        plan(host(podman))
    assert not containers.gives_gpus(host(podman))


def test_an_older_cuda_of_the_same_major_is_told_to_the_toolkit_but_not_for_an_image_of_ones_own() -> None:
    older = host(TOOLKIT, drivers=(Driver(vendor="nvidia", version="550.54.15", api="12.4"),))
    assert container(older).env == (("NVIDIA_DISABLE_REQUIRE", "1"),)
    assert container(older, image="mine:1").env == ()
    assert container(host(TOOLKIT)).env == ()


def test_processes_on_several_gpus_have_more_memory_to_share_and_the_limit_holds_it() -> None:
    one, two = container(host(TOOLKIT), gpus=1), container(host(TOOLKIT), gpus=2)
    assert (one.shared_memory, two.shared_memory) == (4 * GIB, 16 * GIB)
    for found in (one, two):
        assert found.memory > found.shared_memory + GIB


def test_an_image_of_ones_own_is_taken_as_it_is_whatever_the_registry() -> None:
    spec = Images(registry="mirror.example")
    made = deployment(
        item(image="elsewhere.example/vllm:mine"), host=host(TOOLKIT), catalog=BOXED, runtime="compose",
        facts=safetensors(), images=spec,
    )  # fmt: skip
    assert made.services[0].container
    assert made.services[0].container.image == "elsewhere.example/vllm:mine"
    assert made.services[0].program == "vllm"


@pytest.mark.parametrize(
    ("ref", "there"),
    [
        ("vllm/vllm-openai:v1", "m.example/x/vllm/vllm-openai:v1"),
        ("ghcr.io/ggml-org/llama.cpp:server", "m.example/x/ggml-org/llama.cpp:server"),
        ("quay.io/ascend/vllm-ascend:v1", "m.example/x/ascend/vllm-ascend:v1"),
        ("debian:12-slim", "m.example/x/debian:12-slim"),
    ],
)
def test_names_in_a_mirror(ref: str, there: str) -> None:
    assert containers.mirrored(ref, "m.example/x") == there
    assert containers.mirrored(ref, "") == ref


def test_what_decides_what_is_in_an_image_of_ours_is_in_its_name() -> None:
    gateway = containers.gateway(Images(), HOST)
    assert gateway.ref == containers.gateway(Images(), replace(HOST, cpu_flags=("avx512f",))).ref
    assert gateway.ref != containers.gateway(Images(base="debian:13-slim"), HOST).ref
    assert gateway.ref != containers.gateway(Images(), replace(HOST, arch="aarch64")).ref
    native = Artifact(
        name="llama", kind="image", ref="llm-appliance/llama-cpp:1", digest="", recipe="llama-cpp", pins=("NATIVE=ON",),
        twin="t",
    )  # fmt: skip
    release = replace(VLLM, artifacts=(native,))
    refs = {
        (flags, portable): containers.located(
            release, item(), Images(portable=portable), replace(HOST, cpu_flags=flags)
        ).artifacts[0]
        for flags in (("avx2",), ("avx2", "avx512f"))
        for portable in (False, True)
    }
    assert refs[("avx2",), False].ref != refs[("avx2", "avx512f"), False].ref
    assert refs[("avx2",), True].ref == refs[("avx2", "avx512f"), True].ref
    assert (refs[("avx2",), False].twin, refs[("avx2",), True].twin) == ("t", "")


def test_with_gpus_in_docker_containers_come_first_and_what_runs_stays() -> None:
    both = deployment(item(), host=host(TOOLKIT), catalog=BOXED, facts=safetensors())
    assert both.runtime == "compose"
    assert deployment(item(), host=replace(HOST, docker=TOOLKIT)).runtime == "systemd"
    before = deployment(item(), host=host(Docker()), catalog=BOXED, facts=safetensors())
    assert before.runtime == "systemd"
    after = deployment(item(), host=host(TOOLKIT), catalog=BOXED, facts=safetensors(), before=before)
    assert after.runtime == "systemd"


def test_other_vendors_devices_are_given_by_path_with_the_groups_that_may_use_them() -> None:
    card = replace(gpu(), vendor="amd", name="MI300X", architecture="gfx942", compute_capability="", uuid="0")
    rocm = replace(VLLM, accelerator="rocm7.2", driver="", capabilities=("gfx942",), artifacts=(IMAGE,))
    where = replace(
        HOST, gpus=(card,), drivers=(Driver(vendor="amd", version="6.14"),), docker=DOCKER, memory=128 * GIB,
        memory_available=120 * GIB, groups=(("render", 105), ("video", 44)),
    )  # fmt: skip
    made = deployment(
        item(), host=where, catalog=replace(CATALOG, releases=(rocm,)), runtime="compose", facts=safetensors()
    )
    assert made.services[0].container
    assert made.services[0].container.devices == ("/dev/kfd", "/dev/dri")
    assert made.services[0].container.groups == (105, 44)
