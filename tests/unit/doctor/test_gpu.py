"""GPUs: what keeps a driver, a module or a device file from working, and what mends it where."""

from dataclasses import replace

import pytest

from appliance.domain.host import Driver, Gpu, Slice
from appliance.domain.release import Release
from tests.unit.doctor.sound import ASKS, CUDA, LLM_ENGINE, SOUND, SYSTEMS, WORKS, facts, file, look, only

MISMATCH = Driver(vendor="nvidia", version="550.54", failure="Driver/library version mismatch", remedy="reboot")
GPU = CUDA.gpus[0]


def test_nothing_is_wrong_with_gpus_that_work() -> None:
    assert look(CUDA, facts(spec=ASKS)) == {}


def test_nothing_is_wrong_without_gpus() -> None:
    assert look(SOUND) == {}


def test_a_broken_driver_is_told_as_detection_says_it() -> None:
    found = only("gpu-driver-broken", replace(SOUND, drivers=(MISMATCH,), pci=("nvidia",)))
    assert (found.severity, found.subject, found.remedy) == ("error", "nvidia", ("reboot",))
    assert found.message == "Driver/library version mismatch (driver 550.54)"


def test_a_broken_driver_stops_no_installation_that_asks_for_no_gpu() -> None:
    host = replace(SOUND, drivers=(MISMATCH,))
    assert not only("gpu-driver-broken", host).prevents
    assert only("gpu-driver-broken", host, facts(spec=ASKS)).prevents


def test_a_broken_driver_stops_nothing_while_another_vendor_s_gpu_works() -> None:
    amd = Gpu(vendor="amd", index=0, uuid="", name="MI300X", memory=1 << 37, architecture="gfx942")
    host = replace(SOUND, drivers=(MISMATCH, Driver(vendor="amd", version="6.14")), gpus=(amd,))
    assert not only("gpu-driver-broken", host, facts(spec=ASKS)).prevents


def test_a_broken_driver_is_told_once_for_all_its_gpus() -> None:
    gpus = tuple(replace(gpu, failure=MISMATCH.failure) for gpu in CUDA.gpus)
    only("gpu-driver-broken", replace(CUDA, gpus=gpus, drivers=(MISMATCH,)))


def test_integrated_graphics_without_a_driver_are_a_warning() -> None:
    intel = Driver(vendor="intel", failure="neither xpu-smi nor sycl-ls is installed")
    graphics = Gpu(vendor="intel", index=0, uuid="", name="UHD", memory=None, failure="no kernel driver is bound to it")
    host = replace(SOUND, drivers=(intel,), pci=("intel",), gpus=(graphics,))
    assert only("gpu-driver-broken", host).severity == "warning"


def test_a_driver_that_is_to_be_installed_comes_with_this_distribution_s_commands() -> None:
    absent = Driver(vendor="nvidia", failure="no driver is installed", remedy="install NVIDIA's driver")
    found = only("gpu-driver-broken", replace(SOUND, drivers=(absent,), pci=("nvidia",)))
    assert found.remedy[-2:] == ("apt-get install nvidia-open", "reboot")


def test_a_device_that_no_driver_has_taken() -> None:
    found = only("gpu-driver-missing", replace(SOUND, pci=("nvidia",)))
    assert (found.severity, found.subject) == ("error", "nvidia")
    assert only("gpu-driver-missing", replace(SOUND, pci=("amd",))).severity == "warning"
    assert only("gpu-driver-missing", replace(SOUND, pci=("ascend",))).severity == "error"
    assert look(replace(SOUND, pci=("intel",))) == {}


@pytest.mark.parametrize(
    ("system", "command"),
    [
        ("debian", "apt-get install nvidia-open"),
        ("rocky", "dnf module enable nvidia-driver:580-open"),
        ("opensuse-leap", "zypper install nvidia-open"),
        ("arch", "pacman -S nvidia-open nvidia-utils"),
    ],
)
def test_a_driver_is_installed_the_way_of_the_distribution(system: str, command: str) -> None:
    found = only("gpu-driver-missing", replace(SYSTEMS[system], pci=("nvidia",)))
    assert command in found.remedy
    assert found.remedy[-1] == "reboot"


def test_ubuntu_has_the_driver_in_its_own_archive() -> None:
    host = replace(SOUND, os="ubuntu", os_version="24.04", pci=("nvidia",))
    assert only("gpu-driver-missing", host).remedy == ("apt-get install nvidia-driver-580-server-open", "reboot")


def test_an_unknown_distribution_gets_words() -> None:
    host = replace(SOUND, os="void", tools=(), pci=("nvidia",))
    assert look(host)["gpu-driver-missing"][0].remedy[0].startswith("install NVIDIA's driver 580 or newer")


def test_who_is_not_root_is_told_to_become_it() -> None:
    host = replace(SOUND, pci=("nvidia",), root=False)
    assert only("gpu-driver-missing", host).remedy[-2:] == ("sudo apt-get install nvidia-open", "sudo reboot")


def test_nouveau_in_place_of_nvidia_is_told_once() -> None:
    host = replace(SOUND, modules=("nouveau",), pci=("nvidia",), drivers=(MISMATCH,))
    found = only("gpu-nouveau", host)
    assert found.severity == "error"
    assert found.remedy[0].endswith('> /etc/modprobe.d/blacklist-nouveau.conf"')
    assert found.remedy[1] == "update-initramfs -u"
    assert found.remedy[-1] == "reboot"


def test_nouveau_beside_nvidia_is_a_warning() -> None:
    assert only("gpu-nouveau", replace(CUDA, modules=(*CUDA.modules, "nouveau"))).severity == "warning"


def test_the_kernel_s_newer_driver_is_known_too() -> None:
    assert only("gpu-nouveau", replace(SOUND, modules=("nova_core",), pci=("nvidia",))).subject == "nova_core"


def test_cuda_needs_nvidia_uvm() -> None:
    found = only("gpu-uvm-missing", replace(CUDA, modules=("nvidia",)), facts(uvm_node=False))
    assert found.remedy[:2] == ("modprobe nvidia_uvm", "nvidia-modprobe -u -c=0")
    assert not found.prevents
    assert only("gpu-uvm-missing", replace(CUDA, modules=("nvidia",)), facts(spec=ASKS)).prevents


def test_nvidia_uvm_needs_its_device_file() -> None:
    found = only("gpu-uvm-missing", CUDA, facts(uvm_node=False))
    assert found.remedy[0] == "nvidia-modprobe -u -c=0"


def test_a_container_cannot_load_modules() -> None:
    found = only("gpu-uvm-missing", replace(CUDA, container="docker"), facts(uvm_node=False))
    assert found.remedy[0].startswith("on the machine that runs this container")


def test_a_driver_too_old_for_every_build() -> None:
    host = replace(CUDA, drivers=(replace(WORKS, version="470.256.02"),))
    found = only("gpu-driver-old", host, facts(spec=ASKS))
    assert (found.severity, found.prevents) == ("error", True)
    assert found.message == ("driver 470.256.02 is too old for every GPU engine build: 525.60.13 at least, 580 will do")


def test_a_driver_for_cuda_12_only_is_a_warning() -> None:
    assert only("gpu-driver-old", replace(CUDA, drivers=(replace(WORKS, version="550.54.15"),))).severity == "warning"
    assert look(replace(CUDA, drivers=(replace(WORKS, version="580.65.06"),))) == {}


def test_a_gpu_that_cuda_13_dropped_needs_no_newer_driver() -> None:
    volta = replace(CUDA, gpus=(replace(GPU, compute_capability="7.0"),))
    assert look(replace(volta, drivers=(replace(WORKS, version="550.54.15"),))) == {}
    old = only("gpu-driver-old", replace(volta, drivers=(replace(WORKS, version="470.1"),)))
    assert "apt-get install cuda-drivers-580" in old.remedy


def test_the_catalog_says_what_the_lowest_driver_is() -> None:
    rows = tuple(
        Release(engine="vllm", version="1", accelerator=f"cuda{floor}", arch=("x86_64",), driver=floor)
        for floor in ("595.10", "585.20")
    )
    found = only("gpu-driver-old", CUDA, facts(releases=rows))
    assert "585.20 at least" in found.message


def test_a_gpu_that_fell_off_the_bus() -> None:
    host = replace(CUDA, gpus=(replace(GPU, failure="requires reset"), CUDA.gpus[1]))
    found = only("gpu-broken", host, facts(spec=ASKS))
    assert (found.subject, found.message) == ("nvidia:0", "NVIDIA L40S: requires reset")
    assert found.remedy[0] == "nvidia-smi --gpu-reset -i 0"
    assert not found.prevents  # the other one works


def test_all_gpus_broken_stop_an_installation_that_needs_one() -> None:
    host = replace(CUDA, gpus=tuple(replace(gpu, failure="requires reset") for gpu in CUDA.gpus))
    assert all(item.prevents for item in look(host, facts(spec=ASKS))["gpu-broken"])


def test_mig_without_instances() -> None:
    found = only("gpu-mig-empty", replace(CUDA, gpus=(replace(GPU, partitioned=True),)), facts(spec=ASKS))
    assert found.prevents
    assert "or: nvidia-smi -i 0 -mig 0" in found.remedy
    part = Slice(index=0, uuid="MIG-1", profile="1g.10gb", memory=10 << 30)
    assert look(replace(CUDA, gpus=(replace(GPU, partitioned=True, slices=(part,)),))) == {}


def test_a_device_file_that_the_engines_user_may_not_open() -> None:
    amd = replace(
        SOUND,
        gpus=(Gpu(vendor="amd", index=0, uuid="", name="MI300X", memory=1 << 37),),
        drivers=(Driver(vendor="amd", version="6.14"),),
    )
    nodes = (file("/dev/kfd", 0o660, gid=44), file("/dev/dri/renderD128", 0o660, gid=105))
    found = only("gpu-device-denied", amd, facts(nodes=nodes, engine=LLM_ENGINE))
    assert found.message == "llm-engine may not open /dev/kfd, /dev/dri/renderD128"
    assert found.remedy[0] == "usermod -aG render,video llm-engine"
    in_groups = replace(LLM_ENGINE, gids=(44, 105))
    assert look(amd, facts(nodes=nodes, engine=in_groups)) == {}
    assert look(amd, facts(nodes=nodes, engine=replace(LLM_ENGINE, uid=-1))) == {}


def test_nvidia_s_device_files_that_were_closed() -> None:
    nodes = (file("/dev/nvidiactl", 0o660, gid=44),)
    found = only("gpu-device-denied", CUDA, facts(nodes=nodes, engine=LLM_ENGINE))
    assert "NVreg_DeviceFileMode" in found.remedy[0]


def test_wsl_gets_its_gpu_from_windows() -> None:
    host = replace(SOUND, container="wsl")
    assert look(host) == {}
    assert "wsl --update" in only("gpu-wsl", host, facts(spec=ASKS)).remedy[0]
    assert "in Windows" in only("gpu-wsl", host, facts(wsl_node=True)).remedy[0]
    assert look(replace(CUDA, container="wsl"), facts(wsl_node=True)) == {}
