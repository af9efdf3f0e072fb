"""NVIDIA GPUs by nvidia-smi; a driver that is there and broken is reported as broken."""

from dataclasses import dataclass
from typing import Final

from appliance.domain.changes import Command, Completed
from appliance.domain.host import Gpu
from appliance.system.machine import Machine

COMMAND: Final = Command(
    argv=(
        "nvidia-smi", "--query-gpu=index,uuid,name,memory.total,compute_cap,driver_version",
        "--format=csv,noheader,nounits",
    ),
    timeout=10,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the tool told."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    failure: str = ""


def probe(machine: Machine) -> Found:
    """Run the tool and read its answer."""
    return parse(machine.run(COMMAND))


def parse(done: Completed) -> Found:
    """Read the CSV rows; `[N/A]` is what the driver does not say, a line that is no row is what it complains of."""
    if done.code != 0:
        said = next((line for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()), "")
        return Found(failure=f"nvidia-smi ends with {done.code}: {said.strip()}")
    lines = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    rows = [line for line in lines if len(line) == 6 and line[0].isdigit()]
    other = next((", ".join(line) for line in lines if line not in rows), "")
    return Found(
        gpus=tuple(_gpu(row) for row in rows),
        driver=rows[0][5] if rows else "",
        failure=f"nvidia-smi says: {other}" if other else "",
    )


def _gpu(row: list[str]) -> Gpu:
    index, uuid, name, memory, capability, _driver = row
    return Gpu(
        vendor="nvidia",
        index=int(index),
        uuid=uuid,
        name=name,
        memory=int(memory) << 20 if memory.isdigit() else None,
        compute_capability=capability if capability.replace(".", "").isdigit() else "",
    )
