"""Puts together what the tool, the kernel and the names tell into the GPUs and the driver."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from appliance.detect.gpu.nvidia import failure, listing, models, query, table, topology
from appliance.detect.gpu.nvidia.cells import Seen
from appliance.detect.gpu.nvidia.failure import Failure, Scene
from appliance.detect.gpu.nvidia.kernel import Kernel
from appliance.detect.gpu.nvidia.tool import NAME, Said
from appliance.domain.changes import Completed
from appliance.domain.host import Driver, Gpu, GpuProcess, Slice

VENDOR = "nvidia"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the tool's answers say, read."""

    rows: tuple[Seen, ...]
    table: table.Table
    listing: listing.Listing
    links: dict[int, tuple[str, ...]]
    apps: tuple[tuple[str, GpuProcess], ...]

    @property
    def seen(self) -> tuple[Seen, ...]:
        """Each GPU with all that is told of it; the query says most, the table what it keeps back."""
        first = self.rows or self.table.gpus or self.listing.gpus
        return tuple(_merged(gpu, (*self.table.gpus, *self.listing.gpus)) for gpu in first)


def read(said: Said) -> Told:
    """Read every answer."""
    return Told(
        rows=query.parse(said.gpus.stdout, said.fields),
        table=table.parse(said.banner.stdout),
        listing=listing.parse(_out(said.listing)),
        links=topology.parse(_out(said.topology)),
        apps=query.parse_apps(said.apps.stdout),
    )


def by_tool(said: Said, kernel: Kernel, *, present: bool) -> tuple[tuple[Gpu, ...], Driver]:
    """Return what nvidia-smi tells; where it tells of no GPU that works, why."""
    told = read(said)
    seen = (*told.seen, *_numbered(failure.lost(said.text, kernel), told.seen))
    version = next((gpu.driver for gpu in seen if gpu.driver), "") or told.table.driver or kernel.version
    driver = Driver(vendor=VENDOR, version=version, api=told.table.api or _api(version, kernel), module=kernel.module)
    if any(not gpu.failure for gpu in seen):
        broken = None
    elif told.seen:
        broken = Failure(
            text=f"no GPU is usable: GPU {seen[0].index}: {seen[0].failure}", remedy=failure.remedy(seen[0])
        )
    else:
        broken = failure.diagnose(Scene(said=said.text, kernel=kernel, present=present), said.gpus)
        # What the module drives cannot be used now, but it is there.
        seen = seen or tuple(replace(gpu, failure=broken.text) for gpu in kernel.gpus)
        driver = replace(driver, api="")
    driver = replace(driver, failure=broken.text, remedy=broken.remedy) if broken else driver
    return tuple(_gpu(gpu, told, kernel) for gpu in sorted(seen, key=lambda gpu: gpu.index)), driver


def by_kernel(kernel: Kernel, *, present: bool) -> tuple[tuple[Gpu, ...], Driver]:
    """Return what can be told without nvidia-smi."""
    driver = Driver(vendor=VENDOR, version=kernel.version, api=_api(kernel.version, kernel), module=kernel.module)
    if kernel.jetson and kernel.chip:
        return (jetson(kernel),), driver
    broken = failure.without_tool(Scene(said="", kernel=kernel, present=present))
    nothing = Told(rows=(), table=table.Table(), listing=listing.Listing(), links={}, apps=())
    refused = "this container was not given it" if kernel.container and not kernel.nodes else ""
    gpus = tuple(_gpu(replace(gpu, failure=refused), nothing, kernel) for gpu in kernel.gpus)
    return gpus, replace(driver, failure=broken.text, remedy=broken.remedy)


def jetson(kernel: Kernel) -> Gpu:
    """Return the GPU of a Jetson, which has no nvidia-smi before Jetson Linux 36."""
    name, capability = models.CHIPS[kernel.chip]
    return Gpu(
        vendor=VENDOR,
        index=0,
        uuid="",
        name=kernel.board or name,
        memory=None,
        compute_capability=capability,
        unified=True,
    )


def _api(version: str, kernel: Kernel) -> str:
    return models.jetson_api(kernel.jetson) or models.api(version)


def _out(done: Completed | None) -> str:
    return done.stdout if done else ""


def _merged(gpu: Seen, others: Iterable[Seen]) -> Seen:
    """Add what other sources tell of the same GPU."""
    for other in others:
        if other.index == gpu.index and not (gpu.bus_id and other.bus_id and gpu.bus_id != other.bus_id):
            short = not gpu.name or gpu.name.endswith("...")
            gpu = replace(
                gpu,
                uuid=gpu.uuid or other.uuid,
                name=(other.name or gpu.name) if short else gpu.name,
                memory=gpu.memory if gpu.memory is not None else other.memory,
                memory_free=gpu.memory_free if gpu.memory_free is not None else other.memory_free,
                mig=gpu.mig or other.mig,
                bus_id=gpu.bus_id or other.bus_id,
                failure=gpu.failure or other.failure,
            )
    return gpu


def _numbered(lost: Sequence[Seen], seen: Sequence[Seen]) -> tuple[Seen, ...]:
    """Give those without a number the first that is free, and leave out what is listed anyway."""
    taken = {gpu.index for gpu in seen}
    buses = {gpu.bus_id for gpu in seen if gpu.bus_id}
    numbered: list[Seen] = []
    for gpu in lost:
        if gpu.bus_id in buses or (gpu.index in taken and not gpu.bus_id):
            continue
        free = next(number for number in range(len(taken) + 1) if number not in taken)
        numbered.append(gpu if gpu.index >= 0 and gpu.index not in taken else replace(gpu, index=free))
        taken.add(numbered[-1].index)
    return tuple(numbered)


def _gpu(seen: Seen, told: Told, kernel: Kernel) -> Gpu:
    known = next((gpu for gpu in kernel.gpus if seen.bus_id and gpu.bus_id == seen.bus_id), None)
    slices = _slices(seen.index, told)
    name = seen.name or (known.name if known else "")
    capability = seen.capability or models.capability(name)
    unified = models.integrated(name, capability)
    uuid = seen.uuid or (known.uuid if known else "")
    return Gpu(
        vendor=VENDOR,
        index=seen.index,
        uuid=uuid,
        name=name,
        memory=None if unified else seen.memory,
        memory_free=None if unified else seen.memory_free,
        compute_capability=capability,
        bus_id=seen.bus_id,
        unified=unified,
        partitioned=seen.mig or bool(slices),
        slices=slices,
        links=told.links.get(seen.index, ()),
        processes=_processes(seen.index, {uuid, *(part.uuid for part in slices)}, told),
        failure=seen.failure,
    )


def _slices(index: int, told: Told) -> tuple[Slice, ...]:
    """Return the slices of a GPU; the table knows their memory, a profile's name only about."""
    measured = {device: (total, total - used) for gpu, device, total, used in told.table.slices if gpu == index}
    return tuple(
        replace(part, memory=measured[part.index][0], memory_free=measured[part.index][1])
        if part.index in measured
        else part
        for gpu, part in told.listing.slices
        if gpu == index
    )


def _processes(index: int, uuids: set[str], told: Told) -> tuple[GpuProcess, ...]:
    """Return who holds memory: the query tells whole names, the table those that draw, too."""
    asked = tuple(process for uuid, process in told.apps if uuid in uuids)
    pids = {process.pid for process in asked}
    return (*asked, *(process for gpu, process in told.table.processes if gpu == index and process.pid not in pids))


def silent(said: Said) -> tuple[str, ...]:
    """Return the programs that gave no answer."""
    return (NAME,) if said.silent else ()
