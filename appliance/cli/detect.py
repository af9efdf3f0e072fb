"""detect."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import typer

from appliance.cli.options import Json, Prefix
from appliance.cli.site import finish, site
from appliance.report import Result, amount_text

if TYPE_CHECKING:
    from appliance.domain.host import Docker, Driver, Gpu, Host

LABEL = 12
"""Columns of what a line is about."""
NOTABLE = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "i8mm", "sve", "sve2")
"""Instruction sets whose presence tells how fast a processor can be; the rest comes with them."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(detect)


def detect(prefix: Prefix = "", as_json: Json = False) -> int:
    """Show what this machine is."""
    from appliance import codec
    from appliance.detect import detect as look

    here = site(prefix, as_json=as_json)
    host = look(here.machine, state=here.layout.state)
    text = describe(host, here.layout.state)
    return finish(Result(command="detect", data=codec.to_data(host), text=text), as_json=as_json)


def describe(host: "Host", state: str) -> str:
    """Write a host for people; what is broken stands at the end, where the eye is."""
    lines: list[str] = []
    for label, said in _sections(host, state):
        lines += [f"{label if number == 0 else '':{LABEL}}{line}".rstrip() for number, line in enumerate(said)]
    broken = list(_broken(host))
    lines += ["", "not working:", *(f"  {line}" for line in broken)] if broken else []
    # Names come from programs and files of others: no escape sequence of theirs reaches the terminal.
    return "\n".join("".join(sign if sign.isprintable() else "?" for sign in line) for line in lines)


def _sections(host: "Host", state: str) -> Iterator[tuple[str, list[str]]]:
    """Return (label, lines); a label without lines is not shown."""
    yield "system", [_system(host)]
    yield "init", [f"systemd {host.systemd}" if host.systemd else host.init or "unknown"]
    yield "container", [host.container] if host.container else []
    yield "processor", _processor(host)
    yield "memory", [_memory(host)]
    yield "numa", _numa(host) if len(host.numa) > 1 else []
    disks = [(one.path, one.kind, f"{amount_text(one.free)} free of {amount_text(one.total)}")
             for one in host.filesystems]  # fmt: skip
    yield "disks", _table(disks)
    yield "", [f"{amount_text(host.disk_free)} free for {state}"]
    yield "gpus", list(_gpus(host)) or [_no_gpu(host)]
    yield "links", _links(host.gpus)
    yield "drivers", [_driver(driver) for driver in host.drivers]
    yield "docker", [_docker(host.docker)]
    yield "cuda", [f"compiler {host.cuda_toolkit}"] if host.cuda_toolkit else []
    yield "modules", [", ".join(host.modules)] if host.modules else []
    yield "proxies", [f"{name}={value}" for name, value in host.proxies]
    yield "tools", [", ".join(name for name, _ in host.tools) or "none"]
    yield "ports", _table([(str(one.port), one.holder or "held by a process that is not shown to us")
                           for one in host.ports])  # fmt: skip


def _system(host: "Host") -> str:
    library = f"glibc {host.glibc}" if host.glibc else "no glibc"
    parts = (f"{host.os or 'unknown'} {host.os_version}".strip(), host.arch, f"kernel {host.kernel}", library)
    return ", ".join(part for part in (*parts, host.security) if part)


def _processor(host: "Host") -> list[str]:
    machine = host.machine_cpus
    count = f"{host.cpus} CPU{'s' if host.cpus != 1 else ''}"
    allowed = f" of the machine's {machine} (affinity or quota)" if machine > host.cpus else ""
    flags = " ".join(flag for flag in NOTABLE if flag in host.cpu_flags)
    return [", ".join(part for part in (host.cpu_name, count + allowed) if part), *([flags] if flags else [])]


def _memory(host: "Host") -> str:
    machine = host.machine_memory
    limited = f"; limited by the cgroup, the machine has {amount_text(machine)}" if machine > host.memory else ""
    swap = f"{amount_text(host.swap)} swap" if host.swap else "no swap"
    return f"{amount_text(host.memory_available)} available of {amount_text(host.memory)}, {swap}{limited}"


def _numa(host: "Host") -> list[str]:
    return [
        f"node {node.index}: {len(node.cpus)} CPUs ({_ranges(node.cpus) or 'none'}), {amount_text(node.memory)}"
        for node in host.numa
    ]


def _ranges(numbers: tuple[int, ...]) -> str:
    """Write 0, 1, 2, 3, 8 as `0-3,8`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(str(end) for end in part) for part in parts)


def _gpus(host: "Host") -> Iterator[str]:
    rows = [(f"{gpu.vendor} {gpu.index}", gpu.name, _gpu_memory(gpu), _kind(gpu), _place(gpu)) for gpu in host.gpus]
    for gpu, line in zip(host.gpus, _table(rows), strict=True):
        yield line
        if gpu.partitioned:
            yield "  MIG is on, its slices are:" if gpu.slices else "  MIG is on, and no slice is made"
        for part in gpu.slices:
            size = f"  {amount_text(part.memory)}" if part.memory is not None else ""
            yield f"  slice {part.index}  {part.profile}{size}  {part.uuid}".rstrip()
        for process in gpu.processes:
            held = f" holds {amount_text(process.memory)}" if process.memory is not None else ""
            yield f"  {process.name} (pid {process.pid}){held}"


def _gpu_memory(gpu: "Gpu") -> str:
    if gpu.memory is None:
        return "unified memory" if gpu.unified else "memory unknown"
    free = f"{amount_text(gpu.memory_free)} free of " if gpu.memory_free is not None else ""
    return f"{free}{amount_text(gpu.memory)}{' unified' if gpu.unified else ''}"


def _kind(gpu: "Gpu") -> str:
    return f"cc {gpu.compute_capability}" if gpu.compute_capability else gpu.architecture


def _place(gpu: "Gpu") -> str:
    node = f"numa {gpu.numa_node}" if gpu.numa_node is not None else ""
    return " ".join(part for part in (gpu.bus_id, node) if part)


def _no_gpu(host: "Host") -> str:
    return f"none that can be used; on the PCI bus: {', '.join(host.pci)}" if host.pci else "none"


def _links(gpus: tuple["Gpu", ...]) -> list[str]:
    rows = [(f"{gpu.vendor} {gpu.index}", *gpu.links) for gpu in gpus if len(gpu.links) > 1]
    return _table(rows)


def _driver(driver: "Driver") -> str:
    api = "CUDA" if driver.vendor == "nvidia" else "ROCm" if driver.vendor == "amd" else "API"
    parts = (
        f"{driver.vendor} {driver.version or '(version unknown)'}",
        f"up to {api} {driver.api}" if driver.api else "",
        f"{driver.module} module" if driver.module else "",
        "NOT WORKING" if driver.failure else "",
    )
    return ", ".join(part for part in parts if part)


def _docker(docker: "Docker") -> str:
    if not docker.client:
        return "none that works" if docker.failure else "none"
    parts = (
        f"{'Podman ' if docker.podman else ''}{docker.server}" if docker.server else "no daemon answers",
        f"client {docker.client}" if docker.client != docker.server else "",
        f"Compose {docker.compose}" if docker.compose else "no Compose plugin",
        "rootless" if docker.rootless else "",
        "from snap, which cannot hand out GPUs" if docker.snap else "",
        f"runtimes {' '.join(docker.runtimes)}" if docker.runtimes else "",
        f"CDI {' '.join(docker.cdi)}" if docker.cdi else "",
        f"NVIDIA container toolkit {docker.toolkit}" if docker.toolkit else "",
    )
    return ", ".join(part for part in parts if part)


def _broken(host: "Host") -> Iterator[str]:
    """Say what is there and does not work, with what mends it."""
    for driver in host.drivers:
        if driver.failure:
            yield f"{driver.vendor} driver: {driver.failure}"
            if driver.remedy:
                yield f"  to mend it: {driver.remedy}"
    for gpu in host.gpus:
        if gpu.failure:
            yield f"{gpu.vendor} {gpu.index} ({gpu.name}): {gpu.failure}"
    told = {driver.vendor for driver in host.drivers} | {gpu.vendor for gpu in host.gpus}
    for vendor in host.pci:
        if vendor not in told:
            yield f"{vendor}: a device is on the PCI bus, and no driver tells of it"
    if host.docker.failure:
        yield f"docker: {host.docker.failure}"
    for name in host.silent:
        yield f"no answer in time from {name}; what it would have told is missing above"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Align columns by blanks: the same on a terminal, in a pipe and in a bug report."""
    lines = list(rows)
    columns = max((len(row) for row in lines), default=0)
    filled = [row + ("",) * (columns - len(row)) for row in lines]
    widths = [max(len(row[column]) for row in filled) for column in range(columns)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in filled]
