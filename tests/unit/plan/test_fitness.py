"""When a release runs on a machine, one condition at a time; each refusal is one line with the numbers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.host import Driver, Gpu, Slice
from appliance.domain.release import Artifact, Release
from appliance.plan.fitness import Wanted, fit, runs
from tests.unit.plan.machines import CARDS, DOCKER, cards, machine
from tests.unit.samples import GIB, HOST

WHEELS = Artifact(name="vllm", kind="wheels", ref="vllm==1.0", digest="")
IMAGE = Artifact(name="vllm", kind="image", ref="vllm/vllm-openai:v1.0", digest="", program="vllm")
BUILD = Artifact(name="llama-server", kind="build", ref="llama==1.0", digest="")
ROW = Release(
    engine="vllm",
    version="1.0",
    accelerator="cuda13.0",
    arch=("x86_64",),
    driver="580",
    capabilities=("7.5", "8.0", "9.0", "10.0", "12.0"),
    glibc="2.34",
    python=("3.11", "3.15"),
    artifacts=(WHEELS, IMAGE),
)
CPU = replace(ROW, accelerator="cpu", driver="", capabilities=(), glibc="", python=("", ""))
H100 = machine("H100")


def why(row: Release = ROW, *, host: object = H100, wanted: Wanted = None, runtime: str = "systemd") -> str:
    return fit(row, host, wanted, runtime).why  # type: ignore[arg-type]


def test_it_runs_where_everything_is_as_it_needs_it() -> None:
    assert fit(ROW, H100).groups == (H100.gpus,)
    assert why() == ""


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("580", ""),
        ("580.65.06", ""),
        ("610.43.02", ""),
        ("579.99", "needs driver >= 580, found 579.99"),
        ("550.54.15", "needs driver >= 580, found 550.54.15"),
    ],
)
def test_the_driver_must_be_new_enough(found: str, said: str) -> None:
    assert why(host=machine("H100", driver=found)) == said


def test_a_driver_without_a_version_is_judged_by_its_cuda() -> None:
    def told(driver: Driver) -> str:
        return why(host=replace(H100, drivers=(driver,)))

    assert told(Driver(vendor="nvidia", api="13.1")) == ""
    assert told(Driver(vendor="nvidia", api="12.4")) == "needs driver >= 580, found one for CUDA 12.4"
    assert told(Driver(vendor="nvidia")) == "needs driver >= 580, found one that tells no version"


def test_a_broken_driver_is_named_as_broken() -> None:
    broken = Driver(vendor="nvidia", failure="kernel module 550.54 and library 555.42 do not match")
    said = "the NVIDIA driver does not work: kernel module 550.54 and library 555.42 do not match"
    assert why(host=replace(HOST, drivers=(broken,))) == said


def test_no_gpu_is_said_as_such() -> None:
    assert why(host=HOST) == "needs NVIDIA GPUs, there is none"
    amd = Gpu(vendor="amd", index=0, uuid="", name="MI300X", memory=192 * GIB, architecture="gfx942")
    assert why(host=replace(HOST, gpus=(amd,))) == "needs NVIDIA GPUs, there is none"


@pytest.mark.parametrize(
    ("capability", "yes"),
    [("7.5", True), ("8.0", True), ("8.9", True), ("9.0", True), ("10.3", True), ("12.1", True)]
    + [("7.0", False), ("6.1", False), ("11.0", False)],
)
def test_code_runs_on_later_gpus_of_the_same_major_only(capability: str, yes: bool) -> None:
    assert runs(capability, ROW) is yes


def test_code_with_an_a_runs_on_exactly_that_one() -> None:
    row = replace(ROW, capabilities=("9.0", "12.0a"))
    assert [runs(code, row) for code in ("12.0", "12.1", "9.0")] == [True, False, True]


def test_gpus_without_code_are_named_with_what_there_is_code_for() -> None:
    said = "has no code for compute capability 6.1 (Tesla P40), only 7.5 8.0 9.0 10.0 12.0"
    assert why(host=machine("Tesla P40")) == said


def test_ptx_needs_a_driver_as_new_as_what_made_it() -> None:
    row = replace(ROW, accelerator="cuda12.8", driver="525.60.13", capabilities=("8.6",), portable=("6.1", "9.0"))
    assert why(row, host=machine("H100", driver="570.26")) == ""
    assert why(row, host=machine("Tesla P40", driver="580.65.06")) == ""
    assert why(row, host=machine("H100", driver="550.54.15")) == (
        "has only PTX for compute capability 9.0 (H100), which needs a driver for CUDA >= 12.8, found one for 12.4"
    )
    assert why(row, host=machine("Tesla M40")) == "has no code for compute capability 5.2 (Tesla M40), only 8.6"
    # Compiled code needs the lowest driver of the major only.
    assert why(row, host=machine("RTX 3090", driver="525.60.13")) == ""


def test_blackwell_runs_nothing_that_is_older_than_it() -> None:
    row = replace(ROW, accelerator="cuda12.5", portable=("9.0",))
    said = "compute capability 12.0 (RTX 5090) needs CUDA >= 12.8, this is made with 12.5"
    assert why(row, host=machine("RTX 5090")) == said
    assert "10.3 (B300) needs CUDA >= 12.9" in why(replace(ROW, accelerator="cuda12.8"), host=machine("B300"))


def test_a_jetson_takes_only_what_is_built_on_it() -> None:
    """Its libraries are its own, so wheels and images for servers load none of them, whatever code they have."""
    orin = replace(H100.gpus[0], name="Orin (nvgpu)", compute_capability="8.7", memory=None, unified=True)
    jetson = replace(H100, gpus=(orin,), cuda_toolkit="13.0")
    row = replace(ROW, capabilities=("8.7",))
    said = "is made for servers, Orin (nvgpu) needs what is built for Jetson"
    assert why(row, host=jetson) == why(row, host=replace(jetson, docker=DOCKER), runtime="compose") == said
    assert why(replace(row, artifacts=(BUILD,)), host=jetson) == ""
    assert why(replace(CPU, artifacts=(BUILD,)), host=jetson) == ""


def test_a_gpu_that_does_not_tell_what_it_is_is_not_guessed_at() -> None:
    silent = replace(H100.gpus[0], compute_capability="")
    assert why(host=replace(H100, gpus=(silent,))) == "the compute capability of H100 is not known"


def test_the_c_library_and_the_python_must_be_new_enough() -> None:
    assert why(host=replace(H100, glibc="2.31")) == "needs glibc >= 2.34, found 2.31"
    assert why(host=replace(H100, glibc="2.4")) == "needs glibc >= 2.34, found 2.4"
    assert why(host=replace(H100, python="3.10")) == "needs Python >= 3.11, < 3.15; found 3.10"
    assert why(host=replace(H100, python="3.15")) == "needs Python >= 3.11, < 3.15; found 3.15"
    assert why(host=replace(H100, python="3.14")) == ""


def test_a_container_image_brings_its_own_c_library_and_python() -> None:
    assert why(host=replace(H100, glibc="2.17", python="3.9", docker=DOCKER), runtime="compose") == ""


@pytest.mark.parametrize("runtime", ["systemd", "supervisord"])
def test_programs_and_images_need_the_runtime_for_them(runtime: str) -> None:
    image, wheels = replace(ROW, artifacts=(IMAGE,)), replace(ROW, artifacts=(WHEELS,))
    assert why(image, runtime=runtime) == f"{runtime} runs no container images"
    assert why(wheels, runtime=runtime) == ""
    assert why(wheels, runtime="compose") == "compose runs container images, there is none of it"
    assert why(image, host=replace(H100, docker=DOCKER), runtime="compose") == ""
    assert why(image, runtime="compose").startswith("Docker hands out no NVIDIA GPUs")
    several = replace(ROW, artifacts=(replace(IMAGE, program=""),))
    assert why(several, runtime="compose") == "compose cannot start its image by one command"


def test_what_comes_with_the_appliance_runs_wherever_its_own_programs_do() -> None:
    dummy = replace(CPU, artifacts=())
    assert [why(dummy, runtime=name) for name in ("systemd", "supervisord")] == ["", ""]
    assert why(dummy, runtime="compose") == "compose runs container images, there is none of it"


def test_another_processor_is_refused() -> None:
    assert why(host=replace(H100, arch="aarch64")) == "is for x86_64, this machine is aarch64"


def test_what_is_built_for_gpus_needs_a_compiler_of_the_same_major() -> None:
    row = replace(ROW, accelerator="cuda12", artifacts=(BUILD,), driver="525.60.13")
    assert why(row) == "needs the CUDA 12 compiler (nvcc), there is none"
    assert why(row, host=replace(H100, cuda_toolkit="13.0")) == "needs the CUDA 12 compiler (nvcc), found 13.0"
    assert why(row, host=replace(H100, cuda_toolkit="12.4")) == ""
    old = machine("RTX 5090", cuda_toolkit="12.4")
    assert why(row, host=old) == "compute capability 12.0 (RTX 5090) needs CUDA >= 12.8, this is made with 12.4"


def test_other_vendors_gpus_go_by_their_compilers_names() -> None:
    row = replace(ROW, accelerator="rocm7.0", driver="", capabilities=("gfx90a", "gfx942"), torch="2.10.0+rocm7.0")
    gpu = Gpu(vendor="amd", index=0, uuid="", name="MI300X", memory=192 * GIB, architecture="gfx942")
    assert why(row, host=replace(HOST, gpus=(gpu,))) == ""
    old = replace(gpu, name="Radeon VII", architecture="gfx906")
    assert why(row, host=replace(HOST, gpus=(old,))) == "has no code for gfx906 (Radeon VII), only gfx90a gfx942"


def test_wheels_without_a_torch_use_the_machines_rocm() -> None:
    row = replace(ROW, accelerator="rocm7.2", driver="", capabilities=(), torch="")
    gpu = Gpu(vendor="amd", index=0, uuid="", name="MI300X", memory=192 * GIB, architecture="gfx942")

    def told(api: str) -> str:
        return why(row, host=replace(HOST, gpus=(gpu,), drivers=(Driver(vendor="amd", version="6.16", api=api),)))

    assert told("7.2.1") == ""
    assert told("") == "needs ROCm 7.2 on the machine, there is none"
    assert told("6.4.1") == "needs ROCm 7.2 on the machine, found 6.4.1"


def test_gpus_come_in_groups_of_equal_ones_the_most_memory_first() -> None:
    mixed = machine("Tesla T4", "A100", "Tesla T4", "A100")
    assert [[gpu.index for gpu in group] for group in fit(ROW, mixed).groups] == [[1, 3], [0, 2]]


def test_groups_without_code_are_left_out_and_named_when_none_is_left() -> None:
    mixed = machine("Tesla P40", "H100", "Tesla V100")
    assert [group[0].name for group in fit(ROW, mixed).groups] == ["H100"]
    old = why(host=machine("Tesla P40", "Tesla V100", "Tesla V100"))
    assert old == (
        "has no code for compute capability 7.0 (Tesla V100), only 7.5 8.0 9.0 10.0 12.0; "
        "has no code for compute capability 6.1 (Tesla P40), only 7.5 8.0 9.0 10.0 12.0"
    )


def test_gpus_that_fail_are_not_used() -> None:
    first, second = cards("H100", "H100")
    failing = replace(first, failure="requires reset")
    assert fit(ROW, replace(H100, gpus=(failing, second))).groups == ((second,),)
    assert why(host=replace(H100, gpus=(failing,))) == "GPU 0 (H100) cannot be used: requires reset"
    asked = why(host=replace(H100, gpus=(failing, second)), wanted=(0, 1))
    assert asked == "GPU 0 (H100) cannot be used: requires reset"


def test_what_the_operator_says_of_gpus_holds() -> None:
    mixed = machine("Tesla T4", "A100", "Tesla T4")
    assert [len(group) for group in fit(ROW, mixed, 2).groups] == [2]
    assert why(host=mixed, wanted=3) == "needs 3 equal GPUs, found 2 × Tesla T4, 1 × A100"
    assert [[gpu.index for gpu in group] for group in fit(ROW, mixed, (2, 1)).groups] == [[2, 1]]
    assert why(host=mixed, wanted=(0, 5)) == "there is no GPU 5, only 0 1 2"
    assert why(host=mixed, wanted=0) == "computes on GPUs, the CPU was asked for"
    assert why(CPU, host=mixed, wanted=1) == "computes on the CPU, GPUs were asked for"
    assert why(CPU, host=mixed, wanted=0) == why(CPU, host=mixed) == ""


def test_of_a_partitioned_gpu_only_the_slices_are_used() -> None:
    whole = replace(cards("H100")[0], partitioned=True)
    assert why(host=replace(H100, gpus=(whole,))) == "the NVIDIA GPUs are split (MIG is on), and there are no slices"
    parts = tuple(Slice(index=n, uuid=f"MIG-{n}", profile="3g.40gb", memory=40 * GIB) for n in (0, 1))
    (group,) = fit(ROW, replace(H100, gpus=(replace(whole, slices=parts),))).groups
    assert [(gpu.uuid, gpu.memory) for gpu in group] == [("MIG-0", 40 * GIB), ("MIG-1", 40 * GIB)]


@given(
    names=st.lists(st.sampled_from(sorted(CARDS)), max_size=4),
    wanted=st.one_of(st.none(), st.integers(0, 4), st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True)),
    driver=st.sampled_from(["450.80.02", "525.60.13", "570.26", "580.65.06", "610.43.02"]),
    accelerator=st.sampled_from(["cpu", "cuda11.8", "cuda12.9", "cuda13.0", "rocm7.2", "cann9.0", "unheard1.0"]),
    runtime=st.sampled_from(["systemd", "supervisord", "compose"]),
)
def test_there_is_a_group_or_a_reason_and_never_both(
    names: list[str], wanted: int | list[int] | None, driver: str, accelerator: str, runtime: str
) -> None:
    row = replace(ROW, accelerator=accelerator)
    asked = tuple(wanted) if isinstance(wanted, list) else wanted
    answer = fit(row, machine(*names, driver=driver), asked, runtime)
    assert bool(answer.groups) is not bool(answer.why)
    assert "\n" not in answer.why
