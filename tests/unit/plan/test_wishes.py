"""What uniform options do to a plan: memory, GPUs, versions, warnings, routes."""

import pytest

from appliance.domain.deployment import Deployment
from appliance.domain.spec import ModelSpec, Tuning
from appliance.errors import HostError, SpecError
from appliance.gateway import routes
from tests.unit.samples import GIB, GPU_CATALOG, deployment, gpu, gpu_host, item, safetensors

TWO = gpu_host(gpu(0), gpu(1))


def planned(one: ModelSpec, size: int = GIB) -> Deployment:
    return deployment(one, host=TWO, facts=safetensors(size=size), catalog=GPU_CATALOG)


def test_code_of_the_model_is_said_loudly() -> None:
    told = planned(item(tuning=Tuning(trust_remote_code=True)))
    (reason,) = (one for one in told.reasons if one.subject == "trust in tiny")
    assert "RUN" in reason.why
    assert not [one for one in planned(item()).reasons if one.subject.startswith("trust")]


def test_a_version_is_taken_or_refused_with_those_that_there_are() -> None:
    assert planned(item(engine="vllm", version="3.0")).services[0].version == "3.0"
    with pytest.raises(HostError, match="the catalog holds no version 9.9 of vllm") as caught:
        planned(item(engine="vllm", version="9.9"))
    assert "there are vllm 3.0" in caught.value.hint


def test_a_share_of_memory_is_what_is_asked_for() -> None:
    told = planned(item(tuning=Tuning(memory_share=0.5)))
    assert told.services[0].setting.memory_share == 0.5
    assert max(load.total for load in told.services[0].loads) <= 12 * GIB
    with pytest.raises(HostError, match="--memory-share 0.05 is less than what it needs") as caught:
        planned(item(tuning=Tuning(memory_share=0.05)))
    assert "try --memory-share 0." in caught.value.hint


def test_pipeline_stages_share_the_layers() -> None:
    told = planned(item(tuning=Tuning(pipeline_parallel=2))).services[0]
    assert (told.setting.pipeline_parallel, told.setting.tensor_parallel, len(told.gpus)) == (2, 1, 2)
    assert dict(told.loads[1].items)["weights"] == GIB // 2 + GIB // 16, "half of the layers, and the embedding"
    with pytest.raises(HostError):
        planned(item(tuning=Tuning(pipeline_parallel=4)))


def test_wider_numbers_take_more() -> None:
    def weights(dtype: str) -> int:
        return dict(planned(item(tuning=Tuning(dtype=dtype))).services[0].loads[1].items)["weights"]

    assert weights("float32") == 2 * weights("bfloat16") == 2 * weights("auto")


def test_tokens_computed_at_once_are_counted() -> None:
    def activations(tokens: int | None) -> int:
        told = planned(item(engine="vllm", tuning=Tuning(batched_tokens=tokens)))
        return dict(told.services[0].loads[1].items)["activations"]

    assert activations(8192) > activations(None)


def test_adapters_are_models_of_their_own_to_clients() -> None:
    told = planned(item(adapters=(("sql", "/srv/sql"),)))
    assert [(route.name, route.upstream_model) for route in told.gateway.routes] == [("tiny", "tiny"), ("sql", "sql")]
    assert '"sql"' in routes(told)


@pytest.mark.parametrize("path", ["/home/me/t.jinja", "/root/t.jinja", "/tmp/t.jinja"])
def test_a_file_that_services_do_not_see_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match="services see nothing below") as caught:
        planned(item(tuning=Tuning(chat_template=path)))
    assert "/srv" in caught.value.hint


def test_what_the_asked_engine_cannot_do_is_the_specs_fault() -> None:
    with pytest.raises(SpecError, match=r"models.d/tiny.yaml: lmdeploy has no --seed") as caught:
        planned(item(engine="lmdeploy", tuning=Tuning(seed=1)))
    assert caught.value.hint == "engines that have --seed: llama-cpp, llama-cpp-python, sglang, transformers, vllm"


def test_an_engine_that_cannot_is_passed_over() -> None:
    told = planned(item(options=(("speculative-algorithm", "EAGLE"),)))
    assert told.services[0].engine == "sglang"
    (reason,) = (one for one in told.reasons if one.subject.startswith("engine"))
    assert "has no such flag" in reason.refused[0].why
