"""GPUs: who holds their memory, how they go together, what keeps them ready."""

from collections.abc import Iterator
from typing import Final

from appliance.doctor.check import error, info, looks_for, size, warning
from appliance.doctor.checks.gpu import gpus
from appliance.doctor.facts import Facts
from appliance.doctor.remedy import as_root, fabric_manager
from appliance.domain.finding import Finding
from appliance.domain.host import Gpu, GpuProcess, Host

MUCH: Final = 0.1
"""Part of a GPU's memory: a desktop and a driver take less."""
SWITCHED: Final = 8
"""GPUs that all reach each other over NVLink only through NVSwitch; four of them are wired directly."""


@looks_for("gpu-memory-held", "other programs hold much of a GPU's memory")
def held(host: Host, facts: Facts) -> Iterator[Finding]:
    """Where the holders are in another container, the difference of total and free memory still tells."""
    for gpu in host.gpus:
        if not gpu.memory or gpu.failure:
            continue
        others = tuple(process for process in gpu.processes if process.pid not in facts.ours)
        amount = sum(process.memory or 0 for process in others)
        used = gpu.memory - gpu.memory_free if gpu.memory_free is not None else amount
        if amount > MUCH * gpu.memory:
            yield _named(gpu, amount, others)
        elif others and used > MUCH * gpu.memory and len(others) == len(gpu.processes):
            yield _named(gpu, used, others)
        elif not gpu.processes and used > MUCH * gpu.memory and not facts.record:
            message = f"{gpu.name}: {size(used)} of {size(gpu.memory)} are held by programs that cannot be seen here"
            yield warning(gpu.device, message, "look on the machine itself, or in its other containers: nvidia-smi")


def _named(gpu: Gpu, amount: int, holders: tuple[GpuProcess, ...]) -> Finding:
    who = ", ".join(
        f"{item.name} (pid {item.pid}{', ' + size(item.memory) if item.memory else ''})" for item in holders[:8]
    )
    pids = ",".join(str(item.pid) for item in holders)
    return warning(
        gpu.device,
        f"{gpu.name}: {size(amount)} of {size(gpu.memory or 0)} are held by {who}",
        f"ps -f -p {pids}",
        "stop them, or keep models off this GPU: gpus in models.d/NAME.yaml",
    )


@looks_for("gpu-mixed", "GPUs of different generations are in one machine")
def mixed(host: Host, facts: Facts) -> Iterator[Finding]:
    """Tensor parallelism over them runs as fast as the slowest, and with what the oldest can."""
    kinds: dict[str, list[str]] = {}
    for gpu in gpus(host, "nvidia"):
        kinds.setdefault(gpu.compute_capability or "unknown", []).append(str(gpu.index))
    if len(kinds) > 1:
        listed = "; ".join(f"{kind}: {', '.join(indexes)}" for kind, indexes in sorted(kinds.items()))
        message = f"compute capabilities differ (by index: {listed}); a model that is split stays within one kind"
        yield info("nvidia", message, "say which GPUs a model gets: gpus in models.d/NAME.yaml")


@looks_for("gpu-fabric", "NVSwitch is there, and no fabric manager of the driver's version runs")
def fabric(host: Host, facts: Facts) -> Iterator[Finding]:
    """CUDA fails with error 802 until it runs; a container has it outside, and a virtual machine may."""
    driver = host.driver("nvidia")
    if not switched(host) or host.container or not driver or driver.failure or not driver.version:
        return
    there, count = facts.fabric, len(gpus(host, "nvidia"))
    if not there.installed:
        message = f"{count} GPUs on NVSwitch, and no fabric manager: CUDA fails with error 802"
        remedy = fabric_manager(host, driver.version)
        if facts.virtual:
            yield warning("nvidia", f"{message}, unless the host of this virtual machine runs it", *remedy)
        else:
            yield error("nvidia", message, *remedy, prevents=bool(facts.wants_gpu))
    elif there.version and there.version != driver.version:
        message = f"fabric manager {there.version} does not match driver {driver.version}: CUDA fails with error 802"
        yield error("nvidia", message, *fabric_manager(host, driver.version), prevents=bool(facts.wants_gpu))
    elif not there.active:
        start = as_root(host, "systemctl enable --now nvidia-fabricmanager")
        message = f"{count} GPUs on NVSwitch, and the fabric manager does not run: CUDA fails with error 802"
        yield error("nvidia", message, start, prevents=bool(facts.wants_gpu))


def switched(host: Host) -> bool:
    """Tell whether NVIDIA GPUs are connected by NVSwitch: many, and each reaches every other over NVLink."""
    cards = gpus(host, "nvidia")
    return len(cards) >= SWITCHED and all(
        len(card.links) >= len(cards) and all(link == "X" or link.startswith("NV") for link in card.links)
        for card in cards
    )


@looks_for("gpu-persistence", "NVIDIA's persistence daemon does not run")
def persistence(host: Host, facts: Facts) -> Iterator[Finding]:
    """Without it the driver starts anew for each program that comes when none is there: seconds on large machines."""
    driver = host.driver("nvidia")
    if facts.persistence or host.container or not driver or driver.failure or not gpus(host, "nvidia"):
        return
    message = "nvidia-persistenced does not run: the first program on an idle GPU waits until the driver is up"
    yield info("nvidia", message, as_root(host, "systemctl enable --now nvidia-persistenced"))
