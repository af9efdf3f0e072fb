"""The vendors beside NVIDIA, each as a whole: what is asked, what files add, and how broken differs from absent."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from appliance.detect.gpu import (
    Found,
    Vendor,
    _ask,
    _kfd,
    _pci,
    _text,
    amd,
    ascend,
    hygon,
    intel,
    metax,
    moore_threads,
    vendors,
)
from appliance.domain.changes import Command, Completed
from appliance.domain.host import Driver, Gpu
from appliance.system.machine import OnLine
from tests.unit.recorded import Answer, Argv, RecordedMachine

ALL: tuple[Any, ...] = (amd, ascend, hygon, intel, metax, moore_threads)
PROBES = Path(__file__).parents[2] / "probes"
TOOL = {"amd": "amd_smi", "intel": "xpu_smi", "ascend": "npu_smi", "metax": "mx_smi", "moore-threads": "mthreads_gmi",
        "hygon": "hy_smi"}  # fmt: skip
LATE = Answer(code=124, stderr="still running after 5 s")
KFD = "/sys/class/kfd/kfd/topology/nodes"


def said(case: str) -> str:
    """Return what a tool of the probe cases printed."""
    return str(yaml.safe_load((PROBES / f"{case}.yaml").read_text()).get("stdout", ""))


def machine(
    *programs: str, files: dict[str, str] | None = None, answers: dict[Argv, Answer] | None = None
) -> RecordedMachine:
    return RecordedMachine(
        programs={name: f"/usr/bin/{name}" for name in programs},
        files={path: text.encode() for path, text in (files or {}).items()},
        answers=answers,
    )


def pci(bus_id: str, vendor: str, device: str = "0000", kind: str = "038000", numa: str = "-1") -> dict[str, str]:
    """Return the files of a device on the bus."""
    here = f"/sys/bus/pci/devices/{bus_id}"
    facts = {"vendor": f"0x{vendor}", "device": f"0x{device}", "class": f"0x{kind}", "numa_node": numa}
    return {f"{here}/{name}": f"{value}\n" for name, value in facts.items()}


def node(number: int, *, gfx: int = 90402, place: int = 0x500, unique: int = 7, vendor: int = 4098, bank: int = 1 << 34,
         minor: int = 128, held: int = 1 << 30, gtt: int = 1 << 32) -> dict[str, str]:  # fmt: skip
    """Return the files of one GPU that the compute driver lists."""
    card = f"/sys/class/drm/renderD{minor}/device"
    return {
        f"{KFD}/{number}/properties": f"simd_count 1216\ngfx_target_version {gfx}\nvendor_id {vendor}\n"
        f"location_id {place}\ndomain 0\ndrm_render_minor {minor}\nunique_id {unique}\n",
        f"{KFD}/{number}/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {bank}\n",
        f"{card}/mem_info_vram_used": f"{held}\n",
        f"{card}/mem_info_gtt_total": f"{gtt}\n",
    }


CPU_NODE = {f"{KFD}/0/properties": "cpu_cores_count 48\nsimd_count 0\ngfx_target_version 0\nvendor_id 0\n"}
AMDGPU = {"/sys/module/amdgpu/version": "6.12.12\n", "/sys/module/amdgpu/initstate": "live\n"}


def driver(found: Found) -> Driver:
    assert found.driver is not None
    return found.driver


# --- What every vendor's module holds


def test_the_six_are_found_by_discovery() -> None:
    assert {module.VENDOR for module in ALL} <= {vendor.VENDOR for vendor in vendors()}


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.VENDOR)
def test_a_module_is_a_vendor(module: Vendor) -> None:
    assert module.PCI
    assert all(len(vendor) == 4 and int(vendor, 16) and vendor == vendor.lower() for vendor in module.PCI)
    assert module.TOOLS
    assert module.MODULES


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.VENDOR)
def test_no_sign_no_question(module: Vendor) -> None:
    nothing = machine(files={"/dev/null": "", "/sys/bus/pci/devices/0000:00:1f.2/vendor": "0x8086\n"})
    assert module.probe(nothing, False) == Found()
    assert nothing.effects == []


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.VENDOR)
def test_hardware_without_driver_and_tool_is_broken_and_has_a_remedy(module: Vendor) -> None:
    kind = "120000" if module is ascend else "030000"
    found = module.probe(machine(files=pci("0000:41:00.0", module.PCI[0], kind=kind)), True)
    assert found.gpus == ()
    assert (driver(found).vendor, found.silent) == (module.VENDOR, ())
    assert driver(found).failure
    assert driver(found).remedy


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.VENDOR)
def test_a_tool_that_hangs_is_silent_and_asked_once(module: Vendor) -> None:
    modules = {f"/sys/module/{name}/initstate": "live" for name in module.MODULES}
    hung = machine(*module.TOOLS, files=modules, answers={(): LATE})
    found = module.probe(hung, True)
    assert found.silent == (module.TOOLS[0],)
    assert driver(found).failure == f"{module.TOOLS[0]} gave no answer in 5 s"
    assert "hangs" in driver(found).remedy
    assert len(hung.ran()) == 1


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.VENDOR)
def test_a_tool_that_fails_where_no_hardware_is(module: Vendor) -> None:
    failing = machine(module.TOOLS[0], answers={(): Answer(code=1, stderr="Error: something odd\n")})
    found = module.probe(failing, False)
    if module is intel:
        assert found == Found(), "other vendors have a tool of that name"
    else:
        assert driver(found).failure == f"{module.TOOLS[0]} ends with 1: Error: something odd"
        assert "PCI bus" in driver(found).remedy
    assert len(failing.ran()) <= 3


@pytest.mark.parametrize(
    ("module", "path"),
    [
        (amd, "/opt/rocm/bin/amd-smi"),
        (amd, "/opt/rocm/bin/rocm-smi"),
        (hygon, "/opt/hyhal/bin/hy-smi"),
        (metax, "/opt/mxdriver/bin/mx-smi"),
        (ascend, "/usr/local/sbin/npu-smi"),
        (moore_threads, "/usr/local/musa/bin/mthreads-gmi"),
        (intel, "/opt/intel/oneapi/compiler/latest/bin/sycl-ls"),
    ],
)
def test_a_tool_outside_path_is_called_by_its_path(module: ModuleType, path: str) -> None:
    here = machine(files={path: "", **AMDGPU})
    module.probe(here, True)
    assert here.ran()[0][0] == path


class Watching(RecordedMachine):
    """Keeps the commands as they were asked."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self.asked: list[Command] = []

    def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
        self.asked.append(command)
        return super().run(command, on_line=on_line)


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.VENDOR)
def test_questions_are_few_and_short(module: Vendor) -> None:
    here = Watching(
        programs={name: name for name in module.TOOLS},
        answers={(): Answer(stdout="nothing of use\n")},
        files={path: text.encode() for path, text in AMDGPU.items()},
    )
    module.probe(here, True)
    assert 1 <= len(here.asked) <= 4
    assert all(command.timeout <= 5 for command in here.asked)


def test_several_vendors_side_by_side() -> None:
    answers: dict[Argv, Answer] = {
        ("npu-smi", "info"): Answer(stdout=said("npu_smi/910b3")),
        ("mx-smi",): Answer(stdout=said("mx_smi/c550_two_of_eight")),
        ("xpu-smi",): Answer(stdout=said("xpu_smi/b580_dump")),
    }
    here = machine("npu-smi", "mx-smi", "xpu-smi", answers=answers, files={**CPU_NODE, **node(1), **AMDGPU})
    found = {module.VENDOR: module.probe(here, True) for module in (amd, ascend, intel, metax)}
    assert {name: len(one.gpus) for name, one in found.items()} == {"amd": 1, "ascend": 1, "intel": 1, "metax": 2}
    assert not any(driver(one).failure for one in found.values())


# --- AMD


def test_amd_without_tools_is_told_by_sysfs() -> None:
    files = {
        **CPU_NODE,
        **node(1),
        **node(10, place=0x2600, unique=8, minor=129),
        **AMDGPU,
        **pci("0000:05:00.0", "1002", numa="1"),
        "/opt/rocm/.info/version": "7.2.1-43\n",
        "/sys/class/drm/renderD128/device/product_name": "AMD Instinct MI300X OAM\n",
    }
    here = machine(files=files)
    found = amd.probe(here, True)
    assert found.gpus == (
        Gpu(vendor="amd", index=0, uuid="GPU-0000000000000007", name="AMD Instinct MI300X OAM", memory=1 << 34,
            memory_free=15 << 30, architecture="gfx942", bus_id="0000:05:00.0", numa_node=1),
        Gpu(vendor="amd", index=1, uuid="GPU-0000000000000008", name="gfx942", memory=1 << 34,
            memory_free=15 << 30, architecture="gfx942", bus_id="0000:26:00.0"),
    )  # fmt: skip
    assert found.driver == Driver(vendor="amd", version="6.12.12", api="7.2.1")
    assert here.ran() == []


def test_amd_joins_sysfs_and_the_tool_by_address() -> None:
    files = {
        **CPU_NODE,
        **node(1, place=0x2600, unique=0xABC),
        **node(2, place=0x0500, unique=0xDEF, minor=129),
        **AMDGPU,
    }
    here = machine(
        "amd-smi", files=files, answers={("amd-smi", "static"): Answer(stdout=said("amd_smi/mi300x_x8_list"))}
    )
    found = amd.probe(here, True)
    assert len(found.gpus) == 8, "what only one of them lists is listed"
    first, second = found.gpus[:2]
    assert (first.bus_id, first.uuid, first.name) == ("0000:05:00.0", "GPU-0000000000000def", "AMD Instinct MI300X")
    assert (second.bus_id, second.uuid) == ("0000:26:00.0", "GPU-0000000000000abc")
    assert first.memory == 196592 << 20
    assert first.memory_free == 15 << 30, "from sysfs, which alone knows it"


def test_amd_falls_back_from_tool_to_tool() -> None:
    answers: dict[Argv, Answer] = {
        ("amd-smi",): Answer(code=1, stderr="Traceback (most recent call last):\nModuleNotFoundError: amdsmi\n"),
        ("rocm-smi",): Answer(stdout=said("rocm_smi/rx_7900_xtx_json")),
    }
    found = amd.probe(machine("amd-smi", "rocm-smi", files=AMDGPU, answers=answers), True)
    assert [gpu.name for gpu in found.gpus] == ["Radeon RX 7900 XTX"]
    assert driver(found) == Driver(vendor="amd", version="6.12.12")


def test_amd_second_tool_that_hangs_is_named() -> None:
    answers: dict[Argv, Answer] = {("amd-smi",): Answer(code=1, stderr="odd"), ("rocm-smi",): LATE}
    here = machine("amd-smi", "rocm-smi", files={**AMDGPU, **node(1)}, answers=answers)
    found = amd.probe(here, True)
    assert (len(found.gpus), found.silent) == (1, ("rocm-smi",))
    assert driver(found).failure == "rocm-smi gave no answer in 5 s", "the card is listed, and its driver is not well"


def test_amd_parts_of_a_card_do_not_share_an_identifier() -> None:
    files = {**node(1), **node(2, place=0x10000500, minor=129), **AMDGPU}
    gpus = amd.probe(machine(files=files), True).gpus
    assert [(gpu.index, gpu.uuid, gpu.bus_id) for gpu in gpus] == [(0, "", "0000:05:00.0"), (1, "", "0000:05:00.0")]


@pytest.mark.parametrize(
    ("bank", "gtt", "memory"), [(512 << 20, 60 << 30, None), (96 << 30, 15 << 30, 96 << 30), (60 << 30, 60 << 30, None)]
)
def test_amd_integrated_gpus_share_memory_but_for_what_firmware_set_aside(
    bank: int, gtt: int, memory: int | None
) -> None:
    here = machine(files={**node(1, gfx=110501, bank=bank, gtt=gtt, unique=0), **AMDGPU})
    (gpu,) = amd.probe(here, True).gpus
    assert (gpu.architecture, gpu.unified, gpu.memory, gpu.uuid) == ("gfx1151", True, memory, "")
    assert (gpu.memory_free is None) == (memory is None)


def test_amd_module_that_is_not_loaded() -> None:
    here = machine("rocm-smi", files=pci("0000:05:00.0", "1002", "74a1", "120000"))
    found = amd.probe(here, True)
    assert driver(found).failure == "the kernel module amdgpu is not loaded"
    assert "modprobe amdgpu" in driver(found).remedy
    assert here.ran() == [], "it is known already"


def test_amd_loaded_but_listing_nothing() -> None:
    found = amd.probe(machine(files=AMDGPU), True)
    assert driver(found).failure == "amdgpu is loaded, but /sys/class/kfd lists no GPU"
    assert "/dev/kfd" in driver(found).remedy


def test_amd_groups_bar_a_user_and_not_root() -> None:
    text = said("amd_smi/mi250x_two_dies_with_noise")
    for uid, failure in ((1000, True), (0, False)):
        files = {**AMDGPU, "/proc/self/status": f"Name:\tpython\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"}
        found = amd.probe(machine("amd-smi", files=files, answers={("amd-smi",): Answer(stdout=text)}), True)
        assert len(found.gpus) == 2
        assert ("required groups" in driver(found).failure, bool(driver(found).remedy)) == (failure, failure)


def test_amd_does_not_take_hygons_cards_for_its_own() -> None:
    files = {
        **node(1, gfx=90306, vendor=0x1D94),
        "/sys/module/hycu/initstate": "live",
        "/opt/dtk/.info/version": "26.04",
    }
    answers: dict[Argv, Answer] = {("rocm-smi",): Answer(stdout=said("rocm_smi/of_hygon"))}
    here = machine("rocm-smi", files=files, answers=answers)
    assert amd.probe(here, False) == Found()
    assert here.ran() == []
    found = hygon.probe(here, True)
    assert [(gpu.vendor, gpu.architecture, gpu.memory) for gpu in found.gpus] == [("hygon", "gfx936", 1 << 34)]
    assert driver(found).api == "26.04"


@pytest.mark.parametrize("model", ["515e", "4752"])
def test_amd_console_of_an_old_server_is_no_accelerator(model: str) -> None:
    assert amd.probe(machine(files=pci("0000:01:03.0", "1002", model, "030000")), True) == Found()


def test_amd_card_handed_to_a_virtual_machine_is_not_missed() -> None:
    files = {**pci("0000:05:00.0", "1002", "744c", "030000"), "/sys/bus/pci/drivers/vfio-pci/0000:05:00.0/uevent": ""}
    assert amd.probe(machine(files=files), True) == Found()


# --- Intel


def test_intel_graphics_of_a_processor_is_nothing_broken() -> None:
    here = machine(files={**pci("0000:00:02.0", "8086", "a780", "030000"), "/sys/module/i915/initstate": "live"})
    assert intel.probe(here, True) == Found(driver=Driver(vendor="intel"))
    assert here.ran() == []


def test_intel_other_accelerators_are_no_gpus() -> None:
    here = machine(
        files={**pci("0000:6b:00.0", "8086", "4940", "0b4000"), **pci("0000:00:0b.0", "8086", "7d1d", "120000")}
    )
    assert driver(intel.probe(here, True)).failure == ""


def test_intel_card_that_no_module_drives() -> None:
    here = machine(
        "xpu-smi",
        files=pci("0000:03:00.0", "8086", "e20b", "030000"),
        answers={(): Answer(stdout="No device discovered\n")},
    )
    found = intel.probe(here, True)
    assert driver(found).failure == "neither xe nor i915 drives 0000:03:00.0"
    assert "modprobe xe" in driver(found).remedy


def test_intel_card_without_tools() -> None:
    files = {**pci("0000:03:00.0", "8086", "e20b", "030000"), "/sys/bus/pci/drivers/xe/0000:03:00.0/uevent": ""}
    found = intel.probe(machine(files=files), True)
    assert driver(found).failure == "neither xpu-smi nor sycl-ls is installed, to tell of 1 card(s) on the PCI bus"
    assert "xpu-smi" in driver(found).remedy


def test_intel_card_handed_to_a_virtual_machine_is_not_missed() -> None:
    files = {**pci("0000:03:00.0", "8086", "e20b", "030000"), "/sys/bus/pci/drivers/vfio-pci/0000:03:00.0/uevent": ""}
    found = intel.probe(
        machine("sycl-ls", files=files, answers={(): Answer(stdout=said("sycl_ls/arc_and_igpu"))}), True
    )
    assert driver(found).failure == ""


def test_intel_asks_for_all_memory_at_once_then_for_less() -> None:
    answers: dict[Argv, Answer] = {
        ("xpu-smi", "discovery", "--dump"): Answer(
            code=106, stdout="The following argument was not expected: --dump\n"
        ),
        ("xpu-smi", "discovery", "-j"): Answer(stdout=said("xpu_smi/json_with_igpu_and_noise")),
    }
    here = machine("xpu-smi", answers=answers, files=pci("0000:03:00.0", "8086", "56a0", numa="0"))
    found = intel.probe(here, False)
    assert [(gpu.memory, gpu.unified, gpu.numa_node) for gpu in found.gpus] == [
        (None, True, None),
        (15473 << 20, False, 0),
    ]
    assert len(here.ran()) == 2


# --- Ascend


def test_ascend_versions_and_libraries() -> None:
    files = {
        "/dev/davinci0": "",
        "/dev/davinci_manager": "",
        "/usr/local/Ascend/driver/version.info": "Version=24.1.rc3\nascendhal_version=7.35.23\npackage_version=24.1.rc3\n",
        "/usr/local/Ascend/ascend-toolkit/latest/aarch64-linux/ascend_toolkit_install.info":
            "package_name=Ascend-cann-toolkit\nversion=8.2.RC1\ninnerversion=V100R001C22\narch=aarch64\n",
    }  # fmt: skip
    here = Watching(
        programs={"npu-smi": "/usr/local/sbin/npu-smi"},
        answers={("npu-smi", "info"): Answer(stdout=said("npu_smi/310b4_alarm"))},
        files={path: text.encode() for path, text in files.items()},
    )
    found = ascend.probe(here, False)
    assert driver(found) == Driver(vendor="ascend", version="24.1.rc3", api="8.2.RC1")
    assert dict(here.asked[0].env)["LD_LIBRARY_PATH"].startswith("/usr/local/Ascend/driver/lib64")


def test_ascend_console_of_a_huawei_server_is_no_npu() -> None:
    assert ascend.probe(machine(files=pci("0000:02:00.0", "19e5", "1711", "030000")), True) == Found()


def test_ascend_devices_without_the_tool() -> None:
    found = ascend.probe(machine(files={"/dev/davinci0": ""}), False)
    assert driver(found).failure == "npu-smi is not installed"
    assert "/usr/local/Ascend/driver" in driver(found).remedy


# --- Hygon


def test_hygon_takes_from_sysfs_what_all_its_cards_share() -> None:
    files = {
        **node(1, gfx=90306, vendor=0x1D94),
        **node(2, gfx=90306, vendor=0x1D94, place=0x600),
        "/sys/module/hycu/version": "6.3.31\n",
    }
    answers: dict[Argv, Answer] = {
        ("hy-smi", "--showproductname"): Answer(code=2, stderr="hy-smi: error: unrecognized arguments: --json\n"),
        ("hy-smi",): Answer(stdout=said("hy_smi/bw1000_table")),
    }
    here = machine("hy-smi", files=files, answers=answers)
    found = hygon.probe(here, True)
    assert [(gpu.index, gpu.architecture, gpu.memory) for gpu in found.gpus] == [(i, "gfx936", 1 << 34) for i in (0, 1)]
    assert driver(found) == Driver(vendor="hygon", version="6.3.31")
    assert len(here.ran()) == 2


# --- The small readers


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("0000:C1:00.0", "0000:c1:00.0"),
        ("00000000:18:00.0", "0000:18:00.0"),
        ("00010000:18:00.0", "10000:18:00.0"),
        ("3:00.0", "0000:03:00.0"),
        ("NA", ""),
        ("0000:18:00", ""),
        ("", ""),
    ],
)
def test_addresses(text: str, want: str) -> None:
    assert _pci.address(text) == want


@pytest.mark.parametrize(
    ("value", "unit", "want"),
    [
        ("32624 MB", "B", 32624 << 20),
        ("25753026560", "B", 25753026560),
        ("206,158,430,208", "B", 206158430208),
        ("15473.00 MiB", "B", 15473 << 20),
        ({"value": 196592, "unit": "MB"}, "B", 196592 << 20),
        ({"value": "N/A", "unit": "MB"}, "B", None),
        (65520, "MiB", 65520 << 20),
        ("1.5 GiB", "B", 3 << 29),
        ("8%", "MiB", None),
        ("N/A", "MiB", None),
        ("1e+22", "MiB", None),
        (float("inf"), "MiB", None),
        (True, "MiB", None),
        ("²", "MiB", None),
        (None, "MiB", None),
    ],
)
def test_sizes(value: object, unit: str, want: int | None) -> None:
    assert _text.size(value, unit) == want


@pytest.mark.parametrize(
    ("version", "want"),
    [(90402, "gfx942"), (110000, "gfx1100"), (90010, "gfx90a"), (120001, "gfx1201"), (110501, "gfx1151"), (0, "")],
)
def test_names_of_processors(version: int, want: str) -> None:
    assert _kfd.architecture(version) == want


# --- Laws


LINES = st.sampled_from(sorted({line for path in PROBES.glob("*/*.yaml") if path.parent.name in {*TOOL.values(), "rocm_smi", "sycl_ls"}
                                for line in str(yaml.safe_load(path.read_text()).get("stdout", "")).splitlines()}))  # fmt: skip
MIXED = st.lists(st.one_of(LINES, st.text(max_size=30)), max_size=14).map("\n".join)
WHOLE = st.sampled_from(
    sorted(path for path in PROBES.glob("*/*.yaml") if path.parent.name in {*TOOL.values(), "rocm_smi", "sycl_ls"})
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Return a real answer with a piece cut out, a piece put in, and perhaps other ends of lines."""
    text = str(yaml.safe_load(draw(WHOLE).read_text()).get("stdout", ""))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, len(text)))
    text = text[:start] + draw(st.text(max_size=6)) + text[end:]
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


@given(
    text=st.one_of(st.text(), MIXED, damaged()),
    errors=st.text(max_size=40),
    code=st.sampled_from([0, 1, 2, 124, 127, 255, -11]),
)
def test_no_text_makes_a_reader_raise(text: str, errors: str, code: int) -> None:
    for module in ALL:
        done = Completed(argv=(module.TOOLS[0],), code=code, stdout=text, stderr=errors, seconds=0)
        found = module.parse(done)
        assert found.driver is not None
        assert found.gpus or found.driver.failure, "nothing listed is a failure, and has a reason"
        assert not found.driver.failure or found.driver.remedy
        assert "\n" not in found.driver.failure
        assert all(gpu.vendor == module.VENDOR and gpu.index >= 0 for gpu in found.gpus)
        assert all(gpu.memory is None or gpu.memory_free is None or gpu.memory_free >= 0 for gpu in found.gpus)


@given(text=st.one_of(st.text(max_size=200), MIXED), present=st.booleans())
def test_no_file_and_no_answer_makes_a_probe_raise(text: str, present: bool) -> None:
    paths = [*node(1), *CPU_NODE, *AMDGPU, *pci("0000:05:00.0", "1002"), "/proc/self/status", "/opt/rocm/.info/version",
             "/usr/local/musa/version.json", "/opt/dtk/.info/version", "/usr/local/Ascend/driver/version.info",
             "/usr/local/Ascend/cann/aarch64-linux/ascend_toolkit_install.info", "/sys/module/hycu/version"]  # fmt: skip
    for module in ALL:
        here = machine(*module.TOOLS, files=dict.fromkeys(paths, text), answers={(): Answer(stdout=text)})
        assert isinstance(module.probe(here, present), Found)


@given(path=WHOLE, keep=st.integers(0, 4000))
def test_what_is_cut_off_lists_no_more_than_the_whole(path: Path, keep: int) -> None:
    text = str(yaml.safe_load(path.read_text()).get("stdout", ""))
    for module in ALL:
        every, part = (
            module.parse(Completed(argv=("tool",), code=0, stdout=one, stderr="", seconds=0)).gpus
            for one in (text, text[:keep])
        )
        assert len(part) <= len(every)
        assert {gpu.bus_id for gpu in part} <= {"", *(gpu.bus_id for gpu in every)}


@pytest.mark.parametrize("path", sorted(PROBES.glob("hy_smi/*.yaml")), ids=lambda path: path.stem)
def test_amd_reads_no_answer_of_hygons_tools(path: Path) -> None:
    text = str(yaml.safe_load(path.read_text()).get("stdout", ""))
    assert amd.parse(Completed(argv=("rocm-smi",), code=0, stdout=text, stderr="", seconds=0)).gpus == ()


@pytest.mark.parametrize("noise", ["[" * 5000, "{" * 5000, "[1] " * 1000, "1" * 100000, "| " * 20000, "0 " * 50000])
def test_long_noise_is_read_in_no_time(noise: str) -> None:
    for module in ALL:
        module.parse(Completed(argv=("tool",), code=0, stdout=noise, stderr="", seconds=0))


@given(text=st.text())
def test_a_complaint_is_one_line(text: str) -> None:
    said = _ask.complaint(Completed(argv=("tool",), code=1, stdout=text, stderr="", seconds=0))
    assert len(said) <= _ask.LONGEST
    assert len(said.splitlines()) <= 1
