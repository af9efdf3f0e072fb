"""The whole machine at once: absence is an answer, what is broken is reported as broken, what hangs is left behind."""

import threading
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import codec
from appliance.detect import TOOLS, detect, together
from appliance.detect.gpu import Found
from appliance.domain.changes import Command, Completed
from appliance.domain.host import Docker, Driver, Gpu, GpuProcess, Host, Port, Slice
from appliance.system.machine import Machine, OnLine
from tests.unit.detect.vendor import FakeVendor
from tests.unit.recorded import Answer, Argv, RecordedMachine

FILES = {
    "/etc/os-release": b'ID=debian\nVERSION_ID="12"\n',
    "/proc/1/comm": b"systemd\n",
    "/run/systemd/system/.keep": b"",
    "/proc/cpuinfo": b"model name\t: AMD EPYC 9655\nflags\t\t: fpu avx2 fma\n",
    "/proc/meminfo": b"MemTotal: 1048576 kB\nMemAvailable: 524288 kB\nSwapTotal: 1024 kB\n",
    "/proc/modules": b"openacme 1 0 - Live 0x0\next4 1 0 - Live 0x0\n",
    "/proc/self/mountinfo": b"29 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 29 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "/proc/self/cgroup": b"0::/user.slice\n",
    "/proc/net/tcp": b"  sl ...\n   0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 4711 1\n",
    "/sys/bus/pci/devices/0000:07:00.0/class": b"0x030200\n",
    "/sys/bus/pci/devices/0000:07:00.0/vendor": b"0xacce\n",
    "/sys/devices/system/node/node0/cpulist": b"0-3\n",
    "/sys/devices/system/node/node0/meminfo": b"Node 0 MemTotal:  1048576 kB\n",
    "/sys/module/apparmor/parameters/enabled": b"Y\n",
}
SYSTEMCTL: dict[Argv, Answer] = {("systemctl", "--version"): Answer(stdout="systemd 252 (252.38-1~deb12u1)\n+PAM\n")}


def found(machine: Machine, *vendors: FakeVendor, environ: Mapping[str, str] | None = None) -> Host:
    return detect(machine, state="/nonexistent/state", vendors=vendors, environ=environ or {})


def test_what_a_machine_is() -> None:
    programs = {"systemctl": "/usr/bin/systemctl", "acme-smi": "/usr/bin/acme-smi"}
    machine = RecordedMachine(files=FILES, answers=SYSTEMCTL, programs=programs)
    host = found(machine, FakeVendor(), environ={"http_proxy": "http://ada:secret@proxy:3128"})
    assert (host.os, host.os_version, host.init, host.systemd) == ("debian", "12", "systemd", 252)
    assert (host.cpu_name, host.cpu_flags) == ("AMD EPYC 9655", ("avx2", "fma"))
    assert (host.memory, host.memory_available, host.swap) == (1 << 30, 1 << 29, 1 << 20)
    assert (host.cgroup, host.container, host.security) == (2, "", "apparmor")
    assert [(node.index, node.cpus, node.memory) for node in host.numa] == [(0, (0, 1, 2, 3), 1 << 30)]
    assert [(one.path, one.kind) for one in host.filesystems] == [("/", "ext4")]
    assert dict(host.tools) == programs
    assert host.ports == (Port(port=8080),)
    assert (host.modules, host.pci) == (("openacme",), ("acme",))
    assert host.proxies == (("http_proxy", "http://proxy:3128"),)
    assert (host.gpus, host.drivers, host.docker, host.silent) == ((), (), Docker(), ())
    assert host.cpus >= 1
    assert host.disk_free > 0


def test_a_machine_that_says_nothing_is_no_error() -> None:
    host = found(RecordedMachine())
    assert (host.os, host.init, host.systemd, host.memory, host.cpu_flags) == ("", "", 0, 0, ())
    assert (host.gpus, host.tools, host.ports, host.filesystems, host.numa) == ((), (), (), (), ())
    assert (host.cgroup, host.container, host.security, host.cuda_toolkit, host.silent) == (0, "", "", "", ())


def test_no_tool_no_question() -> None:
    machine = RecordedMachine(files=FILES, answers=SYSTEMCTL)
    found(machine)
    assert machine.ran() == [("systemctl", "--version")]
    assert machine.effects == [("run", "systemctl", "--version")], "detection changes nothing"


def test_a_probe_cannot_change_anything() -> None:
    def scribble(machine: Machine, _present: bool) -> Found:
        machine.remove("/etc/passwd")
        return Found()

    with pytest.raises(PermissionError, match="removes nothing"):
        found(RecordedMachine(), FakeVendor(answer=scribble))


def test_every_tool_is_looked_for_by_name() -> None:
    programs = {name: f"/bin/{name}" for name in (*TOOLS, "acme-smi")}
    assert dict(found(RecordedMachine(programs=programs), FakeVendor()).tools) == programs


def test_gpus_come_by_vendor_and_number_and_every_driver_is_told() -> None:
    def two(_machine: Machine, _present: bool) -> Found:
        return Found(gpus=(gpu("acme", 10), gpu("acme", 2)), driver=Driver(vendor="acme", version="1.2"))

    def broken(_machine: Machine, _present: bool) -> Found:
        return Found(driver=Driver(vendor="zeta", failure="version mismatch", remedy="reboot"), silent=("zeta-smi",))

    def one(_machine: Machine, _present: bool) -> Found:
        return Found(gpus=(gpu("beta", 0),))

    vendors = (FakeVendor(VENDOR="beta", answer=one), FakeVendor(answer=two), FakeVendor(VENDOR="zeta", answer=broken))
    host = found(RecordedMachine(), *vendors)
    assert [(one.vendor, one.index) for one in host.gpus] == [("beta", 0), ("acme", 2), ("acme", 10)]
    assert [driver.vendor for driver in host.drivers] == ["acme", "zeta"]
    assert host.driver("zeta") == Driver(vendor="zeta", failure="version mismatch", remedy="reboot")
    assert host.silent == ("zeta-smi",)


@pytest.mark.parametrize("number", ["acce", "ffff"])
def test_a_vendor_is_told_whether_its_hardware_is_on_the_bus(number: str) -> None:
    told: list[bool] = []

    def remember(_machine: Machine, present: bool) -> Found:
        told.append(present)
        return Found()

    found(RecordedMachine(files=FILES), FakeVendor(PCI=(number,), answer=remember))
    assert told == [number == "acce"]


class Stuck(RecordedMachine):
    """A machine where some programs never end, not even when they are killed."""

    def __init__(self, *programs: str) -> None:
        super().__init__(files=FILES, answers=SYSTEMCTL, programs={name: f"/usr/bin/{name}" for name in programs})
        self.programs_that_hang = programs
        self.over = threading.Event()

    def run(self, command: Command, *, on_line: OnLine | None = None) -> Completed:
        if command.argv[0].rpartition("/")[2] in self.programs_that_hang:
            self.over.wait(60)
        return super().run(command, on_line=on_line)


def test_what_never_ends_is_left_behind_and_named_and_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "PATIENCE", 0.2)

    def ask(machine: Machine, _present: bool) -> Found:
        machine.run(Command(argv=("acme-smi",)))
        return Found(gpus=(gpu("acme", 0),))

    machine = Stuck("acme-smi", "docker")
    host = found(machine, FakeVendor(answer=ask), FakeVendor(VENDOR="beta", PCI=()))
    machine.over.set()
    assert host.silent == ("acme-smi", "docker")
    assert host.gpus == ()
    assert host.drivers[0].failure == "its tools gave no answer in time", "hardware is there, so it is not `no GPU`"
    assert host.docker.failure == "no answer in time"
    assert (host.systemd, host.os) == (252, "debian")


def test_a_program_past_its_time_is_named() -> None:
    answers: dict[Argv, Answer] = {("/usr/bin/docker",): Answer(code=124), ("acme-smi",): Answer(code=124)}

    def ask(machine: Machine, _present: bool) -> Found:
        machine.run(Command(argv=("acme-smi",)))
        return Found(silent=("acme-smi",))

    machine = RecordedMachine(answers=answers, programs={"docker": "/usr/bin/docker"})
    assert found(machine, FakeVendor(answer=ask)).silent == ("acme-smi", "docker"), "each once"


def gpu(vendor: str, index: int) -> Gpu:
    return Gpu(vendor=vendor, index=index, uuid=f"GPU-{index}", name="One", memory=None)


def test_what_was_detected_can_be_read_back() -> None:
    def everything(_machine: Machine, _present: bool) -> Found:
        full = Gpu(
            vendor="acme", index=0, uuid="GPU-0", name="One", memory=80 << 30, memory_free=70 << 30,
            compute_capability="9.0", bus_id="0000:07:00.0", numa_node=0, partitioned=True,
            slices=(Slice(index=0, uuid="MIG-1", profile="1g.10gb", memory=None),), links=("X", "NV18"),
            processes=(GpuProcess(pid=1, name="python", memory=None),), failure="requires reset",
        )  # fmt: skip
        return Found(gpus=(full,), driver=Driver(vendor="acme", version="1.2", api="12.4", module="open"))

    host = found(RecordedMachine(files=FILES, answers=SYSTEMCTL), FakeVendor(answer=everything))
    assert host.gpus
    assert host.numa
    assert codec.load_json(Host, codec.dump_json(host), source="host.json") == host
    assert codec.from_data(Host, codec.to_data(host), source="host.json") == host


def test_what_an_older_version_wrote_can_be_read() -> None:
    old = {
        "os": "debian", "os_version": "12", "arch": "x86_64", "glibc": "2.36", "kernel": "6.1", "init": "systemd",
        "systemd": 252, "python": "3.11", "root": True, "cpus": 4, "cpu_flags": [], "memory": 1, "memory_available": 1,
        "disk_free": 1, "gpus": [{"vendor": "nvidia", "index": 0, "uuid": "GPU-1", "name": "L4", "memory": 1}],
    }  # fmt: skip
    host = codec.from_data(Host, old, source="host.json")
    assert (host.drivers, host.docker, host.filesystems, host.silent) == ((), Docker(), (), ())


PATHS = sorted({
    *FILES, "/run/systemd/container", "/proc/1/environ", "/proc/1/cgroup", "/proc/net/tcp6", "/etc/cdi/a.yaml",
    "/sys/fs/selinux/enforce", "/usr/local/cuda/version.json", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "/proc/sys/kernel/osrelease",
})  # fmt: skip


@given(
    files=st.dictionaries(st.sampled_from(PATHS), st.binary(max_size=200)),
    stdout=st.text(max_size=200),
    code=st.sampled_from([0, 1, 124, 126, 127, -9]),
    proxy=st.text(alphabet=st.characters(), max_size=20),
)
def test_whatever_the_machine_says_it_is_told_and_can_be_read_back(
    files: dict[str, bytes], stdout: str, code: int, proxy: str
) -> None:
    answers: dict[Argv, Answer] = {(): Answer(stdout=stdout, stderr=stdout, code=code)}
    programs = {name: f"/usr/bin/{name}" for name in ("docker", "nvcc", "nvidia-ctk", "systemctl")}
    machine = RecordedMachine(files={**FILES, **files}, answers=answers, programs=programs)
    host = found(machine, FakeVendor(), environ={"http_proxy": proxy})
    assert codec.load_json(Host, codec.dump_json(host), source="host.json") == host
