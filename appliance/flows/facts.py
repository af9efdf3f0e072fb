"""Asks the machine what the doctor wants to know beside the Host: small files, `stat`, and few programs."""

import grp
import hashlib
import os
import pwd
import re
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path

from appliance import __file__ as package
from appliance import codec, verify
from appliance.acquire import store
from appliance.catalog import catalog, load
from appliance.detect import ports
from appliance.detect.paths import place, trail
from appliance.doctor.access import Account, Step
from appliance.doctor.checks.gpu_use import switched
from appliance.doctor.facts import Fabric, Facts, Installed, OptionPath, Source, Stored
from appliance.domain.changes import Command, Record, ServiceState, Written
from appliance.domain.deployment import Release
from appliance.domain.host import Host
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.errors import SpecError
from appliance.flows import certificate
from appliance.flows.site import Site
from appliance.plan.runtime import ACCOUNTS
from appliance.system.http import call, port_is_free
from appliance.system.machine import Machine

WEIGHTS = (".gguf", ".safetensors", ".json", ".model", ".bin")
"""Endings of the files in a model's directory that are asked for."""
FILES = 512
"""Files of one model that are looked at."""
NODES = {"nvidia": r"nvidia(\d+|ctl|-uvm)", "amd": r"kfd|dri/renderD\d+", "intel": r"dri/renderD\d+"}
"""Device files below /dev that a vendor's programs open."""
TOOLKIT = "/etc/nvidia-container-runtime/config.toml"


def gather(site: Site, host: Host, spec: ApplianceSpec | None = None) -> Facts:
    """Return the facts for `spec`; for None those of what is configured here, and of what is installed too."""
    wanted, spec_failure = (spec, ("", "")) if spec else _spec(site)
    record, record_failure = _record(site)
    releases, catalog_failure = _releases(site)
    layout, machine = site.layout, site.machine
    listening = any(item.port == wanted.port for item in host.ports)
    states = verify.states(record.deployment, machine) if record and (listening or not spec) else ()
    taken = listening and not _ours(record, wanted, states) and not port_is_free(wanted.host, wanted.port)
    return Facts(
        spec=wanted,
        layout=layout,
        spec_failure=spec_failure,
        record=record,
        record_failure=record_failure,
        releases=releases,
        catalog_failure=catalog_failure,
        installer=Account(name="root", uid=0) if layout.prefix == "/" else _self(),
        engine=_engine(site, record),
        state=place(layout.state, machine),
        cache=place(layout.cache, machine),
        temporary=place("/tmp", machine),  # noqa: S108
        memory=_memory(machine),
        cpus=os.cpu_count() or 0,
        sources=tuple(_source(model) for model in wanted.models if model.source.startswith("/")),
        stored=_stored(record, wanted, layout.state),
        options=tuple(_options(wanted)),
        store=trail(_nearest(f"{layout.state}/store/models")),
        python=trail(record.deployment.python if record else sys.executable),
        nodes=_nodes(host, machine),
        uvm_node="nvidia-uvm" in machine.names("/dev"),
        wsl_node="dxg" in machine.names("/dev"),
        ours=_our_processes(host, layout.state, machine),
        fabric=_fabric(machine) if switched(host) else Fabric(),
        persistence=bool(machine.names("/run/nvidia-persistenced")),
        no_cgroups=_no_cgroups(machine),
        virtual=b" hypervisor" in (machine.read("/proc/cpuinfo", 1 << 14) or b""),
        now=time.time(),
        newest=_newest(layout.state),
        certificate_ends=_certificate_ends(site, wanted),
        certificate_own=certificate.is_own(site, wanted.tls),
        port_taken=taken,
        port_holder=ports.holder(machine, wanted.port) if taken else "",
        installed=_installed(site, record, states) if record and not spec else Installed(),
    )


def _spec(site: Site) -> tuple[ApplianceSpec, tuple[str, str]]:
    from appliance.flows.converge import read_spec  # it asks the doctor itself

    try:
        return read_spec(site)[0], ("", "")
    except SpecError as error:
        return ApplianceSpec(), (error.message, error.hint)


def _record(site: Site) -> tuple[Record | None, tuple[str, str]]:
    try:
        return site.generations.record(), ("", "")
    except SpecError as error:
        return None, (error.message, error.hint)


def _releases(site: Site) -> tuple[tuple[Release, ...], tuple[str, str]]:
    try:
        return load(state=site.layout.state).releases, ("", "")
    except SpecError as error:
        return catalog().releases, (error.message, error.hint)


def _self() -> Account:
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    return Account(name=name, uid=os.geteuid(), gids=(os.getegid(), *os.getgroups()))


def _engine(site: Site, record: Record | None) -> Account:
    name = record.deployment.user if record else ACCOUNTS[0] if site.layout.prefix == "/" else ""
    if not name:
        return _self()
    if name.isdigit():  # inside of containers only
        return Account(name=name, uid=int(name), gids=(int(name),))
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return Account(name=name)
    with suppress(KeyError):
        own = grp.getgrnam(ACCOUNTS[2]).gr_gid
        return Account(name=name, uid=entry.pw_uid, gids=(own, *os.getgrouplist(name, entry.pw_gid)))
    return Account(name=name, uid=entry.pw_uid, gids=tuple(os.getgrouplist(name, entry.pw_gid)))


def _ours(record: Record | None, spec: ApplianceSpec, states: tuple[ServiceState, ...]) -> bool:
    """Tell whether it is our own gateway that has the port: by the port alone, for it makes room for itself."""
    up = any(state.name == "gateway" and state.state in ("running", "starting") for state in states)
    return record is not None and record.deployment.spec.port == spec.port and up


def _memory(machine: Machine) -> int:
    found = re.search(rb"^MemTotal:\s+(\d+) kB", machine.read("/proc/meminfo") or b"", re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _source(model: ModelSpec) -> Source:
    whole = trail(model.source, opened=True)
    paths = []
    if whole.end and whole.end.directory:
        with suppress(OSError):
            paths = sorted(entry.path for entry in os.scandir(model.source) if entry.name.endswith(WEIGHTS))[:FILES]
    trails = tuple(trail(path, opened=True) for path in paths)
    return Source(model=model.name, path=model.source, trails=trails or (whole,))


def _stored(record: Record | None, spec: ApplianceSpec, state: str) -> tuple[Stored, ...]:
    wanted = {model.name: model.source for model in spec.models}
    models = record.deployment.models if record else ()
    found = []
    for model in models:
        if wanted.get(model.name) != model.source or not model.weights.files:
            continue
        home = str(store.home(model, state))
        trails = {file.name: trail(f"{home}/{file.name}") for file in model.weights.files}
        sizes = {file.name: file.size for file in model.weights.files}
        wrong = tuple(
            name for name, way in trails.items() if way.absent or (way.end and way.end.size != sizes[name])
        )  # fmt: skip
        there = not trail(home).absent
        found.append(
            Stored(model=model.name, directory=home, there=there, wrong=wrong, trails=tuple(trails.values()))
        )  # fmt: skip
    return tuple(found)


def _options(spec: ApplianceSpec) -> list[OptionPath]:
    return [
        OptionPath(model=model.name, option=name, trail=trail(value))
        for model in spec.models
        for name, value in model.options
        if value.startswith("/") and "\0" not in value
    ]


def _nearest(path: str) -> str:
    """Return the nearest directory that is there: the others will be made as they should be."""
    while trail(path).absent:
        path = os.path.dirname(path)  # noqa: PTH120
    return path


def _nodes(host: Host, machine: Machine) -> tuple[Step, ...]:
    names = (*machine.names("/dev"), *(f"dri/{name}" for name in machine.names("/dev/dri")))
    pattern = "|".join(NODES[vendor] for vendor in sorted({gpu.vendor for gpu in host.gpus} & set(NODES)))
    ways = [trail(f"/dev/{name}") for name in names if pattern and re.fullmatch(pattern, name)]
    return tuple(way.end for way in ways if way.end)


def _our_processes(host: Host, state: str, machine: Machine) -> frozenset[int]:
    pids = {process.pid for gpu in host.gpus for process in gpu.processes}
    return frozenset(
        pid
        for pid in pids
        if b"llm-appliance" in (machine.read(f"/proc/{pid}/cgroup") or b"")
        or f"{state}/".encode() in (machine.read(f"/proc/{pid}/cmdline") or b"")
    )


def _fabric(machine: Machine) -> Fabric:
    if not machine.which("nv-fabricmanager"):
        return Fabric()
    said = machine.run(Command(argv=("nv-fabricmanager", "--version"), timeout=5)).stdout
    active = machine.run(Command(argv=("systemctl", "is-active", "nvidia-fabricmanager"), timeout=5))
    found = re.search(r"\d+(\.\d+)+", said)
    return Fabric(installed=True, version=found[0] if found else "", active=active.code == 0)


def _no_cgroups(machine: Machine) -> bool:
    try:
        document = tomllib.loads((machine.read(TOOLKIT) or b"").decode(errors="replace"))
    except tomllib.TOMLDecodeError:
        return False
    section = document.get("nvidia-container-cli")
    return isinstance(section, dict) and section.get("no-cgroups") is True


def _certificate_ends(site: Site, spec: ApplianceSpec) -> int | None:
    path = spec.tls.certificate
    content = site.machine.read(path, codec.MAX_BYTES) if path else None
    if not content:
        return None
    from appliance import certificates  # what reads them takes its time to be imported

    with suppress(SpecError):
        return certificates.about(content, path).ends
    return None


def _newest(state: str) -> float:
    times = []
    for path in (package, "/var/lib/dpkg/status", f"{state}/record.json"):
        with suppress(OSError):
            times.append(Path(path).stat().st_mtime)
    return max(times, default=0)


def _installed(site: Site, record: Record, states: tuple[ServiceState, ...]) -> Installed:
    deployment, layout = record.deployment, site.layout
    # What runs in an image is looked for there.
    programs = {item.name: item.program for item in deployment.started if not item.container}
    programs |= {} if deployment.gateway.image else {"gateway": deployment.gateway.program}
    link = ""
    with suppress(OSError):
        link = os.readlink(layout.current)  # noqa: PTH115
    running = any(state.name == "gateway" and state.state == "running" for state in states)
    return Installed(
        states=states,
        answers=call(verify.address(deployment), "/health", timeout=2).status > 0 if running else None,
        edited=tuple(item.path for item in record.files if _edited(item, site.machine)),
        missing=tuple(item.path for item in record.files if trail(item.path).absent),
        programs_missing=tuple((name, path) for name, path in programs.items() if trail(path).absent),
        link=link,
        generation_there=not trail(site.generations.path(record.generation)).absent,
    )


def _edited(item: Written, machine: Machine) -> bool:
    content = machine.read(item.path, 8 << 20)
    return content is not None and hashlib.sha256(content).hexdigest() != item.sha256
