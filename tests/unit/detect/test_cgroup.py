"""Control groups: the tightest limit between our own group and the root holds, as far as it is mounted."""

import pytest

from appliance.detect import _cpus, _memory, cgroup
from appliance.detect.cgroup import Limits
from tests.unit.recorded import RecordedMachine

GIB = 1 << 30
V2 = b"30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    b"33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    b"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
HYBRID = V1 + b"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
IN_DOCKER_V1 = (
    b"227 226 0:29 /docker/1ee4 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
    b"230 226 0:32 /docker/1ee4 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
)


def limits(mounts: bytes, membership: bytes, **files: bytes) -> Limits:
    """Files are named by their path below /sys/fs/cgroup, with `__` for `/` and `_DOT_` for `.`."""
    paths = {
        "/sys/fs/cgroup/" + name.replace("__", "/").replace("_DOT_", ".").replace("_AND_", ","): content
        for name, content in files.items()
    }
    told = {"/proc/self/mountinfo": mounts, "/proc/self/cgroup": membership}
    return cgroup.limits(RecordedMachine(files={**paths, **told}))


def test_no_control_groups() -> None:
    assert limits(b"", b"") == Limits()


@pytest.mark.parametrize(("mounts", "version"), [(V2, 2), (V1, 1), (HYBRID, 1)])
def test_the_version_is_that_of_the_controllers(mounts: bytes, version: int) -> None:
    assert limits(mounts, b"0::/\n") == Limits(version=version)


def test_every_group_above_ours_counts() -> None:
    found = limits(
        V2,
        b"0::/user.slice/one.service\n",
        user_DOT_slice__one_DOT_service__cpu_DOT_max=b"400000 100000\n",
        user_DOT_slice__cpu_DOT_max=b"150000 100000\n",
        user_DOT_slice__one_DOT_service__memory_DOT_max=b"2147483648\n",
        user_DOT_slice__one_DOT_service__memory_DOT_current=b"1073741824\n",
        user_DOT_slice__one_DOT_service__memory_DOT_stat=b"anon 1\ninactive_file 536870912\n",
        user_DOT_slice__memory_DOT_max=b"4294967296\n",
        user_DOT_slice__memory_DOT_current=b"4294967296\n",
    )
    assert found.cpus == 1.5
    assert found.memory == 2 * GIB
    assert found.available == 0, "the group above is full, however little ours has taken"


def test_a_cache_that_the_kernel_would_drop_is_no_use() -> None:
    found = limits(
        V2,
        b"0::/one\n",
        one__memory_DOT_max=b"2147483648",
        one__memory_DOT_current=b"2147483648",
        one__memory_DOT_stat=b"inactive_file 1610612736\n",
    )
    assert (found.memory, found.available) == (2 * GIB, 3 * GIB // 2)


def test_a_soft_limit_is_none() -> None:
    assert limits(V2, b"0::/one\n", one__memory_DOT_high=b"1\n", one__memory_DOT_max=b"max\n").memory is None


def test_a_container_with_a_namespace_sees_its_own_group_as_the_root() -> None:
    found = limits(V2, b"0::/\n", cpu_DOT_max=b"50000 100000\n", memory_DOT_max=b"1073741824\n")
    assert (found.cpus, found.memory) == (0.5, GIB)


@pytest.mark.parametrize("membership", [b"0::/../../else\n", b"0::/kubepods/pod1\n", b""])
def test_a_path_that_is_not_mounted_leaves_what_is(membership: bytes) -> None:
    assert limits(V2, membership, memory_DOT_max=b"1073741824\n").memory == GIB


def test_a_container_with_the_hosts_paths_has_only_the_end_of_them_mounted() -> None:
    found = limits(
        IN_DOCKER_V1,
        b"4:memory:/docker/1ee4\n1:cpu:/docker/1ee4\n0::/docker/1ee4\n",
        cpu__cpu_DOT_cfs_quota_us=b"150000\n",
        cpu__cpu_DOT_cfs_period_us=b"100000\n",
        memory__memory_DOT_limit_in_bytes=b"2147483648\n",
        memory__memory_DOT_usage_in_bytes=b"2147483648\n",
        memory__memory_DOT_stat=b"inactive_file 1\ntotal_inactive_file 1073741824\n",
    )
    assert found == Limits(version=1, cpus=1.5, memory=2 * GIB, available=GIB)


def test_v1_says_a_huge_number_or_minus_one_where_there_is_no_limit() -> None:
    found = limits(
        V1,
        b"4:memory:/one\n1:cpu,cpuacct:/one\n",
        cpu_AND_cpuacct__one__cpu_DOT_cfs_quota_us=b"-1\n",
        cpu_AND_cpuacct__one__cpu_DOT_cfs_period_us=b"100000\n",
        memory__one__memory_DOT_limit_in_bytes=b"9223372036854771712\n",
    )
    assert found == Limits(version=1)


def test_the_hybrid_layout_is_read_as_v1() -> None:
    found = limits(
        HYBRID,
        b"4:memory:/one\n1:cpu,cpuacct:/two\n0::/three\n",
        cpu_AND_cpuacct__two__cpu_DOT_cfs_quota_us=b"200000\n",
        cpu_AND_cpuacct__two__cpu_DOT_cfs_period_us=b"100000\n",
        memory__one__memory_DOT_limit_in_bytes=b"1073741824\n",
    )
    assert (found.cpus, found.memory) == (2.0, GIB)


def test_memory_is_what_the_machine_has_and_the_groups_leave() -> None:
    files = {"/proc/meminfo": b"MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n"}
    machine = RecordedMachine(files=files)
    assert _memory(machine, Limits()) == (GIB, GIB // 2)
    assert _memory(machine, Limits(memory=GIB // 4, available=GIB // 8)) == (GIB // 4, GIB // 8)
    assert _memory(machine, Limits(memory=4 * GIB, available=4 * GIB)) == (GIB, GIB // 2)
    assert _memory(machine, Limits(memory=GIB // 4, available=GIB)) == (GIB // 4, GIB // 4)


def test_a_quota_is_rounded_up_and_never_to_nothing() -> None:
    allowed = _cpus(Limits())
    assert _cpus(Limits(cpus=0.1)) == 1
    assert _cpus(Limits(cpus=allowed - 0.5)) == allowed
    assert _cpus(Limits(cpus=allowed + 10.0)) == allowed
