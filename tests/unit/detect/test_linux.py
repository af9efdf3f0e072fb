"""Operating system, processor, memory, container: small files of the kernel and the distribution."""

import pytest

from appliance.detect import linux
from tests.unit.recorded import Answer, Argv, RecordedMachine

SYSTEMCTL: dict[Argv, Answer] = {("systemctl", "--version"): Answer(stdout="systemd 252 (252.38-1~deb12u1)\n+PAM\n")}
HOSTS = b"240 221 254:0 /x/hosts /etc/hosts rw - ext4 /dev/vda rw\n"


@pytest.mark.parametrize(
    ("comm", "directory", "systemd"),
    [(b"systemd\n", True, 252), (b"systemd\n", False, 0), (b"tini\n", True, 0), (b"", False, 0)],
)
def test_systemd_counts_only_where_it_runs_the_machine(comm: bytes, directory: bool, systemd: int) -> None:
    files = {"/proc/1/comm": comm} | ({"/run/systemd/system/.keep": b""} if directory else {})
    assert linux.systemd_version(RecordedMachine(files=files, answers=SYSTEMCTL)) == systemd


def test_the_distribution_may_name_itself_in_either_place() -> None:
    both = {"/etc/os-release": b"ID=ubuntu\n", "/usr/lib/os-release": b"ID=debian\n"}
    assert linux.os_release(RecordedMachine(files=both)) == {"ID": "ubuntu"}
    assert linux.os_release(RecordedMachine(files={"/usr/lib/os-release": b"ID=debian\n"})) == {"ID": "debian"}


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, ""),
        ({"/run/systemd/container": b"systemd-nspawn\n"}, "systemd-nspawn"),
        ({"/run/systemd/container": b"wsl\n"}, "wsl"),
        ({"/proc/1/environ": b"PATH=/bin\0container=lxc\0TERM=x\0"}, "lxc"),
        ({"/proc/1/environ": b"mycontainer=lxc\0"}, ""),
        ({"/proc/1/environ": b"container=\x1b[31m\0"}, ""),
        ({"/.dockerenv": b"", "/proc/self/mountinfo": HOSTS}, "docker"),
        ({"/run/.containerenv": b"", "/proc/self/mountinfo": HOSTS}, "podman"),
        ({"/.dockerenv": b""}, ""),  # a machine whose disk was made from an image
        ({"/proc/1/cgroup": b"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope\n"}, "kubernetes"),
        ({"/run/secrets/kubernetes.io/serviceaccount/token": b""}, "kubernetes"),
        ({"/proc/1/cgroup": b"4:memory:/docker/1ee4\n"}, "docker"),
        ({"/proc/1/cgroup": b"0::/system.slice/docker-1ee4.scope\n"}, "docker"),
        ({"/proc/1/cgroup": b"4:memory:/lxc.payload.one\n"}, "lxc"),
        ({"/proc/1/cgroup": b"0::/init.scope\n"}, ""),
        ({"/proc/sys/kernel/osrelease": b"5.15.153.1-microsoft-standard-WSL2\n"}, "wsl"),
        ({"/proc/sys/kernel/osrelease": b"6.1.0-18-amd64\n"}, ""),
        (
            {
                "/.dockerenv": b"",
                "/proc/self/mountinfo": HOSTS,
                "/proc/sys/kernel/osrelease": b"5.15-microsoft-standard-WSL2\n",
            },
            "docker",
        ),
    ],
)
def test_which_kind_of_container_this_is(files: dict[str, bytes], kind: str) -> None:
    assert linux.container(RecordedMachine(files=files)) == kind


@pytest.mark.parametrize(
    ("files", "security"),
    [
        ({}, ""),
        ({"/sys/fs/selinux/enforce": b"1"}, "selinux enforcing"),
        ({"/sys/fs/selinux/enforce": b"0"}, "selinux permissive"),
        ({"/sys/module/apparmor/parameters/enabled": b"Y\n"}, "apparmor"),
        ({"/sys/module/apparmor/parameters/enabled": b"N\n"}, ""),
        ({"/sys/fs/selinux/enforce": b"1", "/sys/module/apparmor/parameters/enabled": b"Y\n"}, "selinux enforcing"),
    ],
)
def test_mandatory_access_control(files: dict[str, bytes], security: str) -> None:
    assert linux.security(RecordedMachine(files=files)) == security


@pytest.mark.parametrize(
    ("content", "cpus"),
    [
        ("0-3,8\n", (0, 1, 2, 3, 8)),
        ("5\n", (5,)),
        ("\n", ()),
        ("0-3,x", ()),
        ("3-1", ()),
        ("0-99999,0-99999", ()),
        ("0-999999999999", ()),
    ],
)
def test_a_list_of_processors(content: str, cpus: tuple[int, ...]) -> None:
    assert linux.parse_cpulist(content) == cpus


def test_nodes_are_counted_as_numbers_and_may_have_no_processor() -> None:
    base = "/sys/devices/system/node"
    files = {
        f"{base}/node10/cpulist": b"\n",
        f"{base}/node10/meminfo": b"Node 10 MemTotal:       97871 kB\nNode 10 MemFree: 1 kB\n",
        f"{base}/node2/cpulist": b"0-1\n",
        f"{base}/online": b"2,10\n",
        f"{base}/nodeX/cpulist": b"0\n",
    }
    nodes = linux.numa(RecordedMachine(files=files))
    assert [(node.index, node.cpus, node.memory) for node in nodes] == [(2, (0, 1), 0), (10, (), 97871 << 10)]


def test_numbers_of_the_groups_that_gpus_are_open_to() -> None:
    text = "root:x:0:\nvideo:x:44:ann\nrender:x:105:\nbroken\nrenderer:x:7:\n"
    assert linux.parse_groups(text, ("render", "video")) == (("render", 105), ("video", 44))
    assert linux.parse_groups("", ("render", "video")) == ()
