"""A table of machines × models: what is chosen, with which flags, and why everything else is not.

One page for each machine in plans/, made with the catalog that is shipped: a change there shows as a difference to read.
"""

from collections import Counter
from functools import cache

import pytest

from appliance import catalog
from appliance.domain.deployment import Deployment
from appliance.domain.host import Host
from appliance.domain.service import Service
from appliance.domain.spec import ModelSpec
from appliance.domain.version import version
from appliance.plan import choose
from appliance.render.pages import launches
from tests.golden.plans.machines import HERE, Machine, hosts, models, table
from tests.golden.plans.page import TOGETHER, Outcome, outcome, page

ROWS = table().hosts
GPU_SHARE = 0.92
RAM_SHARE = 0.9
TORCH = ("vllm", "sglang", "lmdeploy")


def plans(row: Machine) -> dict[str, Outcome]:
    """Return what every model comes to on a machine, alone, and some together."""
    return {name: outcome(row.name, name) for name in models()} | {"together": outcome(row.name, *TOGETHER)}


def deployments(row: Machine) -> list[tuple[str, Deployment]]:
    return [(name, one.deployment) for name, one in plans(row).items() if one.deployment]


def services(row: Machine) -> list[Service]:
    return [service for _, one in deployments(row) for service in one.services]


def told(found: Outcome) -> str:
    """Return everything that is said about releases that were passed over."""
    if found.error:
        return f"{found.error} {found.error.hint}"
    assert found.deployment
    return " ".join(one.why for reason in found.deployment.reasons for one in reason.refused)


@cache
def capabilities(machine: str) -> dict[str, str]:
    return {gpu.device: gpu.compute_capability for gpu in hosts()[machine].devices}


def used(service: Service, row: Machine) -> list[tuple[int, ...]]:
    """Return the compute capabilities of its NVIDIA GPUs."""
    known = capabilities(row.name)
    return [version(known[load.device]) for load in service.loads if known.get(load.device)]


def test_the_table_is_as_large_as_promised() -> None:
    assert len(ROWS) >= 40
    assert len(models()) == 12
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_there_is_a_page_for_each_machine_and_no_other(update: bool) -> None:
    kept = {path.stem for path in HERE.glob("*.txt")}
    wanted = {row.name for row in ROWS}
    if update:
        for name in kept - wanted:
            (HERE / f"{name}.txt").unlink()
        return
    assert kept == wanted


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_page_comes_out_as_it_is_kept(row: Machine, update: bool) -> None:
    path, wanted = HERE / f"{row.name}.txt", page(row)
    if update:
        path.write_text(wanted)
    assert path.read_text() == wanted, f"plans/{row.name}.txt; --update-golden keeps it"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_nothing_is_promised_twice(row: Machine) -> None:
    host = hosts()[row.name]
    for name, deployment in deployments(row):
        taken: Counter[str] = Counter()
        unified = {gpu.device for gpu in host.devices if gpu.unified}
        for load in (load for service in deployment.services for load in service.loads):
            taken["ram" if load.device in unified else load.device] += load.total
        for device, amount in taken.items():
            assert amount <= most(host, device), f"{name}: {device}"


def most(host: Host, device: str) -> float:
    if device == "ram":
        return min(host.memory * RAM_SHARE, host.memory_available)
    gpu = next(one for one in host.devices if one.device == device)
    assert gpu.memory
    return min(gpu.memory * GPU_SHARE, gpu.memory if gpu.memory_free is None else gpu.memory_free)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_passed_over_has_a_reason(row: Machine) -> None:
    for name, found in plans(row).items():
        if found.deployment:
            for one in (one for reason in found.deployment.reasons for one in reason.refused):
                assert one.why.strip(), f"{name}: {one.name}"
    for model in models().values():
        item = ModelSpec(name=model.name, source=model.source)
        for verdict in choose.verdicts(item, model, hosts()[row.name], catalog.load(), "systemd"):
            assert bool(verdict.groups) != bool(verdict.why), f"{model.name}: {choose.label(verdict.row)}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_refusal_says_what_can_be_done(row: Machine) -> None:
    for name, found in plans(row).items():
        assert found.error is None or found.error.hint, f"{name}: {found.error}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_command_line_has_no_gaps(row: Machine) -> None:
    for name, deployment in deployments(row):
        for unit in launches(deployment):
            words = (*unit.launch.argv, *(value for _, value in unit.launch.env))
            assert all(word.strip() and word not in ("None", "nan") for word in words), f"{name}: {words}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_no_gpu_before_ampere_computes_in_bf16(row: Machine) -> None:
    for service in services(row):
        if service.engine in TORCH and any(capability < (8, 0) for capability in used(service, row)):
            assert service.setting.dtype == "half", service.name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_pascal_serves_gguf_only(row: Machine) -> None:
    for name, found in plans(row).items():
        pascal = any(gpu.compute_capability.startswith("6.") for gpu in hosts()[row.name].gpus)
        if pascal and name in models() and models()[name].weights.format == "safetensors":
            assert all(load.device == "ram" for one in services_of(found) for load in one.loads), name
            assert found.deployment or "GGUF" in found.error_hint, name


def services_of(found: Outcome) -> tuple[Service, ...]:
    return found.deployment.services if found.deployment else ()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_driver_gets_what_it_can_run(row: Machine) -> None:
    for service in services(row):
        if service.vendor != "nvidia":
            continue
        cuda = version(service.accelerator.removeprefix("cuda"))
        assert service.accelerator.startswith("cuda"), service.name
        if version(row.driver) < (580,):
            assert cuda < (13,), f"{service.name}: {service.accelerator}"
        if version(row.driver)[0] == 550 and service.engine == "vllm" and min(used(service, row)) >= (7, 5):
            assert (service.version, service.accelerator) == ("0.32.0", "cuda12.9")
        if any(capability >= (10, 0) for capability in used(service, row)):
            made_with = version(hosts()[row.name].cuda_toolkit) if service.engine == "llama-cpp" else cuda
            assert made_with >= (12, 8), f"{service.name}: {service.accelerator}"


@pytest.mark.parametrize("row", [row for row in ROWS if row.failure], ids=lambda row: row.name)
def test_a_broken_driver_is_told_of(row: Machine) -> None:
    for name, found in plans(row).items():
        assert row.failure in told(found), name
        if "no engine" in str(found.error):
            assert row.remedy in found.error_hint, name
