"""AMD GPUs: the compute driver's list in sysfs, and amd-smi or rocm-smi for the names."""

import dataclasses
from collections.abc import Iterator
from typing import Final

from appliance.detect.gpu import Found, _amd_smi, _kfd, _pci, _rocm
from appliance.detect.gpu._ask import LATE, Remedies, ask, best, locate, placeless, root, silent, trouble
from appliance.detect.gpu._text import lines
from appliance.domain.changes import Completed
from appliance.domain.host import Driver, Gpu
from appliance.system.machine import Machine

VENDOR: Final = "amd"
PCI: Final = ("1002",)
TOOLS: Final = ("amd-smi", "rocm-smi")
MODULES: Final = ("amdgpu", "radeon")
DIRECTORIES: Final = ("/opt/rocm/bin",)
VENDOR_ID: Final = 0x1002
OTHERS: Final = ("hydcu", "hycu", "hygondrm")
"""Modules of Hygon, whose kit brings a rocm-smi and a /dev/kfd of its own."""
CONSOLES: Final = frozenset(("4752", "515e", "5969"))
"""Rage XL and ES1000: the consoles of old servers, no accelerators."""
STATIC: Final = ("static", "--asic", "--bus", "--vram", "--driver", "--json")
ROCM: Final = ("--showproductname", "--showmeminfo", "vram", "--showuniqueid", "--showbus", "--json")
GROUPS: Final = "sudo usermod -aG render,video $USER, then log in again; in a container, add these groups to it"
LOAD: Final = "sudo modprobe amdgpu; if there is no such module, install AMD's amdgpu driver, then reboot"
BROKEN: Final = "look for amdgpu in `dmesg`; in a container, hand in /dev/kfd and /dev/dri"
REMEDIES: Final[Remedies] = (
    ("required groups", GROUPS),
    ("permission denied", GROUPS),
    ("unable to open /dev/kfd", GROUPS),
    ("not initialized", LOAD),
    ("not found in modules", LOAD),
    ("unable to detect any gpu", LOAD),
)


def probe(machine: Machine, present: bool) -> Found:
    """Ask sysfs, then the tools, for whatever sign of AMD there is."""
    nodes = _kfd.nodes(machine, VENDOR, VENDOR_ID)
    module = "amdgpu" if nodes else _pci.loaded(machine, "amdgpu")
    hardware = bool(nodes) or (present and _accelerator(machine))
    if not hardware and (_pci.loaded(machine, *OTHERS) or machine.names("/opt/hyhal")):
        return Found()
    found = best(_answers(machine), parse, BROKEN) if module or not hardware else Found()
    if not hardware and not module and found.driver is None:
        return Found()
    gpus = merge(nodes, found.gpus)
    driver = found.driver or Driver(vendor=VENDOR)
    if not gpus and hardware:
        driver = _unlisted(driver, module)
    driver = _versions(machine, placeless(driver, hardware or bool(module)))
    return Found(gpus=_pci.placed(machine, gpus), driver=driver, silent=found.silent)


def parse(done: Completed) -> Found:
    """Read one answer of amd-smi or rocm-smi, in whichever of their forms."""
    text = done.stdout
    readers = (_amd_smi.parse_json, _amd_smi.parse_table, _amd_smi.parse_rocm, _amd_smi.parse_short)
    gpus = next(filter(None, (read(text) for read in readers)), ())
    version, api = _amd_smi.table_versions(text)
    version = version or _amd_smi.json_version(text) or _rocm.driver_version(text)
    if not gpus or done.code == LATE:
        driver = dataclasses.replace(trouble(VENDOR, done, REMEDIES, BROKEN), version=version, api=api)
    else:
        barred = _barred(done)
        driver = Driver(vendor=VENDOR, version=version, api=api, failure=barred, remedy=GROUPS if barred else "")
    return Found(gpus=gpus, driver=driver, silent=silent(done))


def merge(nodes: tuple[_kfd.Node, ...], told: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """Join what sysfs and a tool say of the same card, by PCI address; the tool's number and name count."""
    left = {place: [node for node in nodes if node.gpu.bus_id == place] for place in {n.gpu.bus_id for n in nodes}}
    joined = []
    for gpu in told:
        if gpu.bus_id and left.get(gpu.bus_id):
            joined.append(_join(left[gpu.bus_id].pop(0), gpu))
        elif gpu.bus_id or not nodes:
            joined.append(gpu)
    indices = {gpu.index for gpu in joined}
    spare = (index for index in range(len(nodes) + len(indices)) if index not in indices)
    rest = [node.gpu for node in nodes if node in left[node.gpu.bus_id]]
    joined += [dataclasses.replace(gpu, index=next(spare)) for gpu in rest]
    return tuple(sorted(joined, key=lambda gpu: gpu.index))


def _join(node: _kfd.Node, told: Gpu) -> Gpu:
    arch, name = told.architecture or node.gpu.architecture, told.name or node.gpu.name
    unified = _kfd.integrated(arch, name)
    memory = node.gpu.memory if unified else told.memory or node.gpu.memory
    left = node.gpu.memory_free if told.memory_free is None else told.memory_free
    return dataclasses.replace(
        told,
        uuid=node.gpu.uuid or told.uuid,
        name=name,
        memory=memory,
        memory_free=None if memory is None else left,
        architecture=arch,
        unified=unified,
    )


def _answers(machine: Machine) -> Iterator[Completed]:
    smi, rocm = (locate(machine, tool, *DIRECTORIES) for tool in TOOLS)
    if smi:
        yield ask(machine, smi, *STATIC)
        yield ask(machine, smi)
    if rocm:
        yield ask(machine, rocm, *ROCM)
        yield ask(machine, rocm)


def _barred(done: Completed) -> str:
    """Return the warning that this user lacks a group, as amd-smi puts it before its answer."""
    said = lines(f"{done.stderr}\n{done.stdout}")
    return next((line.strip() for line in said if "required groups" in line), "")


def _unlisted(driver: Driver, module: str) -> Driver:
    """Return why there is hardware and no GPU."""
    if not module:
        failure, remedy = "the kernel module amdgpu is not loaded", LOAD
    elif driver.failure:
        return driver
    else:
        failure, remedy = "amdgpu is loaded, but /sys/class/kfd lists no GPU", BROKEN
    return dataclasses.replace(driver, failure=failure, remedy=remedy)


def _accelerator(machine: Machine) -> bool:
    """Tell whether the bus has a card for us: no old console, and none that a virtual machine has been given."""
    devices = _pci.devices(machine, PCI)
    away = _pci.bound(machine, "vfio-pci")
    return not devices or any(device.model not in CONSOLES and device.bus_id not in away for device in devices)


def _versions(machine: Machine, driver: Driver) -> Driver:
    barred = "required groups" in driver.failure and root(machine)
    return dataclasses.replace(
        driver,
        version=_pci.module_version(machine, "amdgpu") or driver.version,
        api=_rocm_version(machine) or driver.api,
        failure="" if barred else driver.failure,
        remedy="" if barred else driver.remedy,
    )


def _rocm_version(machine: Machine) -> str:
    """Return ROCm's version without its build number: `7.2.1-43` -> 7.2.1."""
    said = (machine.read("/opt/rocm/.info/version", 256) or b"").decode(errors="replace").strip()
    return said.split("-")[0]
