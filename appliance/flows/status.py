"""Puts together how everything does: the runtime's word, what the gateway sees, what devices hold, what logs mean."""

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from appliance import certbot, verify
from appliance.apply.edits import edits
from appliance.catalog import symptoms
from appliance.detect import linux
from appliance.detect.gpu import vendors
from appliance.detect.together import Question
from appliance.doctor.validity import trouble
from appliance.domain.changes import Record, ServiceState
from appliance.domain.deployment import Deployment
from appliance.domain.host import Gpu
from appliance.domain.service import Service
from appliance.domain.spec import Tls
from appliance.domain.status import DeviceStatus, ServiceStatus, Status
from appliance.flows import certificate
from appliance.flows.site import Site
from appliance.runtimes import GATEWAY, runtime
from appliance.system import processes
from appliance.system.http import call
from appliance.system.machine import Machine

LINES = 80
"""Of a log that are looked at for a reason."""
NO_GPUS: tuple[Gpu, ...] = ()
PATIENCE = 3.0
"""Seconds that GPUs' tools are waited for: a broken driver may never answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """Who holds what: RAM by service, and each process's service."""

    memory: dict[str, int]
    owner: dict[int, str]


def look(site: Site, record: Record) -> Status:
    """Return how all that is installed does."""
    deployment, machine = record.deployment, site.machine
    wanted = {service.vendor for service in deployment.started if service.vendor}
    asked = Question(machine, lambda watched: _gpus(watched, wanted), NO_GPUS, patience=PATIENCE) if wanted else None
    states = verify.states(deployment, machine)
    counters = call(verify.door(deployment), "/gateway/stat", timeout=2)
    seen = _seen(counters.json()) if counters.status == 200 else {}
    problem = "" if counters.status == 200 else counters.error or f"HTTP {counters.status}"
    held = _held(states, machine)
    known = {state.name: _refined(state, seen.get(state.name, "")) for state in states}
    reasons = _reasons(site, deployment, tuple(known.values()))
    gpus = asked.answer() if asked else NO_GPUS
    return Status(
        runtime=deployment.runtime,
        generation=record.generation,
        endpoint=f"{verify.url(deployment)}/v1",
        services=(
            _gateway(deployment, known[GATEWAY], held, reasons.get(GATEWAY)),
            *(_service(deployment, one, known.get(one.name), held, reasons.get(one.name)) for one in
              deployment.services),
        ),
        devices=(_ram(deployment, held, machine), *(_device(gpu, deployment, held) for gpu in gpus)),
        edits=edits(record, site.generations, machine),
        problem=problem,
        certificate=_certificate(site, deployment.spec.tls),
    )  # fmt: skip


def bad(status: Status) -> bool:
    """Something that should run does not."""
    return any(one.state in {"failed", "stopped"} for one in status.services)


def _certificate(site: Site, tls: Tls) -> str:
    """Return what is wrong with the gateway's certificate, or soon will be, and what to type."""
    found = trouble(certificate.validity_of(site, tls), time.time())
    if not found:
        return ""
    if tls == certbot.kept(site.layout):
        return f"{found[1]}: llm-appliance tls show says how it is renewed"
    mend = "renew" if certificate.is_own(site, tls) else "use CERTIFICATE KEY"
    return f"{found[1]}: llm-appliance tls {mend}"


def _seen(counters: Any) -> dict[str, str]:
    """Return what the gateway thinks of each replica."""
    return {one["name"]: one["state"] for model in counters["models"].values() for one in model["replicas"]}


def _refined(state: ServiceState, seen: str) -> ServiceState:
    """Join what the runtime says with what the gateway sees: a process that lives need not answer yet."""
    if state.state != "running" or seen in {"", "up"}:
        return state
    if seen == "starting":
        return replace(state, state="starting")
    return replace(state, detail=state.detail or "it runs, and does not answer the gateway")


def _reasons(site: Site, deployment: Deployment, states: tuple[ServiceState, ...]) -> dict[str, list[str]]:
    """Return the last lines of the logs that are to be looked at, each read on a thread of its own."""
    module = runtime(deployment.runtime)
    found: dict[str, list[str]] = {}

    def read(name: str) -> None:
        done = site.machine.run(module.logs(deployment, (name,), follow=False, lines=LINES))
        found[name] = f"{done.stdout}\n{done.stderr}".splitlines()

    troubled = [state.name for state in states if state.state in {"failed", "starting"}]
    threads = [threading.Thread(target=read, args=(name,)) for name in troubled]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _explained(state: ServiceState, lines: list[str] | None) -> tuple[str, str, str]:
    """Return (why, what to type, the log's line)."""
    if state.state == "starting" and lines:
        return symptoms.progress(lines) or state.detail, "", ""
    if state.state != "failed":
        return state.detail, "", ""
    seen = symptoms.failure(lines or ())
    look = f"see `llm-appliance logs {state.name}`"
    if seen is None:
        return state.detail, look, ""
    loop = "crash loop: " if "crash loop" in state.detail or state.restarts > 1 else ""
    return f"{loop}{seen.says}", f"{look}; {seen.hint}" if seen.hint else look, seen.line


def _gateway(deployment: Deployment, state: ServiceState, held: _Held, lines: list[str] | None) -> ServiceStatus:
    why, hint, line = _explained(state, lines)
    return ServiceStatus(
        name=GATEWAY, model="", engine="nginx", version="", accelerator="", state=state.state, pid=state.pid,
        endpoint=f"{verify.url(deployment)}/v1", seconds=_seconds(state), restarts=state.restarts, detail=why,
        hint=hint, line=line, memory=held.memory.get(GATEWAY, 0), dropins=state.dropins,
    )  # fmt: skip


def _service(
    deployment: Deployment, service: Service, state: ServiceState | None, held: _Held, lines: list[str] | None
) -> ServiceStatus:
    plain = ServiceStatus(
        name=service.name, model=service.model, engine=service.engine, version=service.version,
        accelerator=service.accelerator, state="remote", endpoint=f"{verify.url(deployment)}/{service.model}/v1",
    )  # fmt: skip
    if service.remote:
        plain = replace(plain, engine=service.remote.url, version="", accelerator="")
    if state is None:
        return plain
    why, hint, line = _explained(state, lines)
    planned = tuple((load.device, load.total) for load in service.loads)
    return replace(
        plain, state=state.state, pid=state.pid, seconds=_seconds(state), restarts=state.restarts, detail=why,
        hint=hint, line=line, memory=held.memory.get(service.name, 0), planned=planned, dropins=state.dropins,
        gpus=tuple(device for device, _ in planned if device != "ram"),
    )  # fmt: skip


def _seconds(state: ServiceState) -> int:
    return round(time.monotonic() - state.since) if state.since > 0 else round(-state.since)


def _held(states: tuple[ServiceState, ...], machine: Machine) -> _Held:
    roots = {state.pid: state.name for state in states if state.pid}
    owner = {pid: roots[root] for pid, root in processes.owners(roots, processes.parents(machine)).items()}
    pids: dict[str, list[int]] = {}
    for pid, name in owner.items():
        pids.setdefault(name, []).append(pid)
    return _Held(memory={name: processes.resident(machine, those) for name, those in pids.items()}, owner=owner)


def _gpus(machine: Machine, wanted: set[str]) -> tuple[Gpu, ...]:
    return tuple(gpu for one in vendors() if one.VENDOR in wanted for gpu in one.probe(machine, True).gpus)


def _planned(deployment: Deployment, device: str) -> int:
    return sum(load.total for service in deployment.started for load in service.loads if load.device == device)


def _ram(deployment: Deployment, held: _Held, machine: Machine) -> DeviceStatus:
    total, free = linux.parse_meminfo(linux.text(machine, "/proc/meminfo"))
    return DeviceStatus(
        name="ram", label="", total=total or None, used=total - free if total else None,
        planned=_planned(deployment, "ram"), held=tuple(held.memory.items()),
    )  # fmt: skip


def _device(gpu: Gpu, deployment: Deployment, held: _Held) -> DeviceStatus:
    by: dict[str, int] = {}
    for process in gpu.processes:
        name = held.owner.get(process.pid, "others")
        by[name] = by.get(name, 0) + (process.memory or 0)
    used = gpu.memory - gpu.memory_free if gpu.memory and gpu.memory_free is not None else None
    return DeviceStatus(
        name=gpu.device, label=gpu.name, total=gpu.memory, used=used, planned=_planned(deployment, gpu.device),
        held=tuple(by.items()), failure=gpu.failure,
    )  # fmt: skip
