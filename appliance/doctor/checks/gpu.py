"""GPUs: their drivers, kernel modules and device files."""

from collections.abc import Iterator
from typing import Final

from appliance.doctor.access import READ, WRITE, may
from appliance.doctor.check import error, looks_for, warning
from appliance.doctor.facts import Facts
from appliance.doctor.remedy import as_root, boot_image, nvidia_driver
from appliance.domain.finding import Finding
from appliance.domain.host import Driver, Gpu, Host
from appliance.domain.version import version

CUDA_12: Final = "525.60.13"
"""Lowest driver for any CUDA 12 build; 13 needs branch 580 (NVIDIA's minor version compatibility tables)."""
CUDA_13: Final = "580"
BRANCH: Final = 580
"""Runs CUDA 12 and 13 builds, supported until 2028-06, and the last branch that knows Maxwell, Pascal and Volta."""
TURING: Final = (7, 5)
"""Compute capability of the oldest GPUs that CUDA 13 and NVIDIA's open kernel module know."""
NOUVEAU: Final = ("nouveau", "nova_core")
"""The kernel's own drivers of NVIDIA GPUs: they draw, and cannot compute."""
NODE_MODE: Final = "0666"


def gpus(host: Host, vendor: str) -> tuple[Gpu, ...]:
    """Return that vendor's GPUs."""
    return tuple(gpu for gpu in host.gpus if gpu.vendor == vendor)


def usable(host: Host) -> tuple[Gpu, ...]:
    """Return the GPUs that a program could be given."""
    failed = {driver.vendor for driver in host.drivers if driver.failure}
    return tuple(gpu for gpu in host.devices if not gpu.failure and gpu.vendor not in failed)


def legacy(host: Host) -> bool:
    """Tell whether there is a GPU here that CUDA 13 has dropped."""
    capabilities = [version(gpu.compute_capability) for gpu in gpus(host, "nvidia")]
    return any(capability and capability < TURING for capability in capabilities)


def _stranded(host: Host, facts: Facts) -> bool:
    """A model asks for a GPU, and none is left that works."""
    return bool(facts.wants_gpu) and not usable(host)


@looks_for("gpu-driver-broken", "a GPU vendor's driver or tool is there and does not work")
def driver_broken(host: Host, facts: Facts) -> Iterator[Finding]:
    """Integrated graphics of Intel serve no model: a driver that is broken there bothers nobody."""
    for driver in host.drivers:
        if not driver.failure or (driver.vendor == "nvidia" and set(NOUVEAU) & set(host.modules)):
            continue
        message = driver.failure + (f" (driver {driver.version})" if driver.version else "")
        if driver.vendor == "intel":
            yield warning(driver.vendor, message, *filter(None, (driver.remedy,)))
        else:
            yield error(driver.vendor, message, *_repair(host, driver), prevents=_stranded(host, facts))


def _repair(host: Host, driver: Driver) -> tuple[str, ...]:
    """Return what detection says, and the commands of this distribution where it says to install."""
    if not driver.remedy:
        return (f"reinstall the driver of {driver.vendor}, then reboot",)
    install = driver.vendor == "nvidia" and driver.remedy.startswith("install") and not host.container
    return (driver.remedy, *(nvidia_driver(host, branch=BRANCH, legacy=legacy(host)) if install else ()))


@looks_for("gpu-driver-missing", "a GPU is on the PCI bus and no driver has taken it")
def driver_missing(host: Host, facts: Facts) -> Iterator[Finding]:
    """Most devices of Intel and some of AMD are no more than integrated graphics."""
    for vendor in host.pci:
        driver = host.driver(vendor)
        told = driver is not None and (driver.failure or driver.version)
        if told or gpus(host, vendor) or vendor == "intel" or set(NOUVEAU) & set(host.modules):
            continue
        message = f"a GPU of {vendor} is on the PCI bus, and no driver of it is here"
        if vendor == "nvidia":
            remedy = nvidia_driver(host, branch=BRANCH, legacy=False)
            yield error(vendor, message, *remedy, prevents=_stranded(host, facts))
        elif vendor == "amd":
            yield warning(vendor, f"{message} (integrated graphics need none)", as_root(host, "modprobe amdgpu"))
        else:
            yield error(
                vendor, message, f"install the driver of {vendor}, then reboot", prevents=_stranded(host, facts)
            )


@looks_for("gpu-nouveau", "the nouveau module holds an NVIDIA GPU that NVIDIA's own driver should have")
def nouveau(host: Host, facts: Facts) -> Iterator[Finding]:
    """It is an error only where it keeps NVIDIA's driver out; beside a working one it drives another card."""
    module = next((name for name in NOUVEAU if name in host.modules), "")
    if not module:
        return
    blacklist = f"printf 'blacklist {module}\\noptions {module} modeset=0\\n'"
    remedy = (
        as_root(host, f'sh -c "{blacklist} > /etc/modprobe.d/blacklist-{module}.conf"'),
        boot_image(host),
        *(() if "nvidia" in host.modules else nvidia_driver(host, branch=BRANCH, legacy=legacy(host))[:-1]),
        as_root(host, "reboot"),
    )
    if any(gpu.vendor == "nvidia" for gpu in usable(host)):
        yield warning(module, "loaded beside NVIDIA's driver: it takes GPUs that are bound late", *remedy)
    else:
        message = f"the {module} module has the NVIDIA GPU; no engine can compute with it"
        yield error(module, message, *remedy, prevents=_stranded(host, facts))


@looks_for("gpu-uvm-missing", "NVIDIA's driver works, and its module for CUDA's memory is not loaded")
def uvm(host: Host, facts: Facts) -> Iterator[Finding]:
    """nvidia-smi does not need it, CUDA does; our units may not load modules, so nobody would at run time."""
    if "nvidia" not in host.modules or not gpus(host, "nvidia"):
        return
    loaded = "nvidia_uvm" in host.modules
    if loaded and facts.uvm_node:
        return
    message = "nvidia_uvm is not loaded" if not loaded else "/dev/nvidia-uvm is not there"
    if host.container:
        remedy: tuple[str, ...] = ("on the machine that runs this container: modprobe nvidia_uvm", "then recreate it")
    else:
        load = () if loaded else (as_root(host, "modprobe nvidia_uvm"),)
        keep = as_root(host, "sh -c 'echo nvidia_uvm > /etc/modules-load.d/nvidia-uvm.conf'")
        remedy = (*load, as_root(host, "nvidia-modprobe -u -c=0"), keep)
    yield error("nvidia", f"{message}: CUDA cannot start", *remedy, prevents=bool(facts.wants_gpu))


@looks_for("gpu-driver-old", "NVIDIA's driver is older than the GPU builds of engines need")
def driver_old(host: Host, facts: Facts) -> Iterator[Finding]:
    """The lowest floor is the catalog's, where it lists GPU builds."""
    driver = host.driver("nvidia")
    found = version(driver.version) if driver and not driver.failure else ()
    if not driver or not found or not gpus(host, "nvidia"):
        return
    floors = [item.driver for item in facts.releases if item.api == "cuda" and version(item.driver)]
    lowest = min(floors or [CUDA_12], key=version)
    remedy = nvidia_driver(host, branch=BRANCH, legacy=legacy(host))
    if found < version(lowest):
        message = f"driver {driver.version} is too old for every GPU engine build: {lowest} at least, {BRANCH} will do"
        yield error("nvidia", message, *remedy, prevents=bool(facts.wants_gpu))
    elif found < version(CUDA_13) and not legacy(host):
        yield warning(
            "nvidia",
            f"driver {driver.version} runs CUDA 12 builds only; current vLLM and SGLang are built for CUDA 13, "
            f"which needs {CUDA_13}",
            *remedy,
        )


@looks_for("gpu-broken", "a GPU is listed and cannot be used")
def broken(host: Host, facts: Facts) -> Iterator[Finding]:
    """A reset needs that nothing uses it. Where the whole driver is broken, that is told instead."""
    failed = {driver.vendor for driver in host.drivers if driver.failure}
    for gpu in host.gpus:
        if not gpu.failure or gpu.vendor in failed or gpu.vendor == "intel":
            continue
        reset = (as_root(host, f"nvidia-smi --gpu-reset -i {gpu.index}"),) if gpu.vendor == "nvidia" else ()
        remedy = (*reset, as_root(host, "reboot"), as_root(host, "dmesg | grep -iE 'xid|amdgpu|fallen'"))
        yield error(gpu.device, f"{gpu.name}: {gpu.failure}", *remedy, prevents=_stranded(host, facts))


@looks_for("gpu-mig-empty", "MIG is on and no slice was made, so that nothing can use the GPU")
def mig_empty(host: Host, facts: Facts) -> Iterator[Finding]:
    """A GPU with MIG on is not usable as a whole."""
    for gpu in host.gpus:
        if gpu.partitioned and not gpu.slices:
            yield error(
                gpu.device,
                f"{gpu.name}: MIG is on, and there are no instances",
                as_root(host, f"nvidia-smi mig -i {gpu.index} -lgip") + "   # the profiles",
                as_root(host, f"nvidia-smi mig -i {gpu.index} -cgi PROFILE -C"),
                "or: " + as_root(host, f"nvidia-smi -i {gpu.index} -mig 0"),
                prevents=_stranded(host, facts),
            )


@looks_for("gpu-device-denied", "the engines' user may not open a GPU's device file")
def device_denied(host: Host, facts: Facts) -> Iterator[Finding]:
    """Distributions give /dev/kfd and /dev/dri to the groups render and video, NVIDIA's files to everybody."""
    denied = [node for node in facts.nodes if not may(facts.engine, node, READ | WRITE)]
    if not denied or not host.gpus or facts.engine.uid < 0:  # an account that is still to be made gets its groups then
        return
    paths = ", ".join(node.path for node in denied)
    nvidia = all("nvidia" in node.path for node in denied)
    remedy = (
        (f"take NVreg_DeviceFileMode out of /etc/modprobe.d, or set it to {NODE_MODE}", as_root(host, "reboot"))
        if nvidia
        else (as_root(host, f"usermod -aG render,video {facts.engine.name}"), "llm-appliance restart")
    )
    message = f"{facts.engine.name} may not open {paths}"
    yield error("devices", message, *remedy, prevents=bool(facts.wants_gpu))


@looks_for("gpu-wsl", "under WSL the GPU comes from Windows")
def wsl(host: Host, facts: Facts) -> Iterator[Finding]:
    """Nothing to say where a GPU was found."""
    if host.container != "wsl" or host.gpus:
        return
    if facts.wsl_node:
        message = "Windows hands on a GPU, and no tool here can see it"
        yield warning("wsl", message, *nvidia_driver(host, branch=BRANCH, legacy=False))
    elif facts.wants_gpu:
        message = "Windows hands on no GPU: /dev/dxg is not there (WSL 1, or no driver in Windows)"
        yield warning("wsl", message, "in Windows: wsl --update", "in Windows: wsl --set-version DISTRIBUTION 2")
