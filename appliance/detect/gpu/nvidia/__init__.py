"""NVIDIA GPUs, by nvidia-smi, the kernel's own files and a Jetson's device tree.

What is broken is reported as broken: a driver without hardware, hardware without a driver, a tool that does not match
its module, a GPU that fell off the bus while the others work.
"""

from dataclasses import replace
from typing import Final

from appliance.detect.gpu import Found
from appliance.detect.gpu.nvidia import found, kernel, tool
from appliance.domain.host import Driver, Gpu
from appliance.system.machine import Machine

VENDOR: Final = found.VENDOR
PCI: Final = ("10de",)
TOOLS: Final = ("nvidia-smi", "nvidia-ctk", "nvidia-container-cli", "nvidia-modprobe", "nv-fabricmanager", "nvcc")
MODULES: Final = (
    "nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia_peermem", "nvgpu", "nouveau", "nova_core",
)  # fmt: skip


def probe(machine: Machine, present: bool) -> Found:
    """Ask the tool, or the kernel where there is none; `present` tells that a device is on the PCI bus."""
    known = kernel.look(machine)
    program = tool.find(machine)
    if program:
        return _ask(machine, program, known, present=present)
    if not (present or known.version or known.wsl or known.jetson or "nvidia" in known.modules):
        return Found()
    gpus, driver = found.by_kernel(kernel.look_closer(machine, known), present=present)
    return _found(machine, gpus, driver)


def _ask(machine: Machine, program: str, known: kernel.Kernel, *, present: bool) -> Found:
    said = tool.ask(machine, program, known)
    gpus, driver = found.by_tool(said, known, present=present)
    if driver.failure:
        gpus, driver = found.by_tool(said, kernel.look_closer(machine, known), present=present)
    if not gpus and known.jetson and known.chip:
        gpus = (found.jetson(known),)
    return _found(machine, gpus, driver, found.silent(said))


def _found(machine: Machine, gpus: tuple[Gpu, ...], driver: Driver, silent: tuple[str, ...] = ()) -> Found:
    placed = tuple(replace(gpu, numa_node=kernel.numa_node(machine, gpu.bus_id)) for gpu in gpus)
    return Found(gpus=placed, driver=driver, silent=silent)
