"""The hosts and models of the table: hosts.yaml and models.yaml, expanded into what a plan reads."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from appliance import codec
from appliance.domain.deployment import Model
from appliance.domain.host import Driver, Gpu, GpuProcess, Host, Slice

HERE = Path(__file__).parent
MIB = 1 << 20
GIB = 1 << 30
USABLE = 0.975
"""Part of the RAM that one buys that the kernel calls MemTotal."""
IDLE = 3 * GIB // 4
"""Bytes of RAM that an idle server holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One kind of GPU; memory in MiB, None where it is the machine's."""

    vendor: str
    name: str
    memory: int | None = None
    reserved: int = 0
    capability: str = ""
    architecture: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One MIG instance; memory in MiB."""

    profile: str
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """Equal GPUs of one host."""

    # `is` is a word of Python's, so this is read by hand.
    card: str
    count: int = 1
    used: int = 0
    """MiB of each that somebody else holds."""
    by: str = ""
    links: str = ""
    """How each reaches all others of the host."""
    slices: tuple[Part, ...] = ()
    failure: str = ""
    told: bool = True
    """False = the tool tells neither memory nor capability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A distribution."""

    os: str
    version: str
    glibc: str
    python: str
    systemd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One host of the table."""

    name: str
    system: str
    cores: int
    ram: int
    """GiB."""
    about: str = ""
    gpus: tuple[Cards, ...] = ()
    driver: str = ""
    api: str = ""
    failure: str = ""
    """Of the driver."""
    remedy: str = ""
    nvcc: str = ""
    arch: str = "x86_64"
    flags: tuple[str, ...] = ("avx2", "fma", "f16c")
    root: bool = True
    init: str = "systemd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """hosts.yaml."""

    gpus: dict[str, Card]
    systems: dict[str, System]
    hosts: tuple[Machine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """models.yaml."""

    models: tuple[Model, ...]


@cache
def table() -> Table:
    """Return hosts.yaml."""
    document = codec.read_yaml((HERE / "hosts.yaml").read_text(), source="hosts.yaml")
    for row in document["hosts"]:
        row["gpus"] = [
            {("card" if key == "is" else key): value for key, value in one.items()} for one in row.get("gpus", ())
        ]
    return codec.from_data(Table, document, source="hosts.yaml")


@cache
def models() -> dict[str, Model]:
    """Return the models by name."""
    found = codec.load_yaml(Shelf, (HERE / "models.yaml").read_text(), source="models.yaml")
    return {model.name: model for model in found.models}


@cache
def hosts() -> dict[str, Host]:
    """Return the hosts by name."""
    read = table()
    return {row.name: host(row, read) for row in read.hosts}


def host(row: Machine, read: Table) -> Host:
    """Return what detection would have told of a machine."""
    system, memory = read.systems[row.system], int(row.ram * GIB * USABLE)
    vendors = dict.fromkeys(read.gpus[one.card].vendor for one in row.gpus) or (("nvidia",) if row.failure else ())
    return Host(
        os=system.os,
        os_version=system.version,
        arch=row.arch,
        glibc=system.glibc,
        kernel="6.8.0",
        init=row.init,
        systemd=system.systemd if row.init == "systemd" else 0,
        python=system.python,
        root=row.root,
        cpus=row.cores,
        cpu_flags=row.flags,
        memory=memory,
        memory_available=memory - IDLE,
        disk_free=4000 * GIB,
        gpus=tuple(gpus(row, read)),
        drivers=tuple(
            Driver(vendor=one, version=row.driver, api=row.api, failure=row.failure, remedy=row.remedy)
            for one in vendors
        ),
        pci=tuple(vendors),
        cuda_toolkit=row.nvcc,
    )


def gpus(row: Machine, read: Table) -> list[Gpu]:
    """Return a machine's GPUs, counted over all kinds."""
    kinds = [one for one in row.gpus for _ in range(one.count)]
    return [gpu(index, one, read.gpus[one.card], len(kinds)) for index, one in enumerate(kinds)]


def gpu(index: int, one: Cards, card: Card, count: int) -> Gpu:
    """Return one of `count` GPUs."""
    told = card.memory is not None and one.told
    memory, kept = (card.memory or 0) * MIB, (card.reserved + one.used) * MIB
    links = tuple("X" if other == index else one.links for other in range(count)) if one.links else ()
    return Gpu(
        vendor=card.vendor,
        index=index,
        uuid=f"GPU-{index}" if card.vendor == "nvidia" else str(index),
        name=card.name,
        memory=memory if told else None,
        memory_free=memory - kept if told else None,
        compute_capability=card.capability if one.told else "",
        architecture=card.architecture,
        unified=card.memory is None,
        partitioned=bool(one.slices),
        slices=tuple(cut(number, index, part) for number, part in enumerate(one.slices)),
        links=links,
        processes=(GpuProcess(pid=4711, name=one.by, memory=one.used * MIB),) if one.by else (),
        failure=one.failure,
    )


def cut(number: int, index: int, part: Part) -> Slice:
    """Return one MIG instance."""
    return Slice(index=number, uuid=f"MIG-{index}-{number}", profile=part.profile, memory=part.memory * MIB)
