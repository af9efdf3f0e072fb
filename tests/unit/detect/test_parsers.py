"""No parser raises, whatever a file or a program says."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.detect import cgroup, cuda, docker, linux, mounts, pci, ports, proxies
from appliance.domain.changes import Completed


def completed(text: str) -> Completed:
    return Completed(argv=("docker",), code=1, stdout=text, stderr=text, seconds=0)


PARSERS: tuple[Callable[[str], object], ...] = (
    linux.parse_os_release, linux.parse_cpu_flags, linux.parse_cpu_name, linux.parse_meminfo, linux.parse_swap,
    linux.parse_cpulist, linux.parse_modules, linux.parse_systemctl_version, cgroup.parse_membership,
    cgroup.parse_cpu_max, cgroup.parse_inactive, mounts.parse_mountinfo, pci.parse_class, pci.parse_vendor, ports.parse,
    cuda.parse_nvcc, cuda.parse_version_json, docker.parse_compose, docker.parse_toolkit, docker.parse_cdi,
    proxies.without_password,
    lambda text: mounts.worthy(mounts.parse_mountinfo(text)),
    lambda text: docker.parse_version(completed(text)),
    lambda text: docker.parse_info(completed(text)),
)  # fmt: skip

FRAGMENTS = (
    "MemTotal: ", " kB\n", "9" * 30, "²", "٣", "0-", ",", "systemd ", "0::/", "memory:", " - ", "cgroup2", "rw", "/", "\\777",
    "0x", "release 1", "{", "}", '"Client"', '"Server"', ":", "[", "]", "null", "1e999", '"cuda_nvcc"', "kind: ", "a/b", "\n",
    " ", "\0", "max 100000", "0 0", "-1 100000", "@", "0: 0:0016 0:0000 0A ", "\r",
)  # fmt: skip
TEXT = st.one_of(
    st.binary(max_size=300).map(lambda raw: raw.decode(errors="replace")),
    st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join),
)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda one: one.__name__)
@given(text=TEXT)
def test_no_text_makes_it_raise(parser: Callable[[str], object], text: str) -> None:
    parser(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(
        ["Client", "Server", "Version", "Components", "Name", "Runtimes", "SecurityOptions", "DiscoveredDevices", "ID",
         "CDISpecDirs", "ServerErrors", "DockerRootDir", "cuda_nvcc", "version"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(data=JSON)
def test_no_json_makes_it_raise(data: object) -> None:
    import json

    text = json.dumps(data)
    docker.parse_version(completed(text))
    docker.parse_info(completed(text))
    cuda.parse_version_json(text)
