"""The whole machine at once: absence is an answer, a broken driver is reported as broken."""

import pytest

from appliance.detect import TOOLS, detect, linux, ports
from appliance.domain.host import Gpu, Host, Port
from tests.unit.recorded import Answer, RecordedMachine

FILES = {
    "/etc/os-release": b'ID=debian\nVERSION_ID="12"\n',
    "/proc/1/comm": b"systemd\n",
    "/run/systemd/system/.keep": b"",
    "/proc/cpuinfo": b"flags\t\t: fpu avx2 fma\n",
    "/proc/meminfo": b"MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n",
    "/proc/net/tcp": b"  sl ...\n   0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 4711 1\n",
}
SYSTEMCTL: dict[tuple[str, ...], Answer] = {
    ("systemctl", "--version"): Answer(stdout="systemd 252 (252.38-1~deb12u1)\n+PAM\n")
}


def found(machine: RecordedMachine) -> Host:
    return detect(machine, state="/nonexistent/state")


def test_what_a_machine_is() -> None:
    host = found(RecordedMachine(files=FILES, answers=SYSTEMCTL, programs={"systemctl": "/usr/bin/systemctl"}))
    assert (host.os, host.os_version, host.init, host.systemd) == ("debian", "12", "systemd", 252)
    assert host.cpu_flags == ("avx2", "fma")
    assert (host.memory, host.memory_available) == (1 << 30, 1 << 29)
    assert host.tools == (("systemctl", "/usr/bin/systemctl"),)
    assert host.ports == (Port(port=8080),)
    assert (host.gpus, host.driver, host.gpu_failure) == ((), "", "")
    assert host.cpus >= 1
    assert host.disk_free > 0


def test_a_machine_that_says_nothing_is_no_error() -> None:
    host = found(RecordedMachine())
    assert (host.os, host.init, host.systemd, host.memory, host.cpu_flags) == ("", "", 0, 0, ())
    assert (host.gpus, host.tools, host.ports) == ((), (), ())


def test_no_tool_no_question() -> None:
    machine = RecordedMachine(files=FILES, answers=SYSTEMCTL)
    found(machine)
    assert machine.ran() == [("systemctl", "--version")]
    assert machine.effects == [("run", "systemctl", "--version")], "detection changes nothing"


def test_a_broken_driver_is_not_an_absent_one() -> None:
    machine = RecordedMachine(
        programs={"nvidia-smi": "/usr/bin/nvidia-smi"},
        answers={
            ("nvidia-smi",): Answer(code=18, stdout="Failed to initialize NVML: Driver/library version mismatch\n")
        },
    )
    host = found(machine)
    assert host.gpus == ()
    assert host.gpu_failure == "nvidia-smi ends with 18: Failed to initialize NVML: Driver/library version mismatch"


def test_a_gpu_that_works() -> None:
    machine = RecordedMachine(
        programs={"nvidia-smi": "/usr/bin/nvidia-smi"},
        answers={("nvidia-smi",): Answer(stdout="0, GPU-1, NVIDIA L4, 23034, 8.9, 550.54.15\n")},
    )
    host = found(machine)
    assert host.gpus == (
        Gpu(vendor="nvidia", index=0, uuid="GPU-1", name="NVIDIA L4", memory=23034 << 20, compute_capability="8.9"),
    )
    assert (host.driver, host.gpu_failure) == ("550.54.15", "")


def test_every_tool_is_looked_for_by_name() -> None:
    programs = {name: f"/bin/{name}" for name in TOOLS if name not in ("nvidia-smi", "docker")}
    assert dict(found(RecordedMachine(programs=programs)).tools) == programs


@pytest.mark.parametrize(
    ("comm", "directory", "systemd"),
    [(b"systemd\n", True, 252), (b"systemd\n", False, 0), (b"tini\n", True, 0), (b"", False, 0)],
)
def test_systemd_counts_only_where_it_runs_the_machine(comm: bytes, directory: bool, systemd: int) -> None:
    files = {"/proc/1/comm": comm} | ({"/run/systemd/system/.keep": b""} if directory else {})
    assert linux.systemd_version(RecordedMachine(files=files, answers=SYSTEMCTL)) == systemd


@pytest.mark.parametrize(
    ("path", "content", "memory"),
    [
        ("/sys/fs/cgroup/memory.max", b"max\n", (1 << 30, 1 << 29)),
        ("/sys/fs/cgroup/memory.max", b"268435456\n", (1 << 28, 1 << 28)),
        ("/sys/fs/cgroup/memory.max", b"805306368\n", (768 << 20, 1 << 29)),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", b"268435456\n", (1 << 28, 1 << 28)),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", b"9223372036854771712\n", (1 << 30, 1 << 29)),
    ],
)
def test_memory_is_what_the_control_group_allows(path: str, content: bytes, memory: tuple[int, int]) -> None:
    assert linux.memory(RecordedMachine(files={**FILES, path: content})) == memory


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0 0 10 0
   2: 0100007F:B5A2 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:1F91 0100007F:B5A3 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0000000000000000
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1 0000000000000000 100 0 0 10 0
"""


def test_only_sockets_that_listen_take_a_port() -> None:
    assert ports.parse(TCP) == {8080: "4711", 22: "4712"}
    assert ports.parse(TCP6) == {443: "4714"}
    assert ports.parse("") == ports.parse("header only\n") == {}


def test_ports_of_both_families_are_found() -> None:
    machine = RecordedMachine(files={"/proc/net/tcp": TCP.encode(), "/proc/net/tcp6": TCP6.encode()})
    assert [port.port for port in ports.listening(machine)] == [22, 443, 8080]
    assert ports.holder(machine, 8080) == "", "nobody whom we may look at"
