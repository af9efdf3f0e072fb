"""The package and the release archive: made here, judged by lintian, installed, upgraded and removed on real servers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import __version__
from tests.integration import product
from tests.integration.conftest import Quickstart
from tests.integration.faults import SLOW, answering
from tests.integration.lab import Lab, Server, require_packages
from tests.integration.lab.machine import alone, cache
from tests.integration.product import BASE, SMOKE

PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
NEWER = f"{__version__}.1"
TOOLS = {"lintian": "lintian", "man": "man-db", "mandoc": "mandoc"}
PIDS = "systemctl show -p MainPID --value llm-appliance-gateway llm-appliance-model@smoke"
OURS = "find / -xdev '(' -path /proc -o -path /var/cache/man ')' -prune -o '(' -name '*llm-appliance*' -o -name '*llm-gateway*' ')' -prune -print"


def wheels() -> Path:
    """Where the packages of installers/requirements.txt are kept from one run to the next."""
    import hashlib

    digest = hashlib.sha256((product.ROOT / "installers/requirements.txt").read_bytes()).hexdigest()
    return cache() / f"wheels-{digest[:16]}"


def release(source: Path, out: Path, *what: str) -> list[Path]:
    """Call release.sh; return what it made. Wheels come from the index once, later from what an earlier run got."""
    kept = wheels()
    from_index = not kept.is_dir()
    env = {} if from_index else {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(kept)}
    words = [str(source / "installers/release.sh"), "--out", str(out), "--python", sys.executable, *what]
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin", "SOURCE_DATE_EPOCH": "1795000000"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False, env={**path, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"\n# release.sh {' '.join(what)}{' (wheels from the index)' if from_index else ''}\n{done.stdout}", end="")
    made = [Path(line) for line in done.stdout.splitlines()]
    if from_index and made[0].suffix == ".deb":
        for old in cache().glob("wheels-*"):
            shutil.rmtree(old)
        subprocess.run(("dpkg-deb", "-x", made[0], out / "root"), check=True, timeout=120)
        shutil.copytree(out / "root/usr/lib/llm-appliance/wheel", kept)
    return made


@pytest.fixture(scope="module")
def older(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our package, made from this checkout."""
    with alone("wheels"):
        return release(product.ROOT, tmp_path_factory.mktemp("older"), "deb")[0]


@pytest.fixture(scope="module")
def newer(older: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the next release."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in (*product.SHIPPED, "Dockerfile.cuda"):
        copy = shutil.copytree if (product.ROOT / name).is_dir() else shutil.copy2
        copy(product.ROOT / name, checkout / name)
    about = checkout / "appliance/__init__.py"
    about.write_text(about.read_text().replace(f'"{__version__}"', f'"{NEWER}"'))
    return release(checkout, tmp_path_factory.mktemp("newer"), "deb")[0]


def archive(directory: Path, version: str, *, broken: bool = False) -> Path:
    """Make the archive of another release; a broken one starts no model."""
    checkout = directory / "checkout"
    for name in (*product.SHIPPED, "Dockerfile.cuda"):
        copy = shutil.copytree if (product.ROOT / name).is_dir() else shutil.copy2
        copy(product.ROOT / name, checkout / name)
    about, unit = checkout / "appliance/__init__.py", checkout / "templates/systemd/model.service.j2"
    about.write_text(about.read_text().replace(f'"{__version__}"', f'"{version}"'))
    if broken:
        unit.write_text(unit.read_text().replace("[Service]", "[Service]\nExecStartPre=/bin/false", 1))
    return release(checkout, directory / "out", "archive")[0]


@pytest.fixture
def taken_over(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    assert quickstart.code == 0, quickstart.output
    with product.installed(lab, quickstart.image, "handover") as server:
        yield server


def sh(server: Server, script: str, *, code: int = 0, timeout: float = 300) -> str:
    """Type something in the server; it and what it says are printed."""
    done = server.sh(script, check=False, timeout=timeout)
    print(f"\n# {script}\n{done.stdout}{done.stderr}", end="", flush=True)
    assert done.code == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def apt(server: Server, words: str) -> str:
    return sh(server, f"DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 {words}")


def test_lintian_has_no_error_and_the_same_checkout_gives_the_same_bytes(older: Path, tmp_path: Path) -> None:
    require_packages(TOOLS)
    done = subprocess.run(
        ("lintian", "--allow-root", older), capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    print(f"\n# lintian {older.name}\n{done.stdout}{done.stderr}", end="")
    assert done.returncode == 0, done.stdout
    assert "E: " not in done.stdout
    again = release(product.ROOT, tmp_path, "deb")[0]
    assert again.read_bytes() == older.read_bytes()


def test_every_page_of_the_manual_is_good_for_man_and_mandoc(older: Path, tmp_path: Path) -> None:
    require_packages(TOOLS)
    subprocess.run(("dpkg-deb", "-x", older, tmp_path), check=True, timeout=120)
    pages = sorted((tmp_path / "usr/share/man/man1").glob("*.gz"))
    assert {page.name for page in pages} >= {"llm-appliance.1.gz", "llm-appliance-add-model.1.gz"}
    for page in pages:
        for words in (("man", "--warnings", "-l", page), ("mandoc", "-T", "lint", "-W", "style", page)):
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
            assert done.stderr == "", f"{words}: {done.stderr}"


def test_a_package_is_installed_upgraded_under_load_removed_and_purged(
    server: Server, older: Path, newer: Path
) -> None:
    server.put(older, "/root/older.deb")
    server.put(newer, "/root/newer.deb")
    before = set(server.sh(OURS).stdout.split())
    apt(server, "update")
    apt(server, "install --no-install-recommends man-db /root/older.deb")
    assert __version__ in sh(server, "command -v llm-appliance; llm-appliance --version")
    assert "llm-appliance add-model" in server.sh("man llm-appliance-add-model | cat").stdout
    assert "COMMANDS" in server.sh("man llm-appliance | cat").stdout
    assert "add-model" in server.sh(
        "bash -c 'source /usr/share/bash-completion/completions/llm-appliance; COMP_WORDS=(llm-appliance add-); "
        'COMP_CWORD=1; _llm_appliance llm-appliance; echo "${COMPREPLY[@]}"\''
    ).stdout  # fmt: skip
    assert "nothing is installed here" in sh(server, "llm-appliance status", code=4)

    product.seed(server)
    assert "smoke answers" in sh(server, "llm-appliance install", timeout=1500)
    server.put(product.ROOT / "appliance/smoke/smoke.gguf", "/srv/second.gguf", mode="0644")
    sh(server, "llm-appliance add-model second /srv/second.gguf && llm-appliance keys add ann >/root/key")
    pids, program = server.sh(PIDS).stdout, server.sh("stat -c %i /opt/llm-appliance/venv").stdout
    asking = server.popen(
        "bash", "-c", "KEY=$(head -n 1 /root/key); until [ -e /root/enough ]; do curl -sS -o /dev/null -w '%{http_code}\\n' "
        f'{BASE}/v1/completions -H "Authorization: Bearer $KEY" -d '
        '\'{"model": "smoke", "prompt": "Hi", "max_tokens": 4}\'; sleep 0.1; done',
    )  # fmt: skip
    asking.wait_for("200")
    said = apt(server, "install /root/newer.deb")
    assert f"llm-appliance install puts in force what is new in {NEWER}" in said
    server.run("touch", "/root/enough")
    asking.wait()
    print(f"\nwhile it was upgraded: {len(asking.output.split())} requests, all of them answered")
    assert set(asking.output.split()) == {"200"}
    assert NEWER in sh(server, "llm-appliance --version")
    assert server.sh(PIDS).stdout == pids, "what serves was left alone"
    assert server.sh("stat -c %i /opt/llm-appliance/venv").stdout != program
    assert "changed=0" in sh(server, "llm-appliance install")

    said = apt(server, "remove llm-appliance")
    assert "left behind: /etc/llm-appliance/models.d/second.yaml" in said
    assert "left behind: /etc/llm-appliance/keys.json" in said
    assert sh(server, "ls -A /etc/llm-appliance").split() == ["appliance.yaml", "keys.json", "models.d"]
    assert sh(server, "ls -A /var/lib/llm-appliance").split() == ["store"]
    assert not server.exists("/opt/llm-appliance")
    assert not server.exists("/usr/bin/llm-appliance")
    assert (
        sh(
            server,
            "systemctl list-unit-files --no-legend 'llm-appliance*'; grep -lsxE 'nginx|llama-server' /proc/[0-9]*/comm || true",
        )
        == ""
    )
    sh(server, "getent passwd llm-gateway", code=2)

    said = apt(server, "purge llm-appliance")
    assert "Weights of models stay in /var/lib/llm-appliance/store" in said
    assert set(server.sh(OURS).stdout.split()) - before == {"/var/lib/llm-appliance"}


@SLOW
def test_a_release_archive_with_wheels_needs_no_network_and_is_the_same_each_time(
    server: Server, older: Path, tmp_path: Path
) -> None:
    plain, offline = release(product.ROOT, tmp_path / "one", "archive", "offline")
    again = release(product.ROOT, tmp_path / "two", "archive", "offline")
    assert [path.read_bytes() for path in again] == [plain.read_bytes(), offline.read_bytes()]
    with tarfile.open(plain) as archive:
        names = archive.getnames()
    top = f"llm-appliance-{__version__}"
    assert {name.partition("/")[0] for name in names} == {top}
    assert f"{top}/uv.lock" in names and f"{top}/installers/install.sh" in names
    assert not [name for name in names if "/.git" in name or "__pycache__" in name or name.startswith(f"{top}/wheels")]

    apt(server, "update")
    apt(server, "install --no-install-recommends python3-venv")
    server.disconnect()
    server.put(offline, "/srv/archive.tar.gz")
    said = sh(server, "cd /srv && tar -xzf archive.tar.gz && llm-appliance-*/installers/install.sh --program-only")
    assert "its environment in /opt/llm-appliance/venv" in said
    assert __version__ in sh(server, "llm-appliance --version && llm-appliance detect")
    assert not server.exists("/var/lib/llm-appliance/record.json")
    sh(server, "llm-appliance uninstall")
    assert not server.exists("/opt/llm-appliance") and not server.exists("/usr/local/bin/llm-appliance")


def test_the_program_is_upgraded_under_load_and_one_that_starts_no_model_is_taken_back(
    taken_over: Server, tmp_path: Path
) -> None:
    server, broken = taken_over, f"{__version__}.2"
    for version in (NEWER, broken):
        (tmp_path / version).mkdir()
        made = archive(tmp_path / version, version, broken=version == broken)
        server.put(made, f"/srv/{version}.tar.gz")
        server.put(made.with_name(f"{made.name}.sha256"), f"/srv/{version}.tar.gz.sha256")
    upgrade = "llm-appliance upgrade --appliance /srv/{}.tar.gz"
    server.sh(
        f"head -c 100000 /srv/{NEWER}.tar.gz >/srv/half.tar.gz; cp /srv/{NEWER}.tar.gz.sha256 /srv/half.tar.gz.sha256"
    )
    assert "half.tar.gz.sha256 says another one" in sh(server, upgrade.format("half"), code=5)
    assert "holds no release" in sh(server, "llm-appliance upgrade --appliance /srv", code=5)
    assert f"{__version__} -> {NEWER}" in sh(server, f"{upgrade.format(NEWER)} --dry-run")
    with answering(server):
        said = sh(server, upgrade.format(NEWER), timeout=600)
        assert f"{__version__} -> {NEWER}" in said and "smoke answers" in said
        assert NEWER in sh(server, "llm-appliance --version")
    said = sh(server, upgrade.format(broken), code=7, timeout=600)
    assert "is back" in said and "the program before is back" in said
    assert NEWER in sh(server, "llm-appliance --version && llm-appliance verify")
    assert "changed=0" in sh(server, "llm-appliance install")
    assert sh(server, "ls -A /opt/llm-appliance").split() == [".install.lock", "packages", "venv"]
    sh(server, "llm-appliance uninstall")
    assert not server.exists("/opt/llm-appliance")


@SLOW
def test_what_install_sh_made_is_taken_over_while_it_serves(taken_over: Server, older: Path) -> None:
    server = taken_over
    pids = server.sh(PIDS).stdout
    server.put(older, "/root/older.deb")
    apt(server, "update")
    apt(server, "install --no-install-recommends /root/older.deb")
    assert not server.exists("/usr/local/bin/llm-appliance")
    assert sh(server, "command -v llm-appliance").strip() == "/usr/bin/llm-appliance"
    assert "changed=0" in sh(server, "llm-appliance install")
    assert server.sh(PIDS).stdout == pids
    assert "is installed as a package here" in sh(server, product.INSTALL, code=4)
    assert product.chat(server, PROMPT) == ANSWER
    sh(server, "llm-appliance uninstall && llm-appliance --version")
    assert server.run("python3", "--version").stdout, "the package needs it"
