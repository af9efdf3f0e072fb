"""The operating system: what is too old, too small or set wrong."""

from dataclasses import replace

import pytest

from appliance.domain.host import Docker, Host
from appliance.domain.release import Release
from appliance.domain.spec import ApplianceSpec
from tests.unit.doctor.sound import ASKS, SOUND, SYSTEMS, facts, installed, look, only
from tests.unit.samples import GIB, layout


def test_glibc_too_old_for_wheels_stops_only_who_needs_them() -> None:
    host = replace(SOUND, glibc="2.17")
    assert only("libc-old", host).message == "glibc 2.17 is older than 2.28, which engine wheels are built for"
    assert not only("libc-old", host).prevents
    assert only("libc-old", host, facts(spec=ASKS)).prevents
    assert look(replace(SOUND, glibc="2.28")) == {}


def test_the_catalog_may_ask_for_a_newer_glibc() -> None:
    row = Release(engine="vllm", version="1", accelerator="cuda13.0", arch=("x86_64",), glibc="2.35")
    assert look(replace(SOUND, glibc="2.34"), facts(releases=(row,))).keys() == {"libc-old"}


def test_musl_runs_nothing_of_ours() -> None:
    assert only("libc-old", replace(SOUND, glibc="")).prevents


@pytest.mark.parametrize(
    ("system", "command"),
    [("debian", "apt-get install python3 python3-venv"), ("rocky", "dnf install python3.12"),
     ("opensuse-leap", "zypper install python312"), ("arch", "pacman -S python")],
)  # fmt: skip
def test_python_too_old(system: str, command: str) -> None:
    found = only("python-old", replace(SYSTEMS[system], python="3.9"))
    assert found.prevents
    assert found.remedy == (command,)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("kernel-old", replace(SOUND, kernel="3.10.0-1160.el7.x86_64")),
        ("architecture", replace(SOUND, arch="riscv64")),
        ("packages-missing", replace(SOUND, tools=())),
        ("memory-low", replace(SOUND, memory_available=GIB // 2)),
        ("swap-none", replace(SOUND, swap=0)),
        ("probe-silent", replace(SOUND, silent=("docker",))),
        ("systemd-old", replace(SOUND, systemd=245)),
    ],
)
def test_one_thing_is_wrong(name: str, host: Host) -> None:
    found = only(name, host)
    assert found.remedy
    assert all(found.remedy)


def test_supervisord_stands_in_for_an_old_systemd() -> None:
    host = replace(SOUND, systemd=245)
    assert not only("systemd-old", host).prevents
    assert only("systemd-old", host, facts(spec=ApplianceSpec(runtime="systemd"))).prevents
    assert look(replace(SOUND, systemd=0)) == {}


def test_memory_that_our_own_models_have_is_no_error() -> None:
    host = replace(SOUND, memory_available=GIB // 2)
    assert only("memory-low", host).severity == "error"
    assert only("memory-low", host, installed()).severity == "warning"
    assert not only("memory-low", host).prevents  # a plan counts what each model takes


def test_packages_are_not_needed_once_the_gateway_is_there() -> None:
    assert only("packages-missing", replace(SOUND, tools=())).prevents
    assert look(replace(SOUND, tools=()), installed()) == {}


def test_an_ubuntu_whose_nginx_has_no_lua_can_only_have_containers() -> None:
    old = replace(SOUND, os="ubuntu", os_version="22.04")
    found = only("packages-missing", old)
    assert found.prevents and found.remedy[0] == "llm-appliance install --runtime compose"
    docked = replace(old, docker=Docker(client="28.5", server="28.5", compose="2.40"))
    assert not only("packages-missing", docked).prevents, "containers may be chosen by themselves"
    assert look(old, facts(spec=ApplianceSpec(runtime="compose"))) == {}
    assert look(replace(old, os_version="24.04")) == {}


def test_a_container_has_no_swap_of_its_own() -> None:
    assert look(replace(SOUND, swap=0, container="docker")) == {}


def test_limits_much_below_the_machine_are_worth_to_know() -> None:
    found = look(SOUND, facts(memory=64 * GIB, cpus=64))["cgroup-limit"]
    assert [item.message for item in found] == [
        "10.0 GiB of 64.0 GiB memory are allowed here",
        "8 of 64 processors are allowed here",
    ]
    assert look(SOUND, facts(memory=12 * GIB, cpus=8)) == {}


def test_selinux_must_be_told_of_our_programs() -> None:
    host = replace(SYSTEMS["rocky"], security="selinux enforcing")
    found = only("selinux", host)
    assert found.severity == "warning"
    assert found.remedy[0] == "dnf install policycoreutils-python-utils"
    assert found.remedy[-1] == "restorecon -R /var/lib/llm-appliance"
    assert look(replace(host, security="selinux permissive")) == {}
    assert look(host, facts(layout=layout("/home/bob/llm"))) == {}  # no units there


def test_nothing_was_written_in_the_future() -> None:
    assert "42 days behind" in only("clock-behind", SOUND, facts(now=1e9, newest=1e9 + 42 * 86400)).message
    assert look(SOUND, facts(now=1e9, newest=1e9 + 3600)) == {}
