"""Which engine release serves a model: the first of the catalog that fits, and every refusal with its reason."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.catalog import Catalog, catalog, requirements
from appliance.domain.deployment import Model, Refusal
from appliance.domain.host import Host
from appliance.domain.release import Artifact, Release
from appliance.domain.version import version
from appliance.engines import engines
from appliance.errors import HostError, SpecError
from appliance.plan import choose
from appliance.plan.drivers import api_of
from appliance.plan.fitness import FIRST_TOOLKIT
from tests.unit.plan.machines import CARDS, boxed, machine
from tests.unit.samples import CATALOG, HOST, item, model, weights

ARM = replace(HOST, arch="aarch64")
GGUF = model()
SAFETENSORS = model(facts=weights(format="safetensors", architecture="LlamaForCausalLM", quantisation="bfloat16"))


def chosen(host: Host, what: Model = SAFETENSORS, *, runtime: str = "systemd", **spec: Any) -> str:
    release, _ = choose.release(item(**spec), what, host, catalog(), runtime)
    return choose.label(release)


def refusals(host: Host, what: Model = SAFETENSORS, **spec: Any) -> dict[str, str]:
    _, reason = choose.release(item(**spec), what, host, catalog())
    return {one.name: one.why for one in reason.refused}


class TestOrder:
    def test_the_first_of_the_catalog_is_taken(self) -> None:
        release, reason = choose.release(item(), model(), HOST, CATALOG)
        assert (release.engine, release.version) == ("llama-cpp", "1.0")
        assert reason.subject == "engine for tiny"
        assert reason.chosen == "llama-cpp 1.0 (cpu)"
        assert reason.why == "the first of the catalog that works here"
        assert reason.refused == ()

    def test_what_is_passed_over_says_why_with_the_numbers(self) -> None:
        release, reason = choose.release(item(), model(), ARM, CATALOG)
        assert release.engine == "llama-cpp-python"
        said = "is for x86_64, this machine is aarch64"
        assert reason.refused == (Refusal(name="llama-cpp 1.0 (cpu)", why=said),)

    def test_an_engine_that_was_asked_for_is_the_only_candidate(self) -> None:
        release, reason = choose.release(item(engine="llama-cpp-python"), model(), HOST, CATALOG)
        assert (release.engine, reason.why, reason.refused) == ("llama-cpp-python", "asked for", ())
        with pytest.raises(HostError) as caught:
            choose.release(item(engine="llama-cpp"), model(), ARM, CATALOG)
        assert caught.value.message == (
            "no engine can serve tiny: llama-cpp 1.0 (cpu): is for x86_64, this machine is aarch64"
        )

    def test_no_engine_at_all_names_every_reason(self) -> None:
        facts = weights(format="safetensors", architecture="Qwen3ForCausalLM")
        with pytest.raises(HostError) as caught:
            choose.release(item(), model(facts=facts), HOST, CATALOG)
        said = "reads GGUF files only, tiny is safetensors (Qwen3ForCausalLM)"
        assert caught.value.message == (
            f"no engine can serve tiny: llama-cpp 1.0 (cpu): {said}; llama-cpp-python 2.0 (cpu): {said}; "
            "dummy 1 (cpu): serves no weights, it only pretends"
        )
        assert "GGUF" in caught.value.hint

    def test_an_unknown_engine_is_named_with_those_there_are(self) -> None:
        with pytest.raises(SpecError, match="no engine is called 'vlm'") as caught:
            choose.release(item(engine="vlm"), model(), HOST, CATALOG)
        assert all(name in caught.value.hint for name in engines())

    def test_an_engine_of_a_newer_catalog_is_passed_over(self) -> None:
        newer = replace(CATALOG, releases=(replace(CATALOG.releases[0], engine="tomorrow"), *CATALOG.releases))
        _, reason = choose.release(item(), model(), HOST, newer)
        assert reason.refused[0].why == "this version of llm-appliance does not know the engine"

    def test_the_dummy_is_never_taken_for_real_weights(self) -> None:
        with pytest.raises(HostError, match="only pretends"):
            choose.release(item(engine="dummy"), model(), HOST, CATALOG)
        release, _ = choose.release(item(engine="dummy"), model(facts=weights(format="none")), HOST, CATALOG)
        assert release.engine == "dummy"

    def test_every_candidate_is_told_with_what_stands_before_it(self) -> None:
        first, second = choose.candidates(item(), model(), HOST, CATALOG)
        assert [first.release.engine, second.release.engine] == ["llama-cpp", "llama-cpp-python"]
        assert first.refused == second.refused == ()

    def test_gpus_of_several_kinds_are_several_candidates(self) -> None:
        host = machine("Tesla T4", "A100", "Tesla T4")
        found = choose.candidates(item(), SAFETENSORS, host, catalog())
        first, second = found[:2]
        assert first.release.version == second.release.version
        assert [gpu.index for gpu in first.gpus] == [1]
        assert [gpu.index for gpu in second.gpus] == [0, 2]

    def test_what_is_passed_over_for_the_same_reason_is_said_once(self) -> None:
        said = refusals(machine("A100", driver="550.54.15"))
        assert said == {"vllm 0.33.0 … 0.32.0 (2 builds)": "needs driver >= 580, found 550.54.15"}


class TestMachines:
    """The shipped catalog on machines that people have."""

    @pytest.mark.parametrize("name", ["Tesla T4", "A100", "RTX 3090", "RTX 4090", "H100", "B200", "B300", "RTX 5090"])
    def test_a_current_driver_gets_the_newest_vllm(self, name: str) -> None:
        assert chosen(machine(name)) == "vllm 0.33.0 (cuda13.0)"

    @pytest.mark.parametrize("driver", ["525.60.13", "535.104.05", "550.54.15", "570.26", "575.57.08"])
    def test_a_driver_before_580_gets_the_last_vllm_for_cuda_12(self, driver: str) -> None:
        assert chosen(machine("A100", driver=driver)) == "vllm 0.32.0 (cuda12.9)"

    def test_a_v100_gets_the_last_vllm_that_has_code_for_it(self) -> None:
        host = machine("Tesla V100", driver="550.54.15")
        assert chosen(host) == "vllm 0.19.1 (cuda12.8)"
        assert "has no code for compute capability 7.0 (Tesla V100), only 7.5 8.0" in str(refusals(host).values())
        assert chosen(host, engine="lmdeploy") == "lmdeploy 0.18.0 (cuda12.8)"

    def test_a_gb10_runs_code_for_12_0(self) -> None:
        assert chosen(machine("GB10", arch="aarch64", glibc="2.39")) == "vllm 0.33.0 (cuda13.0)"

    def test_gh200_with_an_older_driver(self) -> None:
        assert chosen(machine("H100", driver="550.54.15", arch="aarch64")) == "vllm 0.32.0 (cuda12.9)"

    def test_sglang_has_no_code_for_turing(self) -> None:
        with pytest.raises(HostError, match=r"no code for compute capability 7.5 \(Tesla T4\)"):
            chosen(machine("Tesla T4"), engine="sglang")

    def test_sglang_for_cuda_12_as_wheels_and_as_an_image(self) -> None:
        host = machine("A100", driver="550.54.15")
        assert chosen(host, engine="sglang") == "sglang 0.5.10.post1 (cuda12.8)"
        assert chosen(boxed(host), engine="sglang", runtime="compose") == "sglang 0.5.19 (cuda12.9)"

    def test_an_old_python_and_an_old_c_library_get_an_older_release(self) -> None:
        assert chosen(machine("A100", python="3.10")) == "vllm 0.26.0 (cuda13.0)"
        assert chosen(machine("Tesla V100", glibc="2.29")) == "vllm 0.11.2 (cuda12.8)"

    def test_pascal_and_safetensors_is_a_refusal_that_says_to_take_gguf(self) -> None:
        with pytest.raises(HostError) as caught:
            chosen(machine("Tesla P40"), gpus=1)
        assert "no code for compute capability 6.1 (Tesla P40)" in caught.value.message
        assert caught.value.hint == "a GGUF file of the same model can be served by llama.cpp, on the CPU too"

    def test_pascal_serves_gguf(self) -> None:
        host = machine("Tesla P40", driver="570.26")
        assert chosen(replace(host, cuda_toolkit="12.8"), GGUF) == "llama-cpp 0.3.36 (cuda12)"
        assert chosen(host, GGUF) == "llama-cpp-python 0.3.36 (cuda12.5)"
        assert chosen(boxed(host), GGUF, runtime="compose") == "llama-cpp rolling (cuda12.8)"

    def test_gguf_on_a_gpu_with_a_compiler_with_wheels_and_without_either(self) -> None:
        assert chosen(machine("H100", cuda_toolkit="13.0"), GGUF) == "llama-cpp 0.3.36 (cuda13)"
        assert chosen(machine("H100"), GGUF) == "llama-cpp-python 0.3.36 (cuda13.0)"
        assert chosen(machine("H100", glibc="2.31"), GGUF) == "llama-cpp 0.3.36 (cpu)"
        assert chosen(machine("A100", driver="470.57.02"), GGUF) == "llama-cpp-python 0.3.36 (cuda11.8)"

    def test_the_cuda_13_image_of_llama_cpp_waits_for_a_driver_that_compiles_its_ptx(self) -> None:
        def image(name: str, driver: str) -> str:
            host = machine(name, driver=driver, api="13.4" if driver == "615" else "")
            return chosen(boxed(host), GGUF, runtime="compose")

        assert image("A100", "580.65.06") == "llama-cpp rolling (cuda12.8)"
        assert image("A100", "615") == "llama-cpp rolling (cuda13.4)"
        assert image("RTX 4090", "580.65.06") == "llama-cpp rolling (cuda13.4)"

    def test_no_gpu_is_llama_cpp_on_the_cpu(self) -> None:
        assert chosen(HOST, GGUF) == "llama-cpp 0.3.36 (cpu)"
        assert chosen(ARM, GGUF) == "llama-cpp 0.3.36 (cpu)"
        assert chosen(machine("H100"), GGUF, gpus=0) == "llama-cpp 0.3.36 (cpu)"
        assert refusals(HOST, GGUF)["llama-cpp 0.3.36 … rolling (7 builds)"] == (
            "needs NVIDIA, AMD, Intel or Moore Threads GPUs, there is none"
        )

    def test_gpus_that_a_newer_driver_would_let_work_are_not_passed_over_in_silence(self) -> None:
        _, reason = choose.release(item(), GGUF, machine("A100", driver="440.33.01"), catalog())
        assert reason.chosen == "llama-cpp 0.3.36 (cpu)"
        assert reason.why == (
            "the first of the catalog that works here; driver 440.33.01 is too old for every build of "
            "llama-cpp-python: 450.80.02 would run llama-cpp-python 0.3.36 (cuda11.8); 525.60.13 would run "
            "llama-cpp-python 0.3.36 (cuda12.5); 580 would run llama-cpp-python 0.3.36 (cuda13.0)"
        )

    def test_gpus_that_a_compiler_would_let_work_are_not_passed_over_in_silence(self) -> None:
        _, reason = choose.release(item(), GGUF, machine("H100", glibc="2.31"), catalog())
        assert reason.chosen == "llama-cpp 0.3.36 (cpu)"
        assert reason.why == (
            "the first of the catalog that works here; llama-cpp 0.3.36 (cuda13) needs the CUDA 13 compiler (nvcc), "
            "there is none: install NVIDIA's CUDA toolkit"
        )
        asked = choose.candidates(item(gpus=0), GGUF, machine("H100", glibc="2.31"), catalog())[0]
        none = choose.candidates(item(), GGUF, HOST, catalog())[0]
        assert (asked.advice, none.advice) == ("", ""), "nobody misses them, or there are none"

    def test_where_gpus_work_already_nothing_is_advised(self) -> None:
        """A newer driver would run a newer release, but that is no reason to say it with the one for the CPU."""
        for host in (machine("A100", driver="550.54.15"), machine("H100")):
            found = choose.candidates(item(), GGUF, host, catalog())
            assert any(one.gpus for one in found)
            assert not all(one.gpus for one in found)
            assert {one.advice for one in found} == {""}

    def test_a_broken_driver_is_no_reason_to_be_silent_about(self) -> None:
        broken = machine("A100")
        broken = replace(broken, gpus=(), drivers=(replace(broken.drivers[0], failure="modules do not match"),))
        assert "the NVIDIA driver does not work: modules do not match" in refusals(broken, GGUF).values()

    def test_the_other_processors_row_of_the_same_release_is_not_worth_a_word(self) -> None:
        said = refusals(machine("A100", driver="550.54.15"), GGUF).values()
        assert not [why for why in said if "aarch64" in why]

    def test_an_old_driver_is_told_which_one_would_do(self) -> None:
        with pytest.raises(HostError) as caught:
            chosen(machine("A100", driver="470.57.02"), gpus=1)
        assert caught.value.hint == (
            "driver 470.57.02 is too old for every build of vllm, sglang, lmdeploy, transformers: 525.60.13 would run "
            "vllm 0.32.0 (cuda12.9), sglang 0.5.10.post1 (cuda12.8), lmdeploy 0.18.0 (cuda12.8), transformers 5.23.0 "
            "(cuda12.9); 580 would run vllm 0.33.0 (cuda13.0), sglang 0.5.23 (cuda13.0), transformers 5.23.0 "
            "(cuda13.0); a GGUF file of the same model can be served by llama.cpp, "
            "on the CPU too"
        )


class TestArtifacts:
    def test_they_are_those_of_the_runtimes_way(self) -> None:
        def kinds(runtime: str) -> list[str]:
            release, _ = choose.release(item(), SAFETENSORS, boxed(machine("H100")), catalog(), runtime)
            return [one.kind for one in release.artifacts]

        assert (kinds("systemd"), kinds("supervisord"), kinds("compose")) == (["wheels"], ["wheels"], ["image"])

    def test_a_build_is_named_by_all_that_decides_its_bytes(self) -> None:
        def digest(**changes: object) -> str:
            release, _ = choose.release(item(), model(), replace(HOST, **changes), CATALOG)  # type: ignore[arg-type]
            return release.artifacts[0].digest

        assert len(digest()) == 64
        assert digest() == digest()
        assert digest(cpu_flags=("avx2",)) != digest()
        assert digest(memory=1, cpus=1, kernel="x", ports=()) == digest()

    def test_the_build_for_the_cpu_keeps_the_name_that_it_was_built_under_before(self) -> None:
        release, _ = choose.release(item(), GGUF, HOST, catalog())
        sha256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
        parts = ("1", "llama-cpp-python==0.3.36", sha256, "x86_64", "avx2", "fma")
        assert [one.digest for one in release.artifacts] == [hashlib.sha256("\0".join(parts).encode()).hexdigest()]

    def test_a_portable_build_is_the_same_for_every_processor_and_another_than_for_this_one(self) -> None:
        def built(what: Model = GGUF, engine: str = "auto", **changes: object) -> Artifact:
            host = replace(HOST, **changes)  # type: ignore[arg-type]
            release, _ = choose.release(item(engine=engine), what, host, catalog())
            return choose.portable(release, host).artifacts[0]

        for engine in ("llama-cpp", "llama-cpp-python"):
            native, _ = choose.release(item(engine=engine), GGUF, HOST, catalog())
            assert built(engine=engine).portable
            assert built(engine=engine) == built(engine=engine, cpu_flags=("avx2", "avx512f"))
            assert built(engine=engine).digest != native.artifacts[0].digest
        bare, _ = choose.release(item(), GGUF, replace(HOST, cpu_flags=()), catalog())
        assert built().digest != bare.artifacts[0].digest
        # What comes as ready wheels is so already.
        assert not built(SAFETENSORS, "transformers").portable

    def test_a_build_for_gpus_is_for_those_that_are_there(self) -> None:
        def build(*names: str, toolkit: str = "12.8") -> Artifact:
            release, _ = choose.release(item(), GGUF, machine(*names, cuda_toolkit=toolkit), catalog())
            return release.artifacts[0]

        assert build("A100", "A100").pins == ("GGML_CUDA=ON", "CMAKE_CUDA_ARCHITECTURES=80-real")
        others = [build("A100"), build("RTX 3090"), build("A100", toolkit="12.9"), build("A100", toolkit="13.0")]
        assert len({one.digest for one in others}) == 4

    def test_wheels_without_a_lock_are_named_by_pins_indexes_python_and_processor(self) -> None:
        def digest(host: Host, **changes: object) -> str:
            row = next(row for row in catalog().releases if row.accelerator == "cuda12.9" and row.artifacts[0].pins)
            artifact = replace(row.artifacts[0], **changes)  # type: ignore[arg-type]
            resolved = choose.resolve(replace(row, artifacts=(artifact,)), host.gpus, host, "systemd")
            return resolved.artifacts[0].digest

        host = machine("A100")
        different = [
            digest(host), digest(host, pins=()), digest(host, indexes=()), digest(host, ref="vllm==1"),
            digest(replace(host, python="3.13")), digest(replace(host, arch="aarch64")),
        ]  # fmt: skip
        assert len(set(different)) == len(different)
        assert digest(host) == digest(replace(host, cpu_flags=("avx512f",))) == digest(machine("H100"))

    def test_an_image_keeps_its_own_digest_and_is_else_named_by_what_is_asked_for(self) -> None:
        def digest(known: str, ref: str = "vllm/vllm-openai:v1") -> str:
            artifact = Artifact(name="vllm", kind="image", ref=ref, digest=known, program="vllm")
            row = Release(engine="vllm", version="1", accelerator="cpu", arch=("x86_64",), artifacts=(artifact,))
            found = choose.resolve(row, (), HOST, "compose").artifacts[0]
            assert found.ref == (f"{ref}@sha256:{known}" if known else ref)
            return found.digest

        assert digest("e" * 64) == "e" * 64
        assert len({digest(""), digest("", "vllm/vllm-openai:v2")}) == 2

    def test_the_gateway_is_named_by_the_distribution_it_comes_from(self) -> None:
        names = {
            choose.gateway(CATALOG, host).digest
            for host in (HOST, replace(HOST, os="ubuntu"), replace(HOST, os_version="13"), ARM)
        }
        assert len(names) == 4
        assert choose.gateway(CATALOG, HOST) == choose.gateway(CATALOG, replace(HOST, cpu_flags=(), cpus=1))
        assert choose.gateway(CATALOG, HOST).ref == "nginx libnginx-mod-http-lua"


def covers(row: Release, capability: str, api: str, toolkit: str) -> bool:
    """Say independently of the code under test whether a GPU runs a release: by the rules, as numbers."""
    major, minor = (int(part) for part in capability.split("."))
    if FIRST_TOOLKIT.get(capability) and version(toolkit) < version(FIRST_TOOLKIT[capability]):
        return False
    if capability + "a" in row.capabilities:
        return True
    codes = [tuple(int(part) for part in code.split(".")) for code in row.capabilities if code[-1] != "a"]
    if any(code[0] == major and code[1] <= minor for code in codes):
        return True
    compiled = any(tuple(int(part) for part in code.split(".")) <= (major, minor) for code in row.portable)
    return compiled and version(api) >= version(row.api_version)


def holds(row: Release, host: Host) -> bool:
    """Say independently whether a release for NVIDIA or the CPU runs on a host without containers."""
    kinds = {one.kind for one in row.artifacts} or {"none"}
    if host.arch not in row.arch or kinds == {"image"} or row.api not in ("cpu", "cuda"):
        return False
    if version(host.glibc) < version(row.glibc) or version(host.python) < version(row.python[0]):
        return False
    if row.python[1] and version(host.python) >= version(row.python[1]):
        return False
    if row.api == "cpu":
        return not host.gpus or row.engine.startswith("llama") or row.engine == "dummy"
    (driver,) = host.drivers
    built = "build" in kinds
    if built and host.cuda_toolkit.split(".")[0] != row.api_version.split(".")[0]:
        return False
    toolkit = host.cuda_toolkit if built else row.api_version
    return version(driver.version) >= version(row.driver) and any(
        covers(row, gpu.compute_capability, driver.api, toolkit) for gpu in host.gpus
    )


HOSTS = st.builds(
    lambda names, driver, **more: machine(*names, driver=driver, api=api_of(driver), **more),
    st.lists(st.sampled_from(sorted(CARDS)), max_size=3),
    st.sampled_from(["418.40", "450.80.02", "470.57.02", "525.60.13", "550.54.15", "570.26", "580.65.06", "595.45.04"]),
    arch=st.sampled_from(["x86_64", "aarch64", "riscv64"]),
    glibc=st.sampled_from(["2.17", "2.28", "2.29", "2.31", "2.34", "2.35", "2.39"]),
    python=st.sampled_from(["3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"]),
    cuda_toolkit=st.sampled_from(["", "11.8", "12.4", "12.8", "12.9", "13.0"]),
)


@given(host=HOSTS, what=st.sampled_from([GGUF, SAFETENSORS]))
@settings(max_examples=300, deadline=None)
def test_what_is_chosen_runs_and_nothing_before_it_does(host: Host, what: Model) -> None:
    rows: Catalog = catalog()
    judged = list(choose.verdicts(item(), what, host, rows, "systemd"))
    for verdict in judged:
        reads = not engines()[verdict.row.engine].refuse(what, host, verdict.row)
        assert (not verdict.why) is (reads and holds(verdict.row, host)), (verdict.row, verdict.why)
        assert bool(verdict.groups) is not bool(verdict.why)
        for group in verdict.groups:
            assert len({gpu.name for gpu in group}) <= 1
    first = next((verdict.row for verdict in judged if not verdict.why), None)
    try:
        release, reason = choose.release(item(), what, host, rows)
    except HostError:
        assert first is None
        return
    assert first is not None
    assert choose.label(release) == choose.label(first) == reason.chosen
    passed = judged[: next(number for number, verdict in enumerate(judged) if not verdict.why)]
    told = " ".join(one.why for one in reason.refused)
    for verdict in passed:
        assert verdict.absent in told
        assert verdict.absent or verdict.why in told


@given(host=HOSTS)
@settings(max_examples=50, deadline=None)
def test_a_lock_is_never_used_where_it_is_not_there(host: Host) -> None:
    for row in catalog().releases:
        for artifact in choose.resolve(row, host.gpus, host, "systemd").artifacts:
            assert len(artifact.digest) == 64
            assert not (artifact.indexes and requirements(artifact))
