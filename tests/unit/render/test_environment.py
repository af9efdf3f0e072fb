"""The variables that an engine starts with."""

from dataclasses import replace

import pytest

from appliance.domain.deployment import Deployment
from appliance.domain.service import Launch
from appliance.domain.spec import Hub
from appliance.engines import engines
from appliance.render.environment import variables
from appliance.render.pages import launches
from tests.unit.samples import deployment

PLAN = deployment()
(SERVICE,) = PLAN.services


def of(plan: Deployment, *, engine: str = SERVICE.engine, launch: Launch = Launch()) -> dict[str, str]:
    return dict(variables(plan, replace(SERVICE, engine=engine), launch))


def from_source(source: str) -> Deployment:
    return replace(PLAN, models=tuple(replace(model, source=source) for model in PLAN.models))


@pytest.mark.parametrize("name", sorted({*engines()} - {"remote"}))
def test_no_engine_asks_a_hub(name: str) -> None:
    assert of(PLAN, engine=name)["HF_HUB_OFFLINE"] == "1"


def test_caches_lie_in_the_replicas_own_directory() -> None:
    found = of(PLAN)
    assert found["HF_HOME"] == f"{SERVICE.home}/huggingface"
    assert found["MODELSCOPE_CACHE"] == f"{SERVICE.home}/modelscope"
    assert SERVICE.home == f"{PLAN.layout.cache}/{SERVICE.name}"


def test_hubs_are_as_the_operator_has_set_them() -> None:
    assert "HF_ENDPOINT" not in of(PLAN)
    hub = Hub(endpoint="https://hf-mirror.com", modelscope="www.modelscope.ai")
    found = of(replace(PLAN, spec=replace(PLAN.spec, hub=hub)))
    assert found["HF_ENDPOINT"] == "https://hf-mirror.com"
    assert found["MODELSCOPE_DOMAIN"] == "www.modelscope.ai"


def test_models_of_modelscope_switch_the_engines_that_can_be_switched() -> None:
    plan = from_source("ms:Qwen/Qwen3-8B@main")
    assert of(plan, engine="sglang")["SGLANG_USE_MODELSCOPE"] == "True"
    assert of(plan, engine="lmdeploy")["LMDEPLOY_USE_MODELSCOPE"] == "True"
    assert "SGLANG_USE_MODELSCOPE" not in of(from_source("hf:Qwen/Qwen3-8B@main"), engine="sglang")


def test_the_operator_has_the_last_word_and_the_model_before_all_others() -> None:
    spec = replace(
        PLAN.spec,
        environment=(("LEVEL", "all"), ("OMP_NUM_THREADS", "7")),
        models=tuple(replace(item, environment=(("LEVEL", "own"),)) for item in PLAN.spec.models),
    )
    found = of(replace(PLAN, spec=spec), launch=Launch(env=(("OMP_NUM_THREADS", "2"), ("MORE", "1"))))
    assert (found["LEVEL"], found["OMP_NUM_THREADS"], found["MORE"]) == ("own", "7", "1")


def test_every_variable_stands_once() -> None:
    for unit in launches(PLAN):
        names = [name for name, _ in unit.launch.env]
        assert len(names) == len(set(names))
