"""Kills, power cuts, full disks, taken ports, absent networks: after each the old state answers or the new one does."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator

import pytest

from tests.integration import product
from tests.integration.conftest import Quickstart, remove_image
from tests.integration.faults import (
    ADD,
    DRAFTS,
    INSTALL,
    KILLER,
    PYTHON,
    RECORD,
    SECOND,
    SLOW,
    STATE,
    answering,
    answers,
    booted,
    converges,
    kept,
    kill,
    nothing_more,
    pid,
    record,
    refused,
    second,
)
from tests.integration.lab import FileState, Lab, Server, difference


@pytest.fixture(scope="module")
def bare(lab: Lab, quickstart: Quickstart) -> Iterator[str]:
    """The image of a server on which `llm-appliance` is there and has not installed anything yet."""
    assert quickstart.code == 0, quickstart.output
    image = f"llm-appliance-lab-bare:{os.getpid()}"
    with lab.boot("bare") as server:
        product.put_checkout(server)
        product.seed(server)
        process = product.install(server, "--dry-run")
        assert process.wait(timeout=300) == 0, process.output
        server.write("/root/kill.py", KILLER)
        server.save(image)
    yield image
    remove_image(image)


@pytest.fixture
def appliance(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """Such a server, for one test."""
    with booted(lab, quickstart, "appliance") as server:
        yield server


@pytest.fixture
def empty(lab: Lab, bare: str) -> Iterator[Server]:
    """A server with the program and nothing installed."""
    with lab.boot("empty", image=bare) as server:
        yield server


# ------------------------------------------------------------------------------------------------ killed


@SLOW
@pytest.mark.parametrize(
    "step", ["detect", "acquire", "gateway", "store", "write", "check", "switch", "start", "health"]
)
def test_install_killed_at_any_step_is_finished_by_the_next_run(empty: Server, step: str) -> None:
    said = kill(empty, step, INSTALL)
    assert "ended with -9" in said, said
    converges(empty, INSTALL, "smoke")


def test_install_killed_over_and_over_at_any_moment_is_finished_by_the_next_run(empty: Server) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for delay in sorted(chance.uniform(0.2, 6) for _ in range(6)):
        kill(empty, "", INSTALL, delay=delay)
    converges(empty, INSTALL, "smoke")


STEPS = ("detect", "acquire", "store", "write", "check", "switch", "start", "health")


def test_add_model_killed_at_any_step_disturbs_nobody_and_is_finished_by_the_next_run(appliance: Server) -> None:
    second(appliance)
    for step in STEPS:
        with answering(appliance), kept(appliance):
            said = kill(appliance, step, ADD)
            assert "ended with -9" in said, said
            converges(appliance, ADD, "second", "smoke")
            appliance.run("llm-appliance", "remove-model", "second", timeout=60)
            appliance.sh(f"find {STATE}/store/models -newer {SECOND} -mindepth 1 -maxdepth 1 -exec rm -r {{}} +")


def test_add_model_killed_over_and_over_at_any_moment_is_finished_by_the_next_run(appliance: Server) -> None:
    second(appliance)
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    with answering(appliance), kept(appliance):
        for delay in sorted(chance.uniform(0.1, 1.5) for _ in range(8)):
            kill(appliance, "", ADD, delay=delay)
        converges(appliance, ADD, "second", "smoke")


def test_a_changed_model_killed_after_the_switch_runs_with_its_new_settings_after_the_next_run(
    appliance: Server,
) -> None:
    for step, context in (("switch", 1024), ("start", 2048)):
        path = "/etc/llm-appliance/models.d/smoke.yaml"
        appliance.write(path, f"source: builtin:smoke\ncontext: {context}\nparallel: 1\n")
        kill(appliance, step, INSTALL, delay=0.03 if step == "switch" else 0)
        converges(appliance, INSTALL, "smoke")
        running = appliance.read(f"/proc/{pid(appliance)}/cmdline").split("\0")
        assert running[running.index("--ctx-size") + 1] == str(context)


def test_a_model_that_a_killed_run_kept_requests_from_gets_them_again_by_the_next_run(appliance: Server) -> None:
    inside = "curl -fsS --unix-socket /run/llm-appliance/gateway/inside.sock -X POST"
    appliance.sh(f"{inside} 'http://inside/gateway/drain?replica=smoke'")
    converges(appliance, INSTALL, "smoke")
    answers(appliance)


@pytest.mark.parametrize("step", ["switch", "start"])
def test_after_a_power_cut_the_old_state_answers_or_the_new_one(appliance: Server, step: str) -> None:
    second(appliance)
    with kept(appliance):
        kill(appliance, step, ADD, delay=0.02)
        appliance.kill_power()
        answers(appliance)
        converges(appliance, ADD, "second", "smoke")


def test_after_a_power_cut_in_the_first_install_the_next_run_finishes_it(empty: Server) -> None:
    kill(empty, "switch", INSTALL, delay=0.02)
    empty.kill_power()
    converges(empty, INSTALL, "smoke")


# ------------------------------------------------------------------------------------------------ interrupted


@pytest.mark.parametrize(("signal", "step"), [("HUP", "store"), ("INT", "write"), ("TERM", "health")])
def test_an_interrupted_add_model_says_so_in_one_line_and_goes_on_the_next_time(
    appliance: Server, signal: str, step: str
) -> None:
    second(appliance)
    with answering(appliance), kept(appliance):
        said = kill(appliance, step, ADD, signal=signal)
        assert "ended with 130" in said, said
        assert "Traceback" not in said
        assert said.count("error: interrupted") == 1
        converges(appliance, ADD, "second", "smoke")


def test_a_terminal_that_goes_away_ends_the_run_and_the_next_one_finishes_it(appliance: Server) -> None:
    second(appliance)
    script = (
        "import os, pty, sys, time\n"
        "child, terminal = pty.fork()\n"
        "child or os.execvp(sys.argv[1], sys.argv[1:])\n"
        "seen = b''\n"
        "while b'] store' not in seen: seen += os.read(terminal, 4096)\n"
        "os.close(terminal)\n"
        "print('exit', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert "exit 130" in appliance.run(PYTHON, "-c", script, *ADD, timeout=60).stdout
    converges(appliance, ADD, "second", "smoke")


def test_closed_standard_streams_are_nobody_s_error(appliance: Server) -> None:
    script = "set -o pipefail; llm-appliance plan | head -n 1; llm-appliance status --json | true; echo done"
    done = appliance.sh(script)
    assert done.stderr == "" and done.stdout.endswith("done\n")
    for redirection in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        for command in ("status", "install", "list --json"):
            done = appliance.sh(f"llm-appliance {command} {redirection}", check=False)
            assert (done.code, "Traceback" in done.stderr) == (0, False), (command, redirection, done)
    full = appliance.sh("llm-appliance status >/dev/full", check=False)
    assert full.code == 4 and "Traceback" not in full.stderr, full


# ------------------------------------------------------------------------------------------------ two at once


def test_of_two_runs_at_once_one_wins_and_the_other_says_who_holds_the_lock(appliance: Server) -> None:
    second(appliance)
    with answering(appliance), kept(appliance):
        _of_two_one_wins(appliance)


def _of_two_one_wins(appliance: Server) -> None:
    runs = [appliance.popen(*ADD), appliance.popen("llm-appliance", "install")]
    codes = [run.wait(timeout=60) for run in runs]
    while codes == [0, 0]:  # they missed each other
        appliance.run("llm-appliance", "remove-model", "second", timeout=60)
        runs = [appliance.popen(*ADD), appliance.popen("llm-appliance", "install")]
        codes = [run.wait(timeout=60) for run in runs]
    assert sorted(codes) == [0, 8]
    said = runs[codes.index(8)].output
    assert re.search(r"error: locked by root \(pid \d+\) for \d+ s: llm-appliance (install|add-model)", said), said
    assert "hint:" in said


def test_the_lock_of_a_killed_run_does_not_block(appliance: Server) -> None:
    second(appliance)
    kill(appliance, "check", ADD)
    assert "add-model" in appliance.read(f"{STATE}/lock")
    converges(appliance, ADD, "second", "smoke")


# ------------------------------------------------------------------------------------------------ refused


def test_a_taken_port_is_refused_with_its_holder_and_another_port(empty: Server) -> None:
    before = empty.files()
    holder = empty.popen(PYTHON, "-um", "http.server", "8080", "--bind", "127.0.0.1")
    holder.wait_for("Serving")
    done = empty.run(*INSTALL, check=False)
    refused(done, 4, "port 8080 is taken by python", "(pid ", "--listen 127.0.0.1:8081")
    nothing_more(before, empty.files())


def test_moving_to_a_taken_port_leaves_everything_as_it_is(appliance: Server) -> None:
    holder = appliance.popen(PYTHON, "-um", "http.server", "9000", "--bind", "0.0.0.0")
    holder.wait_for("Serving")
    before = appliance.files()
    with answering(appliance):
        done = appliance.run(*INSTALL, "--listen", "127.0.0.1:9000", check=False)
        refused(done, 4, "port 9000 is taken by python", "hint:")
        nothing_more(before, appliance.files(), "/var/log/llm-appliance/gateway/access.log")


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        (RECORD, "garbage", ("record.json", "hint:")),
        (RECORD, '{"schema": 1}', ("record.json", "hint:", "cp /var/lib/llm-appliance/current/record.json")),
        (RECORD, "", ("record.json", "hint:", "cp /var/lib/llm-appliance/current/record.json")),
        (RECORD, '{"schema": 99}', ("record.json", "schema 99", "newer llm-appliance", "hint:")),
        ("/etc/llm-appliance/appliance.yaml", "version: 1\nport: 9\n", ("appliance.yaml", "port")),
        ("/etc/llm-appliance/appliance.yaml", "version: 1\n\tlisten: x\n", ("appliance.yaml", "YAML")),
        ("/etc/llm-appliance/appliance.yaml", "version: 1\nversion: 1\n", ("appliance.yaml", "version", "twice")),
        ("/etc/llm-appliance/appliance.yaml", "# filler\n" * 1200000, ("appliance.yaml",)),
        ("/etc/llm-appliance/models.d/smoke.yaml", "source: [", ("models.d/smoke.yaml",)),
        ("/etc/llm-appliance/models.d/smoke.yaml", "source: builtin:smoke\nreplicas: 0\n", ("models.d/smoke.yaml", "replicas")),
        ("/etc/llm-appliance/models.d/smoke.yaml", "source: builtin:smoke\ncontext: many\n", ("models.d/smoke.yaml", "context")),
    ],
    ids=["record", "short-record", "empty-record", "newer-record", "unknown-key", "tab", "twice", "10-MB", "yaml", "range", "type"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name_and_nothing_is_changed(
    broken_one: Server, path: str, content: str, words: tuple[str, ...]
) -> None:
    good = broken_one.read(path)
    broken_one.write(path, content)
    before = broken_one.files()
    try:
        for command in (INSTALL, ("llm-appliance", "remove-model", "smoke"), ("llm-appliance", "plan")):
            refused(broken_one.run(*command, check=False), 3, *words)
        status = broken_one.run("llm-appliance", "status", check=False)
        refused(status, 3 if path == RECORD else 0)
        answers(broken_one)
        nothing_more(before, broken_one.files(), "/var/log/llm-appliance/gateway/access.log")
    finally:
        broken_one.write(path, good)
    assert "changed=0" in broken_one.run(*INSTALL).stdout


@pytest.fixture(scope="module")
def broken_one(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """One server for all the files that are broken, and mended, in turn."""
    with booted(lab, quickstart, "broken") as server:
        yield server


def test_who_is_not_root_is_told_what_to_type(appliance: Server) -> None:
    second(appliance)
    before = appliance.files()
    for command in (("install",), ADD[1:], ("remove-model", "smoke"), ("uninstall",), ("stop",), ("restart", "smoke")):
        done = appliance.run("llm-appliance", *command, check=False, user="nobody")
        refused(done, 4, "root", "hint:", "sudo llm-appliance " + command[0])
    for word in (("status",), ("list",), ("plan",), ("--help",), ("verify",), ("detect",), ("logs",)):
        done = appliance.run("llm-appliance", *word, check=False, user="nobody")
        refused(done, 0)
    appliance.sh(f"cp -r {product.CHECKOUT} /srv/checkout && chmod -R a+rX /srv/checkout")
    done = appliance.run("/srv/checkout/installers/install.sh", check=False, user="nobody")
    refused(done, 4, "only root", "sudo", "--prefix")
    nothing_more(before, {path: state for path, state in appliance.files().items() if not path.startswith("/srv/")} | {
        path: state for path, state in before.items() if path.startswith("/srv/")
    }, "/srv", "/var/log/llm-appliance/gateway/access.log")  # fmt: skip


# ------------------------------------------------------------------------------------------------ accounts, half done


@SLOW
def test_accounts_that_were_there_before_are_used_and_left(empty: Server) -> None:
    """Somebody else's, with numbers of their own; then everything of ours goes, and they stay."""
    empty.sh("groupadd -g 4240 llm-appliance && useradd -u 4241 -M llm-engine && useradd -u 4242 -M llm-gateway")
    before = empty.sh("getent passwd llm-engine llm-gateway; getent group llm-appliance").stdout
    converges(empty, INSTALL, "smoke")
    owner = "stat -c %u:%g /proc/$(systemctl show -P MainPID llm-appliance-{})"
    assert empty.sh(owner.format("model@smoke")).stdout.strip() == "4241:4240"
    assert empty.sh(owner.format("gateway")).stdout.strip() == "4242:4240"
    empty.run("llm-appliance", "uninstall", "--purge-models", timeout=60)
    assert empty.sh("getent passwd llm-engine llm-gateway; getent group llm-appliance").stdout == before


@SLOW
def test_half_an_installation_goes_whole_and_twice(empty: Server) -> None:
    """Killed after the switch, with the weights on a disk of their own, which stays mounted."""
    empty.sh(f"mkdir -p {STATE}/store && mount -t tmpfs -o mode=755 tmpfs {STATE}/store")
    before = empty.files()
    said = kill(empty, "start", INSTALL)
    assert "ended with -9" in said, said
    refused(empty.run("llm-appliance", "uninstall", "--purge-models", check=False, timeout=60), 0)
    assert product.install(empty, "--dry-run").wait(timeout=120) == 0
    refused(empty.run("llm-appliance", "uninstall", "--purge-models", check=False, timeout=60), 0)
    assert empty.run("findmnt", "-n", "-o", "FSTYPE", f"{STATE}/store").stdout.strip() == "tmpfs"
    assert (
        empty.sh(
            "systemctl list-units --all --plain --no-legend 'llm-appliance*'; ls /etc/llm-appliance", check=False
        ).stdout
        == ""
    )
    # What Python brought stays until uninstall.sh.
    ours = {path for path in difference(before, empty.files()) if "llm" in path}
    assert {path for path in ours if not path.startswith(("/opt", "/usr/local", "/var/cache"))} <= {STATE}


# ------------------------------------------------------------------------------------------------ another nginx


def test_a_web_server_that_was_there_before_is_left_alone(lab: Lab, quickstart: Quickstart) -> None:
    assert quickstart.code == 0
    with lab.boot("webserver") as server:
        server.sh("apt-get update -qq && apt-get install -y -qq nginx", env={"DEBIAN_FRONTEND": "noninteractive"})
        server.write("/var/www/html/index.html", "my own site\n")
        product.put_checkout(server)
        product.seed(server)

        def state() -> tuple[str, str, dict[str, FileState]]:
            main = server.run("systemctl", "show", "-P", "MainPID", "nginx").stdout
            files = {path: one for path, one in server.files().items() if path.startswith(("/etc/nginx", "/var/www"))}
            return server.run("curl", "-fsS", "http://127.0.0.1/").stdout, main, files

        before = state()
        assert before[0] == "my own site\n"
        process = product.install(server)
        assert process.wait(timeout=300) == 0, process.output
        answers(server)
        assert state() == before
        server.run("llm-appliance", "uninstall", "--purge-models", timeout=60)
        assert state() == before


# ------------------------------------------------------------------------------------------------ full disks


def test_too_small_a_disk_is_refused_with_the_numbers(empty: Server) -> None:
    empty.run("rm", "-rf", "/var/cache/llm-appliance")
    empty.sh(f"mkdir -p {STATE} && mount -t tmpfs -o size=8m tmpfs {STATE}")
    refused(empty.run(*INSTALL, check=False), 4, "8.0 MiB free", "needed", "hint:")
    assert empty.sh(f"find {STATE} -mindepth 1 ! -name lock").stdout == ""


@pytest.mark.parametrize("options", ["size=64m,nr_inodes=200", "size=12m"])
def test_a_disk_that_fills_while_installing_is_an_error_in_words_and_room_is_all_it_takes(
    empty: Server, options: str
) -> None:
    """The preflight's estimate is passed by a disk that shrinks, as one does that others write to."""
    empty.sh(f"mkdir -p {STATE} && mount -t tmpfs -o size=4g tmpfs {STATE}")
    process = empty.popen(*INSTALL)
    process.wait_for("] acquire")
    empty.run("mount", "-o", f"remount,{options}", STATE)
    code = process.wait(timeout=120)
    assert code in (4, 5, 6), process.output
    assert "Traceback" not in process.output and "this is a bug" not in process.output, process.output
    assert "No space left" in process.output or "cannot" in process.output, process.output
    assert not empty.exists(f"{STATE}/current")
    assert empty.sh(DRAFTS, check=False).stdout == ""
    empty.run("mount", "-o", "remount,size=4g,nr_inodes=100000", STATE)
    converges(empty, INSTALL, "smoke")


def fill(server: Server, leave: int) -> None:
    """Fill the disk of our state but for that many bytes."""
    free = int(server.run("df", "-B1", "--output=avail", STATE).stdout.split()[1])
    server.run("fallocate", "-l", str(free - leave), f"{STATE}/filler")


def small_disk(server: Server) -> None:
    """Move our state to a disk of its own, a small one."""
    server.run("llm-appliance", "stop", timeout=60)
    server.sh(
        f"mv {STATE} {STATE}.old && mkdir {STATE} && mount -t tmpfs -o size=300m,mode=755 tmpfs {STATE} && "
        f"cp -a {STATE}.old/. {STATE}/ && rm -r {STATE}.old"
    )
    server.run("llm-appliance", "start", timeout=60)


def test_a_full_disk_stops_no_model_and_room_is_all_it_takes(appliance: Server) -> None:
    second(appliance)
    small_disk(appliance)
    # No room for the weights; for them but no new generation, so that they stay; for part of one; for nothing at all.
    for leave in (1000000, 3200000, 20000, 0):
        fill(appliance, leave)
        with answering(appliance), kept(appliance):
            done = appliance.run(*ADD, check=False, timeout=60)
            refused(done, 4, "hint:")
            assert "No space left" in done.stderr or "needed" in done.stderr, done
            appliance.run("llm-appliance", "status")
            appliance.run("llm-appliance", "verify")
            assert "changed=0" in appliance.run(*INSTALL).stdout
        assert record(appliance)["confirmed"] is True
        appliance.run("rm", f"{STATE}/filler")
        assert appliance.sh(DRAFTS, check=False).stdout == ""
    converges(appliance, ADD, "second", "smoke")
    fill(appliance, 0)
    appliance.run("llm-appliance", "stop", timeout=60)
    appliance.run("llm-appliance", "start", timeout=60)
    answers(appliance, "second")
    done = appliance.run("llm-appliance", "uninstall", check=False, timeout=60)
    assert done.code == 0, done
    assert not appliance.exists("/etc/llm-appliance")
    assert not appliance.exists("/etc/systemd/system/llm-appliance.service")


def test_full_logs_and_a_full_temporary_directory_stop_nobody(appliance: Server) -> None:
    second(appliance)
    for place in ("/tmp", "/var/log"):
        appliance.run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place)
        appliance.sh(f"cat /dev/zero >{place}/filler; true")
    done = appliance.run(*ADD, check=False, timeout=60)
    if done.code:
        refused(done, 4, "No space left", "hint:")
    answers(appliance)
    for command in ("status", "stop", "start"):
        appliance.run("llm-appliance", command, timeout=60)
    answers(appliance)
    appliance.run("umount", "/tmp")
    appliance.run("umount", "/var/log")
    converges(appliance, ADD, "second", "smoke")


# ------------------------------------------------------------------------------------------------ no network


def test_without_network_and_python_the_installer_says_so_at_once_and_leaves_nothing(
    lab: Lab, quickstart: Quickstart
) -> None:
    with lab.boot("island", network=False) as server:
        product.put_checkout(server)
        before = server.files()
        for options, words in (((), "cannot be fetched"), (("--offline",), "--offline")):
            began = time.monotonic()
            done = server.run(product.INSTALL, *options, check=False, timeout=60)
            refused(done, 5, words)
            assert time.monotonic() - began < 20
            assert difference(before, server.files()) == {}


def test_without_network_what_is_cached_is_enough(lab: Lab, quickstart: Quickstart, bare: str) -> None:
    with booted(lab, quickstart, "island", network=False) as server:
        answers(server)
        began = time.monotonic()
        assert "changed=0" in server.run(*INSTALL, "--offline", timeout=30).stdout
        second(server)
        server.run(*ADD, "--offline", timeout=60)
        converges(server, ADD, "second", "smoke")
        assert time.monotonic() - began < 30
    with lab.boot("island", network=False, image=bare) as server:
        before = server.files()
        refused(server.run(*INSTALL, "--offline", check=False), 5, "nginx", "--offline", "hint:")
        began = time.monotonic()
        refused(server.run(*INSTALL, check=False, timeout=120), 5, "cannot be fetched", "hint:")
        assert time.monotonic() - began < 20
        nothing_more(before, server.files(), "/var/cache/llm-appliance")


def test_names_that_nobody_resolves_end_in_an_error_within_a_minute(empty: Server) -> None:
    empty.sh("echo nameserver 192.0.2.1 >/etc/resolv.conf")
    began = time.monotonic()
    refused(empty.run(*INSTALL, check=False, timeout=180), 5, "cannot be fetched", "hint:")
    assert time.monotonic() - began < 60


# ------------------------------------------------------------------------------------------------ odd surroundings


def test_an_odd_environment_changes_nothing(lab: Lab, quickstart: Quickstart) -> None:
    assert quickstart.code == 0
    with lab.boot("odd") as server:
        product.put_checkout(server)
        product.seed(server)
        odd = "umask 077; exec env -i LANG=tr_TR.UTF-8 LC_ALL=tr_TR.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        process = server.popen("sh", "-c", f"{odd} {product.INSTALL}")
        assert process.wait(timeout=300) == 0, process.output
        second(server)
        done = server.sh(f"{odd} /usr/local/bin/llm-appliance add-model second {SECOND}")
        assert "second answers" in done.stdout
        converges(server, ADD, "second", "smoke")
        server.reboot()
        answers(server, "second")
        for unit in ("llm-appliance", "llm-appliance-gateway", "llm-appliance-model@smoke"):
            server.run("cat", f"/etc/systemd/system/{unit}.service", user="nobody")
        server.run("llm-appliance", "status", user="nobody")
        server.run("llm-appliance", "list", user="nobody")
