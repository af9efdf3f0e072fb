"""Bundles: made on one server, installed on another that has no network and no Python, damaged, cut off and resumed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration import product
from tests.integration.conftest import Quickstart, remove_image
from tests.integration.lab import Lab, Server, difference
from tests.integration.product import SMOKE
from tests.integration.test_user import LOGS

PLACE = "/media/disk"
BUNDLE = f"{PLACE}/site.llmb"
QUESTION, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]


@dataclass(frozen=True)
class Made:
    """What a server with a network made."""

    home: Path
    """Directory on this machine: site.llmb, its script, keys, and what was made for the tests."""
    seconds: float
    said: str


def fetch(server: Server, remote: str, local: Path) -> None:
    """Bring a file here, as somebody would with a disk."""
    with local.open("wb") as stream:
        subprocess.run(("docker", "exec", server.container, "cat", remote), stdout=stream, check=True, timeout=600)


@pytest.fixture(scope="module")
def made(lab: Lab, quickstart: Quickstart, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle of the built-in model; made after it, one that adds a second model, a newer one, those of others."""
    assert quickstart.code == 0, quickstart.output
    home = tmp_path_factory.mktemp("media")
    with product.installed(lab, quickstart.image, "creator") as server:
        server.run("mkdir", "-p", PLACE)
        server.run("llm-appliance", "bundle", "keygen", f"{PLACE}/vendor")
        words = ("llm-appliance", "bundle", "create", "--sign", f"{PLACE}/vendor.key")
        done = server.run(*words, "-o", BUNDLE, timeout=600)
        again = server.run(*words, "-o", f"{PLACE}/again/site.llmb", timeout=600)
        server.run("cmp", BUNDLE, f"{PLACE}/again/site.llmb")
        server.sh(
            "sed 's/A tiny chat model that shows/A tiny chat model that SHOWS/' "
            f"{product.CHECKOUT}/appliance/smoke/smoke.gguf >/srv/second.gguf"
        )
        server.run(
            *words, "-o", f"{PLACE}/second.llmb", "--base", BUNDLE, "--model", "second=/srv/second.gguf", timeout=600
        )
        server.run(*words, "-o", f"{PLACE}/parts/site.llmb", "--split", "20M", timeout=600)
        server.run(
            *words, "-o", f"{PLACE}/newer/site.llmb", "--base", BUNDLE, "--model", "smoke=/srv/second.gguf", timeout=600
        )
        plain = ("llm-appliance", "bundle", "create")
        server.run(*plain, "-o", f"{PLACE}/unsigned/site.llmb", "--base", BUNDLE, timeout=600)
        server.run("llm-appliance", "bundle", "keygen", f"{PLACE}/stranger/other")
        stranger = f"{PLACE}/stranger/site.llmb"
        server.run(*plain, "-o", stranger, "--sign", f"{PLACE}/stranger/other.key", "--base", BUNDLE, timeout=600)
        kill_and_go_on(server, words)
        for name in server.sh(f"cd {PLACE} && find . -type f").stdout.split():
            (home / name).parent.mkdir(exist_ok=True)
            fetch(server, f"{PLACE}/{name}", home / name)
    for path in home.glob("**/*.install"):
        path.chmod(0o755)
    print(done.stderr, done.stdout, flush=True)
    assert "write" in again.stderr
    return Made(home, 0, done.stdout + done.stderr)


def kill_and_go_on(server: Server, words: tuple[str, ...]) -> None:
    """Kill a run that writes a bundle at several places; the next one goes on, and what it makes is the same."""
    target, draft = f"{PLACE}/killed/site.llmb", f"{PLACE}/killed/.site.llmb.new"
    script = (
        '"$@" >/dev/null 2>&1 & p=$!; until [ $(stat -c %s $DRAFT 2>/dev/null || echo 0) -ge $SIZE ]; do '
        "kill -0 $p 2>/dev/null || break; sleep 0.01; done; kill -9 $p 2>/dev/null; wait $p; echo $?"
    )
    codes = [
        server.run(
            "bash", "-c", script, "bash", *words, "-o", target, env={"DRAFT": draft, "SIZE": str(size)}, timeout=300
        ).stdout.strip()
        for size in (1, 10 << 20, 30 << 20, 60 << 20)
    ]
    # The last ones may have been faster than we.
    assert codes[:2] == ["137", "137"], codes
    server.run(*words, "-o", target, timeout=600)
    server.run("cmp", BUNDLE, target)
    assert server.sh(f"ls -A {PLACE}/killed").stdout.split() == [
        "site.llmb",
        "site.llmb.install",
        "site.llmb.install.minisig",
    ]
    server.run("rm", "-r", f"{PLACE}/killed", f"{PLACE}/again")


@dataclass(frozen=True)
class Airgap:
    """What the script did on a server without network, and that server's disk afterwards."""

    code: int
    output: str
    image: str


@pytest.fixture(scope="module")
def airgap(lab: Lab, made: Made) -> Iterator[Airgap]:
    """The first command on a server that was booted without network and holds what a minimal Debian holds."""
    image = f"llm-appliance-lab-airgap:{os.getpid()}"
    with lab.boot("airgap", network=False) as server:
        assert server.run("which", "python3", check=False).code == 1
        assert [line for line in server.run("ip", "-br", "link").stdout.splitlines() if not line.startswith("lo")] == []
        before = server.files()
        put(server, made, "site.llmb", "site.llmb.install")
        process = server.popen(f"{BUNDLE}.install")
        code = process.wait(timeout=600)
        print(process.output, flush=True)
        server.save(image)
        assert before
    yield Airgap(code, process.output, image)
    remove_image(image)


@pytest.fixture
def installed(lab: Lab, made: Made, airgap: Airgap) -> Iterator[Server]:
    """A server that was installed from the bundle and booted again, still without network."""
    assert airgap.code == 0, airgap.output
    with lab.boot("airgap", network=False, image=airgap.image) as server:
        server.run("llm-appliance", "verify", timeout=120)
        yield server


def put(server: Server, made: Made, *names: str) -> None:
    for name in names:
        server.put(made.home / name, f"{PLACE}/{name}")


def test_one_command_without_network_or_python_ends_with_a_server_that_answers(airgap: Airgap) -> None:
    assert airgap.code == 0, airgap.output
    assert f"smoke answers: {ANSWER}" in airgap.output


def test_it_answers_after_a_reboot_and_a_second_run_changes_nothing(installed: Server) -> None:
    installed.reboot()
    installed.run("llm-appliance", "verify", timeout=60)
    assert product.chat(installed, QUESTION) == ANSWER
    said = installed.run(f"{BUNDLE}.install", timeout=300).stdout
    assert "changed=0" in said


def test_a_second_bundle_adds_a_model_and_the_first_one_takes_it_back(installed: Server, made: Made) -> None:
    put(installed, made, "second.llmb")
    assert (made.home / "second.llmb").stat().st_size < (made.home / "site.llmb").stat().st_size / 10
    installed.run("llm-appliance", "bundle", "install", f"{PLACE}/second.llmb", timeout=120)
    assert product.chat(installed, QUESTION, model="second")
    assert product.chat(installed, QUESTION) == ANSWER
    assert "changed=0" in installed.run("llm-appliance", "install", "--offline", timeout=60).stdout
    installed.reboot()
    installed.run("llm-appliance", "verify", timeout=60)
    installed.run("llm-appliance", "rollback", timeout=60)
    assert "second" not in installed.run("llm-appliance", "list").stdout
    assert product.chat(installed, QUESTION) == ANSWER


def test_a_later_version_of_a_model_takes_the_place_of_the_first(installed: Server, made: Made) -> None:
    put(installed, made, "newer/site.llmb", "vendor.pub")
    before = product.chat(installed, QUESTION)
    installed.run("llm-appliance", "bundle", "install", f"{PLACE}/newer/site.llmb", timeout=120)
    digest = models(installed)["smoke"]
    assert digest != models_of(installed, 1)["smoke"]
    # The one before is older now.
    old = installed.run("llm-appliance", "bundle", "install", BUNDLE, check=False, timeout=60)
    assert (old.code, "serial is 0, that of the last site was 1" in old.stderr) == (4, True), old
    assert models(installed)["smoke"] == digest
    installed.run("llm-appliance", "rollback", timeout=60)
    assert product.chat(installed, QUESTION) == before == ANSWER


def models(server: Server) -> dict[str, str]:
    """Digest of each model that is in force."""
    return models_of(server, "current")


def models_of(server: Server, generation: int | str) -> dict[str, str]:
    where = f"generations/{generation}" if isinstance(generation, int) else generation
    plan = json.loads(server.read(f"/var/lib/llm-appliance/{where}/deployment.json"))
    return {one["name"]: one["digest"] for one in plan["models"]}


def test_parts_on_two_disks_are_installed_from_where_they_are(lab: Lab, made: Made) -> None:
    parts = sorted((made.home / "parts").glob("site.llmb.0*"))
    assert len(parts) == 5
    with lab.boot("parts", network=False) as server:
        for path in (*parts, made.home / "parts/site.llmb.install"):
            server.put(path, f"{PLACE}/{path.name}")
        server.run("mv", f"{PLACE}/site.llmb.003", "/srv/site.llmb.003")
        missing = server.run(f"{BUNDLE}.install", check=False, timeout=120)
        assert (missing.code, "site.llmb.003" in missing.stderr or "part 3" in missing.stderr) == (5, True), missing
        assert not server.exists("/opt/llm-appliance/venv")
        server.run("mv", "/srv/site.llmb.003", f"{PLACE}/site.llmb.003")
        server.run("mv", f"{PLACE}/site.llmb.005", "/srv/site.llmb.005")
        done = server.run(f"{BUNDLE}.install", "--parts-dir", "/srv", check=False, timeout=300)
        assert done.code == 0, done
        assert product.chat(server, QUESTION) == ANSWER


def test_the_script_refuses_what_is_damaged_before_it_runs_any_of_it(lab: Lab, made: Made) -> None:
    with lab.boot("damaged", network=False) as server:
        put(server, made, "site.llmb", "site.llmb.install")
        listed = [line.split() for line in server.read(f"{BUNDLE}.install").splitlines() if "site.llmb:" in line]
        assert {kind for kind, *_ in listed} == {"installer", "appliance", "wheel", "deb"}
        before = server.files(ignore=(PLACE,))
        for kind in ("installer", "appliance", "wheel", "deb"):
            name, where = next((name, cut) for one, name, _, cut in listed if one == kind)
            _, skip, length = where.split(":")
            place = int(skip) + int(length) // 2
            server.sh(f"printf X | dd of={BUNDLE} bs=1 seek={place} conv=notrunc status=none")
            done = server.run(f"{BUNDLE}.install", check=False, timeout=120)
            assert (done.code, f"damaged in site.llmb: {name}" in done.stderr) == (5, True), done
            server.put(made.home / "site.llmb", BUNDLE)
        assert server.files(ignore=(PLACE,)) == before
        # Weights are not among what the script checks: the appliance refuses them, and nothing is in force.
        size = (made.home / "site.llmb").stat().st_size
        server.sh(f"printf X | dd of={BUNDLE} bs=1 seek={size - 100_000} conv=notrunc status=none")
        done = server.run(f"{BUNDLE}.install", check=False, timeout=300)
        assert (done.code, "smoke.gguf of smoke" in done.stderr, "damaged in bytes" in done.stderr) == (
            5,
            True,
            True,
        ), done
        assert not server.exists("/var/lib/llm-appliance/current")
        assert not server.sh("ls /var/lib/llm-appliance/store/models", check=False).stdout


def test_it_asks_for_a_signature_that_is_known(installed: Server, made: Made) -> None:
    install = ("llm-appliance", "bundle", "install")
    put(installed, made, "stranger/site.llmb", "unsigned/site.llmb", "stranger/other.pub")
    before = installed.read("/var/lib/llm-appliance/record.json")
    for name, words in (("stranger", "unknown key"), ("unsigned", "it is not signed")):
        done = installed.run(*install, f"{PLACE}/{name}/site.llmb", check=False)
        assert (done.code, words in done.stderr) == (5, True), done
    assert installed.read("/var/lib/llm-appliance/record.json") == before
    installed.run(*install, f"{PLACE}/unsigned/site.llmb", "--allow-unsigned", timeout=60)
    installed.run(*install, f"{PLACE}/stranger/site.llmb", "--trust", f"{PLACE}/stranger/other.pub", timeout=60)


STEPS = ("unpack: gateway", "unpack: llama-server", "unpack: smoke", "store:", "write:", "switch:", "start:")
KILL = (
    '"$@" >/tmp/said 2>&1 & p=$!; until grep -q "$STEP" /tmp/said; do kill -0 $p 2>/dev/null || break; sleep 0.01; done; '
    "kill -9 $p 2>/dev/null; wait $p; echo $?"
)
"""Kills a program as soon as it says something; where the test runs would be too far away."""


def test_an_installation_that_is_killed_anywhere_goes_on(installed: Server) -> None:
    """Below prefixes, killed at each step; then once more, and it answers."""
    key = installed.sh("tail -n 1 /var/lib/llm-appliance/bundles/keys/*.pub").stdout.strip()
    for number, step in enumerate(STEPS):
        prefix = ("--prefix", f"/srv/second-{number}")
        words = ("llm-appliance", "bundle", "install", BUNDLE, "--trust", key, "--listen", "127.0.0.1:9000", *prefix)
        code = installed.run("bash", "-c", KILL, "bash", *words, env={"STEP": step}, timeout=120).stdout.strip()
        assert code == "137", (step, installed.read("/tmp/said"))
        done = installed.run(*words, timeout=120)
        assert f"smoke answers: {ANSWER}" in done.stdout
        left = installed.sh(f"find {prefix[1]} -name '*.new' -o -name '*.part'").stdout
        assert left == "", (step, left)
        installed.run("llm-appliance", "stop", *prefix, timeout=60)


def test_a_disk_that_is_too_small_or_fills_up_is_told_and_nothing_is_in_force(installed: Server) -> None:
    words = ("llm-appliance", "bundle", "install", BUNDLE, "--prefix", "/srv/small", "--listen", "127.0.0.1:9000")
    key = installed.sh("tail -n 1 /var/lib/llm-appliance/bundles/keys/*.pub").stdout.strip()
    for options, code, said in (
        ("size=20M", 4, "bytes free"),  # told from the index
        ("size=200M,nr_inodes=60", 4, "No space left"),  # no more names: nobody can tell beforehand
    ):
        installed.sh(f"mkdir -p /srv/small && mount -t tmpfs -o {options} tmpfs /srv/small")
        done = installed.run(*words, "--trust", key, check=False, timeout=120)
        assert (done.code, said in done.stderr) == (code, True), done
        assert not installed.exists("/srv/small/state/current")
        installed.run("umount", "/srv/small")
    installed.run("llm-appliance", "verify", timeout=60)


def test_nothing_reaches_for_a_network_that_is_there_and_minisign_says_the_same(lab: Lab, made: Made) -> None:
    """All calls of the whole installation are watched on a server that has a network: none but to itself."""
    with lab.boot("watched") as server:
        server.sh("apt-get update -qq && apt-get install -y -qq --no-install-recommends strace minisign")
        put(server, made, "site.llmb", "site.llmb.install", "site.llmb.install.minisig", "vendor.pub")
        check = ("minisign", "-V", "-p", f"{PLACE}/vendor.pub", "-m")
        assert "llm-appliance bundle" in server.run(*check, f"{BUNDLE}.install").stdout
        server.sh(f"tar -C {PLACE} -xf {BUNDLE} bundle.json bundle.json.minisig")
        assert "llm-appliance bundle" in server.run(*check, f"{PLACE}/bundle.json").stdout
        watch = (
            "strace",
            "-f",
            "-qq",
            "--seccomp-bpf",
            "-e",
            "trace=connect,sendto,sendmsg,sendmmsg",
            "-o",
            "/srv/trace",
        )
        done = server.run(*watch, f"{BUNDLE}.install", check=False, timeout=900)
        assert done.code == 0, done
        calls = [line for line in server.read("/srv/trace").splitlines() if "sa_family=AF_INET" in line]
        assert calls  # it asked its own gateway
        assert [line for line in calls if '"127.' not in line and '"::1"' not in line] == []


def test_what_was_installed_from_a_bundle_goes_without_a_trace(lab: Lab, made: Made) -> None:
    with lab.boot("gone", network=False) as server:
        put(server, made, "site.llmb", "site.llmb.install")
        before = server.files()
        server.run(f"{BUNDLE}.install", timeout=300)
        server.run("llm-appliance", "uninstall", "--purge-models", timeout=120)
        left = {path for path in difference(before, server.files()) if not path.startswith(LOGS)}
        assert left == set()


def test_an_ordinary_user_installs_it_below_a_prefix(installed: Server) -> None:
    """Where Python is, no root is needed; supervisord keeps it alive."""
    installed.run("useradd", "-m", "alice")
    words = (f"{BUNDLE}.install", "--prefix", "/home/alice/llm", "--listen", "127.0.0.1:9000")
    done = installed.run(*words, user="alice", timeout=300)
    assert f"smoke answers: {ANSWER}" in done.stdout
    assert installed.sh("find / -xdev -user alice -not -path '/home/alice*' -not -path '/proc/*'").stdout == ""
    assert not installed.sh("ls -d /home/alice/llm/.bundle*", user="alice", check=False).stdout
