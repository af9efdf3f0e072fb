"""One host of the table as a page that a person can review: every model's choice, flags, memory and reasons."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath

from appliance import catalog
from appliance.cli.bars import bars
from appliance.domain.changes import Unit
from appliance.domain.deployment import Deployment
from appliance.domain.host import Gpu, Host
from appliance.domain.layout import Layout
from appliance.domain.service import Load
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.errors import HostError
from appliance.plan import plan
from appliance.render.pages import launches
from tests.golden.plans.machines import Machine, hosts, models, table

PYTHON = "/opt/llm-appliance/bin/python"
LAYOUT = Layout(
    prefix="/",
    etc="/etc/llm-appliance",
    state="/var/lib/llm-appliance",
    cache="/var/cache/llm-appliance",
    run="/run/llm-appliance",
    log="/var/log/llm-appliance",
)
TOGETHER = ("qwen3-0.6b", "qwen3-8b-q4", "qwen3-32b")
"""Planned on one host at the same time, beside each alone."""
FORMAT = re.compile(r", \S+ is (gguf|safetensors)( \(\w+\))?")
"""What a reason says of one model, and else of another."""
FIRST = "the first of the catalog that works here"
"""Why nearly everything is chosen: not worth a line."""
WIDTH = 120
ROW = re.compile(r"(?:; |: )(?=[a-z-]+ \S+(?: … \S+)? \([^)]*\): )")
"""Where a refusal goes on to the next release."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What planning models on a host came to: one of the two."""

    deployment: Deployment | None
    error: HostError | None = None

    @property
    def error_hint(self) -> str:
        """What a refusal advises; "" where there is none."""
        return self.error.hint or "" if self.error else ""


@cache
def outcome(machine: str, *names: str) -> Outcome:
    """Plan models of the table on a host of the table, with the catalog that is shipped."""
    chosen = tuple(models()[name] for name in names)
    spec = ApplianceSpec(models=tuple(ModelSpec(name=model.name, source=model.source) for model in chosen))
    try:
        return Outcome(plan(spec, chosen, hosts()[machine], LAYOUT, catalog.load(), python=PYTHON))
    except HostError as error:
        return Outcome(None, error)


def page(row: Machine) -> str:
    """Return everything about one host."""
    host = hosts()[row.name]
    lines = [*_header(row, host)]
    said: set[str] = set()
    for name in models():
        lines += ["", *_block(name, outcome(row.name, name), host, said)]
    lines += ["", f"together: {', '.join(TOGETHER)}", *_together(outcome(row.name, *TOGETHER), host, said)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _header(row: Machine, host: Host) -> Iterator[str]:
    yield f"{row.name}{f': {row.about}' if row.about else ''}"
    for one in row.gpus:
        card = table().gpus[one.card]
        size = f"{card.memory / 1024:.1f} GiB" if card.memory else "the machine's memory"
        held = f", {one.used / 1024:.1f} GiB of each held by {one.by}" if one.used else ""
        parts = f", split into {' '.join(part.profile for part in one.slices)}" if one.slices else ""
        broken = f", {one.failure}" if one.failure else ""
        kind = card.capability or card.architecture
        yield f"  {one.count} × {card.name} ({', '.join(filter(None, (size, kind, one.links)))}){held}{parts}{broken}"
    for driver in host.drivers:
        told = f"driver {driver.version or 'of no version'}{f', API {driver.api}' if driver.api else ''}"
        yield f"  {told}{f': {driver.failure}' if driver.failure else ''}"
    runtime = next(found.reasons[0] for name in models() if (found := outcome(row.name, name).deployment))
    why = "".join(f"; not {one.name}: {one.why}" for one in runtime.refused)
    compiler = f"nvcc {host.cuda_toolkit}" if host.cuda_toolkit else "no nvcc"
    yield (
        f"  {host.os} {host.os_version}, glibc {host.glibc}, Python {host.python}, {host.arch}, {host.cpus} cores"
        f" ({' '.join(host.cpu_flags)}), {_gib(host.memory)} RAM, {compiler if row.driver else 'no GPU driver'}"
    )
    yield f"  runtime {runtime.chosen}{why}"


def _block(name: str, found: Outcome, host: Host, said: set[str]) -> Iterator[str]:
    if found.deployment is None:
        yield f"{name}  REFUSED"
        yield from _refused(found, lambda lines: _new(lines, said))
        return
    deployment = found.deployment
    engine, memory = deployment.reasons[-2:]
    yield f"{name}  -> {engine.chosen}, {memory.chosen}"
    for unit in launches(deployment):
        yield from _memory(unit.service.loads, host)
        yield from _launch(unit)
    yield from (f"    tried {one.name}: {one.why}" for one in memory.refused)
    yield from (f"    not {line}" for line in _new([f"{one.name}: {one.why}" for one in engine.refused], said))
    yield from [f"    because {engine.why}"] if engine.why != FIRST else []


def _new(lines: Iterable[str], said: set[str]) -> Iterator[str]:
    """Yield what was not said of a model before; the rest is only counted."""
    again = 0
    for line in lines:
        bare = FORMAT.sub("", line)
        if bare in said:
            again += 1
            continue
        said.add(bare)
        yield line
    if again:
        yield f"{again} more, as above"


def _refused(found: Outcome, new: Callable[[list[str]], Iterable[str]]) -> Iterator[str]:
    error = found.error
    assert error
    first, *rest = ROW.split(str(error))
    yield f"    {first}"
    yield from (f"      {line}" for line in new(rest))
    yield f"    hint: {error.hint}"


def _memory(loads: tuple[Load, ...], host: Host) -> Iterator[str]:
    """Write what each device gives; devices that give the same in one line."""
    sizes = {"ram": host.memory} | {gpu.device: gpu.memory or host.memory for gpu in host.devices}
    same: dict[tuple[tuple[tuple[str, int], ...], int], list[str]] = {}
    for load in loads:
        same.setdefault((load.items, sizes[load.device]), []).append(load.device)
    for (items, size), devices in same.items():
        total = sum(amount for _, amount in items)
        each = " each" if len(devices) > 1 else ""
        told = ", ".join(f"{name} {_gib(amount)}" for name, amount in items)
        yield f"    {_span(devices)}{each}: {_gib(total)} of {_gib(size)} ({100 * total / size:.1f} %): {told}"


def _span(devices: list[str]) -> str:
    return devices[0] if len(devices) == 1 else f"{devices[0]} … {devices[-1].partition(':')[2]}"


def _launch(unit: Unit) -> Iterator[str]:
    """Write the command line with its paths cut short, broken at its flags, and the environment."""
    service, line = unit.service, "    $"
    argv = [_short(word, service.weights, service.socket) for word in unit.launch.argv]
    groups: list[list[str]] = []
    for word in argv:
        if groups and not word.startswith("-"):
            groups[-1].append(word)
        else:
            groups.append([word])
    for group in groups:
        words = " ".join(group)
        if len(line) + len(words) >= WIDTH:
            yield line
            line = "     "
        line = f"{line} {words}"
    yield line
    env = [f"{name}={_short(value, service.weights, service.socket)}" for name, value in unit.launch.env]
    if env:
        yield f"    env {' '.join(env)}"


def _short(word: str, weights: str, socket: str) -> str:
    if weights and word == weights:
        return "WEIGHTS"
    if word == socket:
        return "SOCKET"
    if word.startswith(f"unix:{socket}"):
        return "unix:SOCKET"
    paths = word.split(":") if word.startswith("/") else []
    return ":".join(PurePath(path).name for path in paths) or word


def _together(found: Outcome, host: Host, said: set[str]) -> Iterator[str]:
    if found.deployment is None:
        yield "    REFUSED"
        yield from _refused(found, lambda lines: _new(lines, said))
        return
    for service in found.deployment.services:
        setting = service.setting
        where = _where(service.loads, host)
        share = f", share {setting.memory_share:.3f}" if setting.memory_share else ""
        yield (
            f"  {service.name}  -> {service.engine} {service.version} ({service.accelerator}) on {where}: "
            f"{setting.context} tokens × {setting.parallel}{share}"
        )
    yield from (f"  {line}" for line in bars(found.deployment, host))


def _where(loads: tuple[Load, ...], host: Host) -> str:
    devices: dict[str, Gpu] = {gpu.device: gpu for gpu in host.devices}
    return " + ".join(load.device for load in loads if load.device in devices) or "the CPU"


def _gib(amount: int) -> str:
    """Write bytes in GiB, small amounts in MiB."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 1 << 30 else f"{amount / 2**20:.0f} MiB"
