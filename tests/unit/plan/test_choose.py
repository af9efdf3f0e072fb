"""Which engine release serves a model: the first of the catalog that does not refuse, and every refusal with its reason."""

from dataclasses import replace

import pytest

from appliance.domain.deployment import Refusal
from appliance.engines import engines
from appliance.errors import HostError, SpecError
from appliance.plan import choose
from tests.unit.samples import CATALOG, HOST, item, model, weights

ARM = replace(HOST, arch="aarch64")


def test_the_first_of_the_catalog_is_taken() -> None:
    release, reason = choose.release(item(), model(), HOST, CATALOG)
    assert (release.engine, release.version) == ("llama-cpp", "1.0")
    assert reason.subject == "engine for tiny"
    assert reason.chosen == "llama-cpp 1.0 (cpu)"
    assert reason.why == "the first of the catalog that works here"
    assert reason.refused == ()


def test_what_is_passed_over_says_why_with_the_numbers() -> None:
    release, reason = choose.release(item(), model(), ARM, CATALOG)
    assert release.engine == "llama-cpp-python"
    assert reason.refused == (Refusal(name="llama-cpp 1.0", why="1.0 is for x86_64, this machine is aarch64"),)


def test_an_engine_that_was_asked_for_is_the_only_candidate() -> None:
    release, reason = choose.release(item(engine="llama-cpp-python"), model(), HOST, CATALOG)
    assert (release.engine, reason.why, reason.refused) == ("llama-cpp-python", "asked for", ())
    with pytest.raises(HostError) as caught:
        choose.release(item(engine="llama-cpp"), model(), ARM, CATALOG)
    assert caught.value.message == (
        "no engine can serve tiny: llama-cpp 1.0: 1.0 is for x86_64, this machine is aarch64"
    )


def test_no_engine_at_all_names_every_reason() -> None:
    facts = weights(format="safetensors", architecture="Qwen3ForCausalLM")
    with pytest.raises(HostError) as caught:
        choose.release(item(), model(facts=facts), HOST, CATALOG)
    said = "reads GGUF files only, tiny is safetensors (Qwen3ForCausalLM)"
    assert caught.value.message == (
        f"no engine can serve tiny: llama-cpp 1.0: {said}; llama-cpp-python 2.0: {said}; "
        "dummy 1: serves no weights, it only pretends"
    )
    assert "GGUF" in caught.value.hint


def test_an_unknown_engine_is_named_with_those_there_are() -> None:
    with pytest.raises(SpecError, match="no engine is called 'vlm'") as caught:
        choose.release(item(engine="vlm"), model(), HOST, CATALOG)
    assert all(name in caught.value.hint for name in engines())


def test_the_dummy_is_never_taken_for_real_weights() -> None:
    with pytest.raises(HostError, match="only pretends"):
        choose.release(item(engine="dummy"), model(), HOST, CATALOG)
    release, _ = choose.release(item(engine="dummy"), model(facts=weights(format="none")), HOST, CATALOG)
    assert release.engine == "dummy"


def test_an_artifact_is_named_by_all_that_decides_its_bytes() -> None:
    def digest(**changes: object) -> str:
        release, _ = choose.release(item(), model(), replace(HOST, **changes), CATALOG)  # type: ignore[arg-type]
        return release.artifacts[0].digest

    assert len(digest()) == 64
    assert digest() == digest()
    assert digest(cpu_flags=("avx2",)) != digest()
    assert digest(memory=1, cpus=1, kernel="x", ports=()) == digest()


def test_the_gateway_is_named_by_the_distribution_it_comes_from() -> None:
    names = {
        choose.gateway(CATALOG, host).digest
        for host in (HOST, replace(HOST, os="ubuntu"), replace(HOST, os_version="13"), ARM)
    }
    assert len(names) == 4
    assert choose.gateway(CATALOG, HOST) == choose.gateway(CATALOG, replace(HOST, cpu_flags=(), cpus=1))
    assert choose.gateway(CATALOG, HOST).ref == "nginx libnginx-mod-http-lua"
