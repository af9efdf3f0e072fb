"""Machines × names: which form of which model is taken, what would fit too; one page for each machine in picks/."""

from pathlib import Path

import pytest

from appliance import catalog
from appliance.catalog.models.names import find
from appliance.domain.spec import ModelSpec
from appliance.errors import HostError
from appliance.plan.pick import pick
from appliance.plan.room import room
from tests.golden.plans.machines import hosts

HERE = Path(__file__).parent / "picks"
MACHINES = ("cpu-8", "cpu-64", "t4", "rtx3090-nvcc", "a100-80", "h100x8-570-nvcc", "gb10-nvcc", "mi300x8")
NAMES = (
    "qwen3",
    "qwen3:8b",
    "llama3.3",
    "deepseek-r1",
    "gpt-oss",
    "gemma3",
    "glm",
    "mistral",
    "bge-m3",
    "qwen3:8b-q2_K",
)


def page(machine: str) -> str:
    """Return what every name comes to; without amounts, which are the plan's business."""
    lines = [machine]
    for name in NAMES:
        found, host = find(name), hosts()[machine]
        assert found
        try:
            picked = pick(found, ModelSpec(name="m", source=name), host, catalog.load(), room(host))
        except HostError as error:
            lines += ["", f"{name}  REFUSED", *(f"    {one}" for one in reasons(error))]
            continue
        best = picked.best
        lines += ["", f"{name}  -> {best.choice.source}  ({best.choice.label}, {best.engine})"]
        lines += [f"    {picked.why.partition(': ')[0]}"]
        lines += [f"    or {one.choice.source}  ({one.choice.label}, {one.engine})" for one in picked.others]
        lines += [f"    not {one.name}" for one in picked.refused]
    return "\n".join(lines) + "\n"


def reasons(error: HostError) -> list[str]:
    """Return the forms that came nearest."""
    told = error.message.partition(": ")[2].split("; ")
    return [one.partition(":")[0] for one in told]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_page_comes_out_as_it_is_kept(machine: str, update: bool) -> None:
    path, wanted = HERE / f"{machine}.txt", page(machine)
    if update:
        path.write_text(wanted)
    assert path.read_text() == wanted, f"picks/{machine}.txt; --update-golden keeps it"


def test_there_is_no_other_page() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == set(MACHINES)
