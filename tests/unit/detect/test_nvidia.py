"""Laws of the NVIDIA readers: no text makes one fail, and what is rendered is read back; the tool is never waited for."""

import string
import time
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.detect import gpu as vendors
from appliance.detect.gpu import Vendor, nvidia
from appliance.detect.gpu.nvidia import kernel, listing, models, query, table, tool, topology
from appliance.detect.gpu.nvidia.cells import Seen, bus_id, size, told, version
from appliance.domain.changes import Command, Completed
from appliance.domain.host import GpuProcess, Slice
from appliance.system.machine import OnLine
from tests.unit.recorded import Answer, RecordedMachine

SMI = {"nvidia-smi": "/usr/bin/nvidia-smi"}
PROBES = Path(__file__).parents[2] / "probes" / "nvidia"
RECORDED = [path.read_text() for path in sorted(PROBES.glob("*/*.yaml"))]
VENDOR: Vendor = nvidia


# What no reader may choke on: anything at all, pieces of the grammar in any order, and recorded texts with parts missing.
PIECES = st.sampled_from([
    "|", "||", "\n", "\r\n", "\t", "   ", ",", ", ", "+---+", "GPU", "GPU0", "GPU 0: ", "MIG", "MIG 1g.10gb", "  Device  0: ", "(UUID: ",
    ")", "GPU-0a1b2c3d", "0", "1", "12", "99999999999999999999", "N/A", "[N/A]", "ERR!", "[GPU requires reset]", "Not Supported", "On",
    "Off", "00000000:07:00.0", "0:0", "FFFFFFFF:FF:FF.7", "63W / 400W", "0MiB / 81920MiB", "12MiB", "MiB /", "P0", "30C", "0%",
    "MIG devices:", "Processes:", "Driver Version: ", "KMD Version: ", "CUDA Version: ", "CUDA UMD Version: ", "12.4", "550.54.15", "C+G",
    "Unable to determine the device handle for GPU", "Unknown Error", 'Field "compute_cap" is not a valid field to query.', "X", "NV18",
    "SYS", "CPU Affinity", "\x1b[4m", "NVRM version: ", "Kernel Module  ", "Bus Location: ", "Model: ", "No devices were found", "²", "٣",
])  # fmt: skip
LOOSE = st.lists(PIECES, max_size=60).map("".join)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(RECORDED))
    begin, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    return text[:begin] + draw(st.sampled_from(["", "\n", "|", "\0", " " * 40])) + text[end:]


TEXTS = st.one_of(
    st.text(max_size=400), st.binary(max_size=400).map(lambda raw: raw.decode(errors="replace")), LOOSE, damaged()
)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_no_text_makes_a_reader_fail(text: str) -> None:
    table.parse(text)
    listing.parse(text)
    topology.parse(text)
    query.parse(text)
    query.parse_apps(text)
    query.unknown(text)
    kernel.parse_version(text)
    kernel.parse_modules(text)
    kernel.parse_information(text, 0, text)
    kernel.parse_jetson(text)
    kernel.parse_chip(text, text)
    models.capability(text)
    models.integrated(text, text)
    models.api(text)
    models.jetson_api(text)
    for cell in text.split("|"):
        told(cell), size(cell), version(cell), bus_id(cell)


@settings(max_examples=150, deadline=None)
@given(
    said=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS),
    stderr=st.one_of(st.just(""), LOOSE),
    code=st.sampled_from([0, 2, 9, 15, 124, 126, 127, 255, -9, -11]),
    files=st.dictionaries(
        st.sampled_from([
            kernel.VERSION, f"{kernel.GPUS}/0000:01:00.0/information", "/proc/modules", "/proc/device-tree/model", "/.dockerenv",
            "/proc/device-tree/compatible", "/etc/nv_tegra_release", "/dev/dxg", "/dev/nvidia0", "/usr/lib/wsl/lib/libcuda.so.1",
            "/sys/bus/pci/devices/0000:01:00.0/numa_node", kernel.SECURE_BOOT, "/proc/sys/kernel/osrelease",
        ]),
        st.one_of(st.binary(max_size=80), LOOSE.map(str.encode)),
    ),
    present=st.booleans(),
    there=st.booleans(),
)  # fmt: skip
def test_no_machine_makes_the_probe_fail(
    said: tuple[str, ...], stderr: str, code: int, files: dict[str, bytes], present: bool, there: bool
) -> None:
    questions = ((), ("-L",), ("topo",), (query.APPS[0],), (query.gpus()[0],))
    answers = {
        ("nvidia-smi", *words): Answer(stdout=text, stderr=stderr, code=code)
        for words, text in zip(questions, said, strict=True)
    }
    found = nvidia.probe(RecordedMachine(answers=answers, files=files, programs=SMI if there else {}), present)
    assert found.driver or not (there or present)
    if found.driver:
        assert found.driver.failure or any(not gpu.failure for gpu in found.gpus)
        assert bool(found.driver.failure) == bool(found.driver.remedy)
    for gpu in found.gpus:
        assert not (gpu.unified and gpu.memory is not None)
        assert gpu.index >= 0


# What is rendered as the tool renders it is read back.
MIB = st.integers(1, 999_999_999)
HEX = "0123456789ABCDEF"
BUS = st.builds(
    lambda domain, bus, device, function: (domain, bus, device, function),
    st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7),
)  # fmt: skip
NAMES = st.sampled_from([
    "Tesla T4", "NVIDIA A100-SXM4-80GB", "NVIDIA TITAN X (Pascal)", "NVIDIA RTX 6000 Ada Generation", "GRID V100D-8Q",
    "NVIDIA GeForce RTX 3060 Ti", "NVIDIA H100 80GB HBM3", "NVIDIA L40S", "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
])  # fmt: skip
INVENTED = st.text(string.ascii_letters + string.digits + " ()-.+/", min_size=1, max_size=40).map(
    lambda name: "X" + " ".join(name.split())
)
UUIDS = st.uuids().map(lambda uuid: f"GPU-{uuid}")


def printed(bus: tuple[int, int, int, int]) -> str:
    domain, number, device, function = bus
    return f"{domain:08X}:{number:02X}:{device:02X}.{function}"


def sysfs(bus: tuple[int, int, int, int]) -> str:
    domain, number, device, function = bus
    return f"{domain:04x}:{number:02x}:{device:02x}.{function}"


GPUS = st.lists(
    st.tuples(UUIDS, st.one_of(NAMES, INVENTED), MIB, st.integers(0, 100), BUS, st.booleans(), st.sampled_from(["7.5", "8.0", "10.3"])),
    min_size=1, max_size=16,
)  # fmt: skip
NOISE = st.sampled_from(
    ["", "WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n", "\n\n", "/usr/lib/python3/x.py:1: UserWarning: a\n"]
)
END = st.sampled_from(["\n", "\r\n"])


@given(gpus=GPUS, noise=NOISE, end=END, absent=st.sampled_from(["[N/A]", "[Not Supported]", "N/A"]))
def test_rows_are_read_back(gpus: list[tuple], noise: str, end: str, absent: str) -> None:  # type: ignore[type-arg]
    rows = [
        f"{index}, {uuid}, {name}, {total}, {total * free // 100}, {capability}, {'Enabled' if mig else absent}, {printed(bus)}, 550.54.15, P0, 31"
        for index, (uuid, name, total, free, bus, mig, capability) in enumerate(gpus)
    ]
    assert query.parse(noise + end.join(rows) + end + noise) == tuple(
        Seen(
            index=index, uuid=uuid, name=name, memory=total << 20, memory_free=(total * free // 100) << 20, mig=mig,
            capability=capability, bus_id=sysfs(bus), driver="550.54.15",
        )
        for index, (uuid, name, total, free, bus, mig, capability) in enumerate(gpus)
    )  # fmt: skip


@given(
    gpus=GPUS, noise=NOISE, end=END, widths=st.tuples(*[st.integers(0, 50)] * 3), new=st.booleans(), mode=st.sampled_from(["On", "Off", "N/A", "WDDM"]),
    processes=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 4_194_304), st.sampled_from(["python3", "/opt/a b/run --x 1", "VLLM::Worker"]), MIB)),
    slices=st.lists(st.tuples(st.integers(0, 15), st.integers(1, 14), st.integers(0, 6), MIB)),
)  # fmt: skip
def test_tables_are_read_back(
    gpus: list[tuple], noise: str, end: str, widths: tuple[int, int, int], new: bool, mode: str, processes: list[tuple], slices: list[tuple]  # type: ignore[type-arg]
) -> None:  # fmt: skip
    def line(*cells: str) -> str:
        return "|" + "|".join(f" {cell:<{width}} " for cell, width in zip(cells, widths, strict=False)) + "|"

    driver, cuda = ("KMD Version", "CUDA UMD Version") if new else ("Driver Version", "CUDA Version")
    lines = [
        f"| NVIDIA-SMI 610.43.02   {driver}: 610.43.02   {cuda}: 13.3 |",
        line("GPU  Name  Persistence-M", "Bus-Id  Disp.A", "Volatile Uncorr. ECC"),
    ]
    for index, (_uuid, name, total, free, bus, mig, _) in enumerate(gpus):
        lines += [
            line(f" {index}  {name}  {mode}", f"{printed(bus)} Off", "0"),
            line("N/A   30C    P0   63W / 400W", f"{total - total * free // 100}MiB / {total}MiB", "0%  Default"),
            line("", "", "Enabled" if mig else "Disabled"),
            "+----+----+----+",
        ]
    lines += ["| MIG devices: |", "| GPU  GI  CI  MIG | Memory-Usage | Vol | Shared |"]
    for gpu, instance, device, total in slices:
        lines += [
            f"| {gpu}  {instance}  0  {device} | 1MiB / {total}MiB | 14  0 | 1 0 0 0 0 |",
            "|   | 0MiB / 16383MiB | | |",
        ]
    lines += ["| Processes: |", "|  GPU   GI   CI   PID   Type   Process name   GPU Memory |"]
    lines += [f"|  {gpu}  N/A  N/A  {pid}  C  {name}  {memory}MiB |" for gpu, pid, name, memory in processes]
    assert table.parse(noise + end.join(lines) + end + noise) == table.Table(
        driver="610.43.02",
        api="13.3",
        gpus=tuple(
            Seen(index=index, name=name, memory=total << 20, memory_free=(total * free // 100) << 20, mig=mig, bus_id=sysfs(bus))
            for index, (_, name, total, free, bus, mig, _) in enumerate(gpus)
        ),
        slices=tuple((gpu, device, total << 20, 1 << 20) for gpu, _, device, total in slices),
        processes=tuple((gpu, GpuProcess(pid=pid, name=name, memory=memory << 20)) for gpu, pid, name, memory in processes),
    )  # fmt: skip


@given(
    gpus=GPUS,
    noise=NOISE,
    end=END,
    profiles=st.lists(
        st.tuples(
            st.sampled_from(["", "1c.", "2c."]),
            st.integers(1, 7),
            st.integers(5, 180),
            st.sampled_from(["", "+me", "+gfx", "-me", "+me.all"]),
            st.uuids(),
        ),
        max_size=7,
    ),
)
def test_lists_are_read_back(gpus: list[tuple], noise: str, end: str, profiles: list[tuple]) -> None:  # type: ignore[type-arg]
    lines, slices = [], []
    for index, (uuid, name, *_) in enumerate(gpus):
        lines.append(f"GPU {index}: {name} (UUID: {uuid})")
        for number, (compute, parts, memory, extra, part) in enumerate(profiles):
            profile = f"{compute}{parts}g.{memory}gb{extra}"
            lines.append(f"  MIG {profile:<12} Device {number:>2}: (UUID: MIG-{part})")
            slices.append((index, Slice(index=number, uuid=f"MIG-{part}", profile=profile, memory=memory << 30)))
    found = listing.parse(noise + end.join(lines) + end)
    assert found.slices == tuple(slices)
    assert found.gpus == tuple(Seen(index=index, uuid=uuid, name=name) for index, (uuid, name, *_) in enumerate(gpus))


@given(
    links=st.integers(1, 16).flatmap(lambda n: st.lists(st.lists(st.sampled_from(["NV18", "NV4", "PIX", "PXB", "PHB", "NODE", "SYS"]), min_size=n, max_size=n), min_size=n, max_size=n)),
    nics=st.integers(0, 4), style=st.booleans(), end=END,
)  # fmt: skip
def test_matrices_are_read_back(links: list[list[str]], nics: int, style: bool, end: str) -> None:
    heads = [
        *(f"GPU{number}" for number in range(len(links))),
        *(f"NIC{number}" for number in range(nics)),
        "CPU Affinity",
        "NUMA Affinity",
    ]
    header = "\t" + "\t".join(heads)
    rows = [
        "\t".join(
            [
                f"GPU{one}",
                *(" X " if one == other else link for other, link in enumerate(row)),
                *["SYS"] * nics,
                "0-15,32-47",
                "0",
            ]
        )
        for one, row in enumerate(links)
    ]
    others = ["\t".join([f"NIC{one}", *["SYS"] * (len(links) + nics)]) for one in range(nics)]
    text = end.join(
        [
            f"\x1b[4m{header}\x1b[0m" if style else header,
            *rows,
            *others,
            "",
            "Legend:",
            "",
            "  X    = Self",
            "  NV#  = links",
        ]
    )
    assert topology.parse(text) == {
        one: tuple("X" if one == other else link for other, link in enumerate(row)) for one, row in enumerate(links)
    }


@pytest.mark.parametrize(("cell", "value"), [
    ("[N/A]", ""), ("N/A", ""), ("[Not Supported]", ""), ("Not Supported", ""), ("[GPU requires reset]", ""), ("[Unknown Error]", ""),
    ("ERR!", ""), ("", ""), ("  ", ""), ("[Insufficient Permissions]", ""), ("Insufficient Permissions", ""), ("8.9", "8.9"), (" P0 ", "P0"),
])  # fmt: skip
def test_a_cell_without_a_value_is_absent(cell: str, value: str) -> None:
    assert told(cell) == value
    assert value or size(cell) is None


@pytest.mark.parametrize(("said", "address"), [
    ("00000000:07:00.0", "0000:07:00.0"), ("0000000F:01:00.0", "000f:01:00.0"), ("0000:0A:1f.7", "0000:0a:1f.7"), ("00010000:01:00.0", "10000:01:00.0"),
    ("07:00.0", "0000:07:00.0"), ("[N/A]", ""), ("N/A", ""), ("", ""), ("00000000:07:00.8", ""),
])  # fmt: skip
def test_a_bus_id_is_written_as_sysfs_does(said: str, address: str) -> None:
    assert bus_id(said) == address


@pytest.mark.parametrize(("names", "capability"), [
    (("NVIDIA GB10",), "12.1"), (("NVIDIA Thor",), "11.0"), (("Orin (nvgpu)",), "8.7"),
    (("NVIDIA GeForce RTX 5090", "NVIDIA GeForce RTX 5070 Ti Laptop GPU", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA RTX PRO 6000 Blac..."), "12.0"),
    (("NVIDIA B300 SXM6 AC", "NVIDIA GB300"), "10.3"), (("NVIDIA B200", "NVIDIA GB200", "NVIDIA B100"), "10.0"),
    (("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200", "NVIDIA H20", "NVIDIA H20-3e", "NVIDIA H800", "NVIDIA GH200 480GB", "NVIDIA GH200 144G HBM3e"), "9.0"),
    (("NVIDIA L4", "NVIDIA L40", "NVIDIA L40S", "NVIDIA L40S-48C", "NVIDIA L20", "NVIDIA L2", "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4060 Ti", "NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX 4000 SFF Ada Generation"), "8.9"),
    (("NVIDIA A100-SXM4-80GB", "A100-SXM4-40GB", "NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM...", "NVIDIA A100X", "GRID A100D-40C", "NVIDIA A800-SXM4-80GB", "NVIDIA A30"), "8.0"),
    (("NVIDIA A10", "NVIDIA A10G", "NVIDIA A2", "NVIDIA A16", "NVIDIA A40", "NVIDIA A40-48Q", "NVIDIA RTX A6000", "NVIDIA RTX A2000 12GB", "NVIDIA RTX A500 Laptop GPU", "NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 2050"), "8.6"),
    (("Tesla T4", "NVIDIA T4G", "GRID T4-16Q", "NVIDIA GeForce RTX 2080 Ti", "NVIDIA TITAN RTX", "Quadro RTX 8000", "NVIDIA GeForce GTX 1660 SUPER", "NVIDIA T400 4GB", "NVIDIA T1000 8GB"), "7.5"),
    (("Tesla V100-SXM2-32GB", "Tesla V100S-PCIE-32GB", "GRID V100D-8Q", "GRID V100DX-32Q", "NVIDIA TITAN V", "Quadro GV100"), "7.0"),
    (("Tesla P100-PCIE-16GB", "Quadro GP100"), "6.0"),
    (("Tesla P40", "Tesla P4", "NVIDIA GeForce GTX 1080 Ti", "NVIDIA GeForce GT 1030", "NVIDIA TITAN Xp", "NVIDIA TITAN X (Pascal)", "Quadro P2000"), "6.1"),
    (("Tesla M60", "Tesla M40 24GB", "NVIDIA GeForce GTX 980 Ti", "GeForce GTX TITAN X"), "5.2"), (("Tesla M10", "GeForce GTX 750 Ti"), "5.0"), (("Tesla K80",), "3.7"), (("Tesla K40m",), "3.5"),
    (("", "NVIDIA DGX Display", "Graphics Device", "NVIDIA A1000000"), ""),
])  # fmt: skip
def test_a_name_tells_the_capability(names: tuple[str, ...], capability: str) -> None:
    assert {name: models.capability(name) for name in names} == dict.fromkeys(names, capability)


def test_only_systems_on_a_chip_share_the_machines_memory() -> None:
    shared = ("NVIDIA GB10", "NVIDIA Thor", "Orin (nvgpu)", "NVIDIA Jetson AGX Xavier Developer Kit", "NVIDIA Tegra X1")
    own = ("NVIDIA GH200 480GB", "NVIDIA GB200", "NVIDIA GB300", "NVIDIA A100-SXM4-80GB", "NVIDIA GB100", "")
    assert [models.integrated(name, models.capability(name)) for name in (*shared, *own)] == [True] * 5 + [False] * 6


def test_a_branch_tells_the_newest_cuda() -> None:
    said = ("550.54.15", "535.183.01", "580.126.09", "610.43.02", "470.256.02", "551.61", "", "x", "99999.1")
    assert [models.api(driver) for driver in said] == ["12.4", "12.2", "13.0", "13.3", "11.4", "", "", "", ""]
    assert [models.jetson_api(release) for release in ("36.4.3", "36.3.0", "35.4.1", "38.4.0", "32.7.4", "3.1", "")] == ["12.6", "12.2", "11.4", "13.0", "10.2", "", ""]  # fmt: skip


class Slow(RecordedMachine):
    """Every program takes its time; one that waits in the kernel never ends, whatever its timeout is."""

    def __init__(self, seconds: float, ends: Event | None = None) -> None:
        super().__init__(answers={("nvidia-smi",): Answer(code=9)}, programs=SMI)
        self._seconds, self._ends = seconds, ends

    def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
        (self._ends or Event()).wait(None if self._ends else self._seconds)
        return super().run(command, on_line=on_line)


def test_questions_are_asked_at_once() -> None:
    began = time.monotonic()
    nvidia.probe(Slow(0.3), True)
    assert time.monotonic() - began < 0.8


def test_a_tool_that_cannot_even_be_killed_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "PATIENCE", 0.1)
    monkeypatch.setattr(tool, "GRACE", 0.1)
    stuck = Event()
    began = time.monotonic()
    found = nvidia.probe(Slow(0, stuck), True)
    assert time.monotonic() - began < 2
    stuck.set()
    assert found.silent == ("nvidia-smi",)
    assert found.driver
    assert found.driver.failure == "nvidia-smi gives no answer in time"


def test_a_tool_of_another_architecture_is_a_failure() -> None:
    class Foreign(RecordedMachine):
        def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
            raise OSError(8, "Exec format error")

    found = nvidia.probe(Foreign(programs=SMI), True)
    assert found.driver
    assert found.driver.failure == "nvidia-smi cannot be started: [Errno 8] Exec format error"


def test_it_is_found_as_a_vendor() -> None:
    assert nvidia in vendors.vendors()
    assert (VENDOR.VENDOR, VENDOR.PCI) == ("nvidia", ("10de",))
    assert "nvidia-smi" in VENDOR.TOOLS
    assert "nouveau" in VENDOR.MODULES
