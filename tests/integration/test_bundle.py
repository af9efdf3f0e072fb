"""Bundles: made on one server, installed on another that has no network and no Python, damaged, cut off and resumed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration import product
from tests.integration.conftest import Quickstart, remove_image
from tests.integration.lab import Completed, Lab, Mount, Server, difference
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
        make_extra(server, words)
        for name in server.sh(f"cd {PLACE} && find . -type f").stdout.split():
            (home / name).parent.mkdir(exist_ok=True)
            fetch(server, f"{PLACE}/{name}", home / name)
    for path in home.glob("**/*.install"):
        path.chmod(0o755)
    print(done.stderr, done.stdout, flush=True)
    assert "write" in again.stderr
    return Made(home, 0, done.stdout + done.stderr)


def kill_and_go_on(server: Server, words: tuple[str, ...]) -> None:
    """Kill a run that writes a bundle at ten places; the next one goes on, and what it makes is the same."""
    target = f"{PLACE}/killed/site.llmb"
    server.sh("apt-get update -qq && apt-get install -y -qq --no-install-recommends strace")
    codes = {place: killed(server, place, *words, "-o", target) for place in CREATING}
    assert codes == dict.fromkeys(CREATING, 137)
    server.run(*words, "-o", target, timeout=600)
    server.run("cmp", BUNDLE, target)
    assert server.sh(f"ls -A {PLACE}/killed").stdout.split() == [
        "site.llmb",
        "site.llmb.install",
        "site.llmb.install.minisig",
    ]
    server.run("rm", "-r", f"{PLACE}/killed", f"{PLACE}/again")


def make_extra(server: Server, words: tuple[str, ...]) -> None:
    """Make a bundle of a model with a chat template of its own, and of one that a provider serves with a key."""
    etc = "/etc/llm-appliance"
    server.write("/srv/ours.jinja", TEMPLATE)
    server.write(f"{etc}/models.d/styled.yaml", "source: builtin:smoke\nchat_template: /srv/ours.jinja\n")
    server.write(f"{etc}/models.d/kimi.yaml", f"source: {REMOTE}\nkey_file: {etc}/secrets/kimi.key\n")
    server.write(f"{etc}/secrets/kimi.key", f"{SECRET}\n", mode="0600")
    extra = f"{PLACE}/extra.llmb"
    server.run(*words, "-o", extra, "--base", BUNDLE, "--model", "styled", "--model", "kimi", timeout=600)
    assert server.run("grep", "-c", "-e", SECRET, "-e", "/srv/ours.jinja", extra, check=False).stdout.strip() == "0"
    assert server.run("grep", "-c", MARK, extra, check=False).stdout.strip() != "0"


MARK = "{# of this site #}"
TEMPLATE = (
    MARK
    + "{%- for message in messages %}"
    + r"{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    + r"{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
"""The built-in model's own one, with a mark in it."""
REMOTE = "remote:https://models.internal/v1#kimi"
SECRET = "sk-never-in-a-bundle"
CREATING = (
    ("pwrite64", 1), ("pwrite64", 2), ("pwrite64", 9), ("pwrite64", 30), ("pwrite64", 75), ("pwrite64", 150),
    ("copy_file_range", 2), ("copy_file_range", 5), ("fsync", 1), ("rename", 1),
)  # fmt: skip
INSTALLING = (
    ("pwrite64", 1), ("copy_file_range", 1), ("copy_file_range", 4), ("symlink", 2), ("symlink", 40), ("fsync", 3),
    ("rename", 1), ("rename", 3), ("rename", 5), ("fsync", 9),
)  # fmt: skip
"""Where a run is killed: at which call of the kernel's, and the how manieth of it."""


def killed(server: Server, place: tuple[str, int], *words: str) -> int:
    """Run a command that the kernel ends with SIGKILL at its Nth call of a name; return its exit code."""
    call, number = place
    # As a grandchild, for it must not wait for what goes on after the command: supervisord.
    trace = ("strace", "-D", "-f", "-qq", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")
    done = server.run(*trace, "-o", "/tmp/calls", *words, check=False, timeout=300)
    print(
        f"killed at {call} {number}: {done.code}, after {server.sh('tail -n 2 /tmp/calls', check=False).stdout[:300]}"
    )
    return done.code


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


def test_a_template_comes_along_and_a_providers_key_does_not(installed: Server, made: Made) -> None:
    put(installed, made, "extra.llmb")
    words = ("llm-appliance", "bundle", "install", f"{PLACE}/extra.llmb")
    key = "/etc/llm-appliance/secrets/kimi.key"
    done = installed.run(*words, check=False, timeout=60)
    assert (done.code, f"{key} is not there" in done.stderr, "install -D -m 600" in done.stderr) == (4, True, True), (
        done
    )
    installed.write("/root/key", "sk-another\n", mode="0600")
    installed.run("install", "-D", "-m", "600", "/root/key", key)
    installed.run(*words, timeout=120)
    unit = installed.read("/etc/systemd/system/llm-appliance-model@styled.service")
    found = unit.partition("/var/lib/llm-appliance/attached/")[2].split()[0].strip('"')
    assert installed.read(f"/var/lib/llm-appliance/attached/{found}") == TEMPLATE
    assert product.chat(installed, QUESTION, model="styled")
    assert "kimi" in installed.run("llm-appliance", "list").stdout
    assert "nothing to remove" in installed.run("llm-appliance", "prune", "--dry-run").stdout
    installed.run("llm-appliance", "rollback", timeout=60)
    assert "styled" not in installed.run("llm-appliance", "list").stdout


@dataclass(frozen=True)
class Weak:
    """A server whose processor says that it has no AVX-512, without network, and what the script did there."""

    server: Server
    refused: Completed


@pytest.fixture(scope="module")
def weak(lab: Lab, made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weak]:
    """Such a server after the first command, which leaves the program there to tell what the processor has."""
    said = Path("/proc/cpuinfo").read_text()
    less = tmp_path_factory.mktemp("processor") / "cpuinfo"
    less.write_text(re.sub(r"\bavx512\w*|\bavx_vnni\b|\bamx\w*", "", said))
    if less.read_text() == said:
        pytest.skip("this machine's processor has nothing that could be taken away")
    with lab.boot("weak", network=False, volumes=[Mount(less, "/proc/cpuinfo")]) as server:
        put(server, made, "site.llmb", "site.llmb.install")
        yield Weak(server, server.run(f"{BUNDLE}.install", check=False, timeout=300))


def test_a_processor_with_less_than_the_makers_is_refused_by_name(weak: Weak) -> None:
    done = weak.refused
    assert (done.code, "it was compiled for a processor with avx512" in done.stderr) == (4, True), done
    assert not weak.server.exists("/var/lib/llm-appliance/current")


@pytest.mark.skipif(not os.environ.get("LLM_APPLIANCE_SLOW"), reason="compiles an engine: LLM_APPLIANCE_SLOW=1")
def test_a_portable_bundle_serves_it(lab: Lab, quickstart: Quickstart, weak: Weak, made: Made) -> None:
    target = weak.server
    host = target.run("llm-appliance", "detect", "--json").stdout
    words = ("llm-appliance", "bundle", "create", "-o", f"{PLACE}/any.llmb", "--sign", f"{PLACE}/vendor.key")
    with product.installed(lab, quickstart.image, "portable") as server:
        server.put(made.home / "vendor.key", f"{PLACE}/vendor.key", mode="0600")
        server.write("/root/host.json", host)
        done = server.run(*words, "--host", "/root/host.json", check=False, timeout=600)
        assert (done.code, "avx512" in done.stderr, "--portable" in done.stderr) == (4, True, True), done
        done = server.run(*words, "--host", "/root/host.json", "--portable", timeout=1800)
        print(done.stdout)
        for name in ("any.llmb", "any.llmb.install"):
            fetch(server, f"{PLACE}/{name}", made.home / name)
    (made.home / "any.llmb.install").chmod(0o755)
    put(target, made, "any.llmb", "any.llmb.install")
    done = target.run(f"{PLACE}/any.llmb.install", timeout=300)
    assert f"smoke answers: {ANSWER}" in done.stdout
    assert "changed=0" in target.run("llm-appliance", "install", "--offline", timeout=60).stdout


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


@pytest.fixture(scope="module")
def traced(lab: Lab, made: Made, airgap: Airgap) -> Iterator[Server]:
    """A server that was installed from the bundle, with a program that lets calls of the kernel's fail."""
    with lab.boot("traced", image=airgap.image) as server:
        server.sh("apt-get update -qq && apt-get install -y -qq --no-install-recommends strace")
        yield server


def second(server: Server, name: str) -> tuple[str, ...]:
    """The command that installs the bundle once more, below a prefix."""
    key = server.sh("tail -n 1 /var/lib/llm-appliance/bundles/keys/*.pub").stdout.strip()
    where = ("--prefix", f"/srv/{name}", "--listen", "127.0.0.1:9000")
    return ("llm-appliance", "bundle", "install", BUNDLE, "--trust", key, *where)


def test_an_installation_that_is_killed_anywhere_goes_on(traced: Server) -> None:
    """Each run goes on with what the one before it left; the last one is let through, and it answers."""
    words = second(traced, "killed")
    for place in INSTALLING:
        code = killed(traced, place, *words)
        assert code == 137, place
    done = traced.run(*words, timeout=120)
    assert f"smoke answers: {ANSWER}" in done.stdout
    assert traced.sh("find /srv/killed -name '*.new' -o -name '*.part'").stdout == ""
    assert "changed=0" in traced.run(*words, timeout=120).stdout
    traced.run("llm-appliance", "stop", "--prefix", "/srv/killed", timeout=60)


@pytest.mark.parametrize(
    ("calls", "first", "error", "code", "said"),
    [
        ("preadv,preadv2,copy_file_range,sendfile", 40, "EIO", 5, "cannot be read: Input/output error"),
        ("pwrite64,copy_file_range,sendfile", 3, "ENOSPC", 4, "No space left"),
    ],
)
def test_a_disk_that_cannot_be_read_or_is_full_is_told_and_the_next_run_goes_on(
    traced: Server, calls: str, first: int, error: str, code: int, said: str
) -> None:
    words = second(traced, error)
    trace = ("strace", "-D", "-f", "-qq", "-o", "/tmp/calls", "-e", f"trace={calls}")
    inject = ("-e", f"inject={calls}:error={error}:when={first}+")
    done = traced.run(*trace, *inject, *words, check=False, timeout=300)
    print(done.stderr[-600:])
    assert (done.code, said in done.stderr) == (code, True), done
    assert not traced.exists(f"/srv/{error}/state/current")
    done = traced.run(*words, timeout=120)
    assert f"smoke answers: {ANSWER}" in done.stdout
    traced.run("llm-appliance", "stop", "--prefix", f"/srv/{error}", timeout=60)


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
