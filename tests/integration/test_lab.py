"""The lab does what the other integration tests rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.lab import Lab, LabError, Mount, Server, difference

ABSENT_FROM_A_FRESH_SERVER = ("python3", "nginx", "docker", "pip", "gcc")
PACKAGE_INDEX_PAGE = "https://pypi.org/simple/pip/"


def test_a_fresh_server_is_up_and_empty(server: Server) -> None:
    assert server.run("systemctl", "is-system-running").stdout == "running\n"
    for program in ABSENT_FROM_A_FRESH_SERVER:
        assert server.sh(f"command -v {program}", check=False).code == 1, program
    assert server.run("find", "/var/lib/apt/lists", "-type", "f").stdout == ""


def test_reboot_and_power_cut_boot_again_and_keep_files(server: Server) -> None:
    server.write("/etc/kept", "yes\n")
    server.write("/run/lost", "yes\n")
    first = server.booted
    server.reboot()
    second = server.booted
    server.kill_power()
    assert first < second < server.booted
    assert server.read("/etc/kept") == "yes\n"
    assert not server.exists("/run/lost")


def test_a_snapshot_shows_what_changed_and_a_reboot_changes_nothing(server: Server) -> None:
    server.write("/etc/edited", "old\n")
    server.write("/etc/removed", "old\n")
    before = server.files()
    server.write("/etc/edited", "new\n")
    server.run("rm", "/etc/removed")
    server.run("ln", "-s", "/nowhere", "/opt/odd\nname")
    server.run("chmod", "0700", "/mnt")
    after = server.files()
    changed = {"/etc/edited", "/etc/removed", "/opt/odd\nname", "/mnt"}
    assert set(difference(before, after)) == changed
    assert after["/opt/odd\nname"].content == "/nowhere"
    server.reboot()
    assert difference(after, server.files()) == {}


def test_a_server_without_network_reaches_nothing_until_it_is_connected(lab: Lab) -> None:
    with lab.boot(network=False) as server:
        assert server.run("ip", "-brief", "link").stdout.split()[0] == "lo"
        assert server.run("ip", "-brief", "link").stdout.count("\n") == 1
        with pytest.raises(LabError):
            _ = server.address
        assert server.run("curl", "-sS", "-m", "5", PACKAGE_INDEX_PAGE, check=False).code != 0
        server.connect()
        assert server.address in server.run("ip", "-brief", "address").stdout


def test_package_sources_answer_in_a_server_until_it_is_disconnected(server: Server) -> None:
    server.run("apt-get", "update", timeout=300)
    assert server.run("apt-cache", "show", "nginx").stdout.startswith("Package: nginx\n")
    fetch = ("curl", "--fail", "--silent", "--show-error", "--max-time", "60", PACKAGE_INDEX_PAGE)
    assert "<a " in server.run(*fetch, timeout=90).stdout
    server.disconnect()
    assert server.run(*fetch, check=False, timeout=90).code != 0


def test_servers_reach_each_other(lab: Lab) -> None:
    with lab.boot("one") as one, lab.boot("two") as two:
        assert one.run("hostname").stdout == "one\n"
        listener = one.popen("systemd-socket-activate", "-l", "8080", "--inetd", "-a", "cat")
        listener.wait_for("Listening on")
        asked = two.sh(f"exec 3<>/dev/tcp/{one.address}/8080; echo hello >&3; head -1 <&3")
        assert asked.stdout == "hello\n"
        assert one.read("/etc/machine-id") != two.read("/etc/machine-id")


def test_files_and_programs_travel(server: Server, tmp_path: Path) -> None:
    (tmp_path / "tree/deep").mkdir(parents=True)
    program = tmp_path / "tree/deep/program"
    program.write_text('#!/bin/sh\necho "$GREETING from $(id -un)"\nexit 3\n')
    program.chmod(0o755)
    server.put(tmp_path / "tree", "/opt/tree")
    server.put(program, "/opt/alone/program")
    assert server.get("/opt/alone/program") == program.read_bytes()
    for path in ("/opt/tree/deep/program", "/opt/alone/program"):
        done = server.run(path, check=False, env={"GREETING": "hi"}, user="daemon")
        assert (done.stdout, done.code) == ("hi from daemon\n", 3)
    with pytest.raises(LabError, match="exit code 3"):
        server.run("/opt/alone/program")
    assert server.run("cat", input="typed").stdout == "typed"


def test_a_running_program_can_be_watched_and_signalled(server: Server) -> None:
    script = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    process = server.popen("bash", "-c", script)
    process.wait_for("ready")
    process.signal("TERM")
    assert process.wait() == 7
    assert process.output == "ready\ncaught\n"
    killed = server.popen("sleep", "600")
    killed.signal("KILL")
    assert killed.wait() == 128 + 9
    parent = server.popen("bash", "-c", "sleep 600; echo survived")
    parent.signal("INT", group=True)
    assert parent.wait() == 128 + 2
    assert parent.output == ""


def test_a_mounted_directory_is_read_only_unless_asked(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text("content\n")
    mounts = (Mount(tmp_path, "/media/bundle"), Mount(tmp_path, "/media/out", read_only=False))
    with lab.boot(volumes=mounts, cpus=1) as server:
        assert server.read("/media/bundle/bundle") == "content\n"
        assert server.run("touch", "/media/bundle/new", check=False).code == 1
        server.run("touch", "/media/out/new")
    assert (tmp_path / "new").exists()


def test_a_server_is_gone_after_its_test(lab: Lab) -> None:
    with lab.boot() as server:
        pass
    with pytest.raises(LabError):
        server.run("true")


def test_a_service_gets_its_credentials_and_its_own_network(server: Server) -> None:
    server.write("/etc/secret", "hush\n", mode="0600")
    server.write(
        "/etc/systemd/system/probe.service",
        "[Service]\nType=oneshot\nUser=daemon\nLoadCredential=key:/etc/secret\nPrivateNetwork=yes\n"
        "ExecStart=cat ${CREDENTIALS_DIRECTORY}/key /proc/net/dev\n",
    )
    server.run("systemctl", "start", "probe")
    journal = server.run("journalctl", "-o", "cat", "-u", "probe").stdout
    assert "hush\n" in journal
    assert "lo:" in journal
    assert "eth0:" not in journal
