"""What is broken when nvidia-smi complains, and what mends it: one line each."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.detect.gpu.nvidia.cells import BROKEN, Seen, broken, bus_id
from appliance.detect.gpu.nvidia.kernel import Kernel
from appliance.domain.changes import Completed

INSTALL: Final = (
    "install it and reboot (Ubuntu: `ubuntu-drivers install --gpgpu`; Debian: `apt-get install nvidia-driver`)"
)
RELOAD: Final = "`rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && modprobe -a nvidia nvidia_uvm`"
RECREATE: Final = "recreate the container (`docker run --gpus all …`, or by CDI: `--device nvidia.com/gpu=all`)"
WINDOWS: Final = "in Windows: update NVIDIA's driver, `wsl --update`, `wsl --shutdown`"
NVRM: Final = "look at what the module says: `dmesg | grep -E 'NVRM|Xid'`"

_LOST: Final = re.compile(
    r"Unable to determine the device handle for GPU\s*"
    r"(?:([0-9]{1,3}):\s*)?((?:[0-9A-F]{4,8}:)?[0-9A-F]{2}:[0-9A-F]{2}\.[0-7])?\s*:?\s*([^\n]*)",
    re.IGNORECASE,
)
"""`GPU1: 0000:34:00.0: Unknown Error`, `GPU0000:08:00.0: …`, `GPU 0000:34:00.0: GPU is lost. …`, `GPU2: …`."""
_NVML: Final = re.compile(r"NVML library version:\s*([0-9.]+)")
_RULE: Final = re.compile(r"[\s|+=-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is broken and what mends it."""

    text: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that a cause can be told from."""

    said: str
    """All that nvidia-smi printed."""
    kernel: Kernel
    present: bool
    """An NVIDIA device is on the PCI bus."""


def lost(said: str, kernel: Kernel) -> tuple[Seen, ...]:
    """Return the GPUs that nvidia-smi names and cannot reach; it tells of the others as always."""
    seen: dict[tuple[int, str], Seen] = {}
    for number, address, reason in _LOST.findall(said):
        bus = bus_id(address)
        known = next((gpu for gpu in kernel.gpus if bus and gpu.bus_id == bus), None)
        index = int(number) if number else known.index if known else -1
        name, uuid = (known.name, known.uuid) if known else ("", "")
        seen.setdefault((index, bus), Seen(index=index, bus_id=bus, name=name, uuid=uuid, failure=_reason(reason)))
    return tuple(seen.values())


def _reason(said: str) -> str:
    if BROKEN.search(said) and "nknown" not in said:
        return broken(said.partition(".")[0])
    return f"lost ({said.partition('.')[0].strip() or 'no handle'})"


def remedy(gpu: Seen) -> str:
    """Return what mends one GPU that fails while the driver works."""
    if "reset" in gpu.failure:
        return f"stop what uses it and `nvidia-smi --gpu-reset -i {gpu.index}`, or reboot"
    if "powered" in gpu.failure:
        return "check its power cables"
    return "`dmesg | grep -i xid` tells why (79: it fell off the bus); power the machine off and on"


def diagnose(scene: Scene, first: Completed) -> Failure:
    """Return why nvidia-smi tells of no GPU; `first` is its first answer."""
    cause = next((found for words, found in CAUSES if re.search(words, scene.said, re.IGNORECASE)), None)
    if cause:
        return cause(scene)
    if first.code == 124:
        return _hangs(scene)
    if first.code < 0:
        return Failure(text=f"nvidia-smi was ended by signal {-first.code}", remedy=f"{NVRM}; reinstall the driver")
    if first.code in {126, 127}:
        return Failure(text=f"nvidia-smi cannot be started: {_line(scene.said)}", remedy="reinstall the driver's tools")
    line = _line(scene.said)
    text = f"nvidia-smi ends with {first.code}" if first.code else "nvidia-smi tells of no GPU"
    return Failure(text=f"{text}: {line}" if line else text, remedy=NVRM)


def without_tool(scene: Scene) -> Failure:
    """Return what is missing where there is no nvidia-smi."""
    kernel = scene.kernel
    if kernel.wsl:
        return Failure(text="Windows passes an NVIDIA GPU on, but nvidia-smi is not here", remedy=WINDOWS)
    if not kernel.version and "nvidia" not in kernel.modules:
        return _unloaded(scene, "no driver is installed")
    text = f"the driver {kernel.version} is loaded, but nvidia-smi is not here".replace("  ", " ")
    if not kernel.container:
        return Failure(text=text, remedy="install the driver's tools (Debian: nvidia-smi; Ubuntu: nvidia-utils-…)")
    if not kernel.nodes:
        text = f"the host has the driver {kernel.version}, but this container was given no GPU".replace("  ", " ")
        return Failure(text=text, remedy=RECREATE)
    return Failure(text=text, remedy="recreate the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility")


def _mismatch(scene: Scene) -> Failure:
    told = _NVML.search(scene.said)
    library = told[1].rstrip(".") if told else scene.kernel.nvml
    versions = f"module {scene.kernel.version or 'unknown'}, library {library or 'unknown'}"
    where = "the host's driver was upgraded: reboot the host and " + RECREATE
    return Failure(
        text=f"driver/library version mismatch ({versions})",
        remedy=where if scene.kernel.container else f"reboot; or stop what uses the GPUs and {RELOAD}",
    )


def _no_driver(scene: Scene) -> Failure:
    kernel = scene.kernel
    if not kernel.version and "nvidia" not in kernel.modules:
        return _unloaded(scene, "the driver is not loaded")
    text = f"nvidia-smi does not reach the driver, although its module {kernel.version} is loaded".replace("  ", " ")
    if kernel.container:
        return Failure(text=text, remedy=RECREATE)
    return Failure(text=text, remedy=f"make its device nodes with `nvidia-modprobe -u -c 0`; {NVRM}")


def _unloaded(scene: Scene, otherwise: str) -> Failure:
    """Tell why no module is loaded, as far as the machine shows it."""
    kernel = scene.kernel
    if "nouveau" in kernel.modules or "nova_core" in kernel.modules:
        module = "nouveau" if "nouveau" in kernel.modules else "nova_core"
        held = f"{otherwise}: {module} holds the GPU, which cannot compute with it"
        return Failure(text=held, remedy=f"install NVIDIA's driver, `echo blacklist {module} "
                       f"> /etc/modprobe.d/{module}.conf`, renew the initramfs and reboot")  # fmt: skip
    if kernel.passed_on:
        return Failure(
            text=f"{otherwise}: vfio-pci holds the GPU for a virtual machine",
            remedy="use it in that machine, or take it out of the options of vfio-pci and reboot",
        )
    if kernel.container:
        return Failure(
            text=f"{otherwise}, as far as this container sees", remedy=f"mend it on the host, then {RECREATE}"
        )
    if kernel.built:
        return _built(scene, otherwise)
    if not scene.present:
        text = f"{otherwise}, and no NVIDIA device is on the PCI bus"
        return Failure(text=text, remedy="check with `lspci -d 10de:` that the GPU is seated, powered, passed through")
    if otherwise.startswith("no driver"):
        return Failure(text="an NVIDIA device is on the PCI bus, but no driver is installed", remedy=INSTALL)
    running = f" {kernel.release}" if kernel.release else ""
    headers = f"linux-headers-{kernel.release}" if kernel.release else "the kernel's headers"
    return Failure(
        text=f"{otherwise}: its module is not built for the running kernel{running}",
        remedy=f"`apt-get install {headers}`, `dkms autoinstall`, `modprobe nvidia`; or boot the kernel it is for",
    )


def _built(scene: Scene, otherwise: str) -> Failure:
    text = f"{otherwise}, although there is a module for the kernel {scene.kernel.release}"
    if scene.kernel.secure_boot:
        return Failure(
            text=f"{text}: Secure Boot refuses one that is not signed with an enrolled key",
            remedy="enrol the key with `mokutil --import /var/lib/dkms/mok.pub` and reboot; or turn Secure Boot off",
        )
    return Failure(text=text, remedy=f"`modprobe nvidia`; {NVRM}")


def _no_devices(scene: Scene) -> Failure:
    kernel = scene.kernel
    if kernel.container:
        return Failure(text="no devices were found: the container was given no GPU", remedy=RECREATE)
    if not scene.present and not kernel.gpus:
        return Failure(
            text="no devices were found: no NVIDIA device is on the PCI bus",
            remedy="check with `lspci -d 10de:` that the GPU is seated, powered, passed through",
        )
    other = {
        "open": "; GPUs before Turing need the proprietary module, 580 or older",
        "proprietary": "; GPUs since Blackwell need the open module (nvidia-open)",
    }.get(kernel.module, "")
    return Failure(text="no devices were found: the driver is loaded and could start no GPU", remedy=f"{NVRM}{other}")


def _unknown(scene: Scene) -> Failure:
    if scene.kernel.container:
        return Failure(
            text="NVML cannot be initialised: the container lost its access to the GPUs (systemd reloaded its cgroup)",
            remedy=f"{RECREATE}; CDI keeps the access",
        )
    return Failure(text="NVML cannot be initialised: Unknown Error", remedy=f"{NVRM}; reboot")


def _permissions(_scene: Scene) -> Failure:
    return Failure(
        text="NVML cannot be initialised: this user may not open /dev/nvidia*",
        remedy="`ls -l /dev/nvidia*`; `usermod -aG video,render USER` and log in again",
    )


def _wsl(scene: Scene) -> Failure:
    text = "the operating system blocks the access to the GPU"
    if scene.kernel.container:
        return Failure(text=text, remedy=RECREATE)
    return Failure(text=text, remedy=WINDOWS)


def _no_library(scene: Scene) -> Failure:
    return Failure(
        text="nvidia-smi finds no libnvidia-ml.so",
        remedy=RECREATE
        if scene.kernel.container
        else "reinstall the driver's libraries (libnvidia-compute-…), `ldconfig`",
    )


def _all_lost(scene: Scene) -> Failure:
    gpu = next(iter(lost(scene.said, scene.kernel)), Seen(index=0))
    return Failure(text=f"no GPU answers: {gpu.bus_id or f'GPU {gpu.index}'} is {gpu.failure}", remedy=remedy(gpu))


def _hangs(_scene: Scene) -> Failure:
    return Failure(
        text="nvidia-smi gives no answer in time",
        remedy=f"{NVRM}; many GPUs start slowly without `systemctl enable --now nvidia-persistenced`; else reboot",
    )


def _line(said: str) -> str:
    """Return the first line that is not drawn."""
    return next((line.strip() for line in said.splitlines() if not _RULE.fullmatch(line)), "")


CAUSES: Final[tuple[tuple[str, Callable[[Scene], Failure]], ...]] = (
    (r"Driver/library version mismatch", _mismatch),
    (r"couldn't communicate with the NVIDIA driver|Driver Not Loaded|driver is not loaded", _no_driver),
    (r"No devices were found|No devices found", _no_devices),
    (r"blocked by the operating system", _wsl),
    (r"couldn't find libnvidia-ml|libnvidia-ml\.so[^\n]*(?:No such file|not found)|NVML: .*Library", _no_library),
    (r"Unable to determine the device handle", _all_lost),
    (r"initialize NVML: (?:Insufficient|No) Permission", _permissions),
    (r"initialize NVML: Unknown Error", _unknown),
)  # fmt: skip
"""nvidia-smi's words -> what they mean here; its exit codes say less, and are 0 at times."""
