"""nginx as other distributions have it: their packages with their C library, in a directory that it is locked into.

Needs root. `LLM_APPLIANCE_NGINX_OF=noble pytest tests/integration/test_gateway.py` runs the gateway's tests on it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.acquire import debian
from appliance.system.machine import RealMachine

RESOLVING = ("/etc/hosts", "/etc/resolv.conf")
VARIABLE = "LLM_APPLIANCE_NGINX_OF"
KEYRING = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
KEYRING_SHA256 = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"


@dataclass(frozen=True)
class Suite:
    """Where a release's packages are, and whose signature they bear."""

    mirror: str
    components: str
    keyring: str
    """Absolute path; "" = comes with the archive itself, and is known by its digest."""


SUITES = {
    "trixie": Suite("http://deb.debian.org/debian", "main", "/usr/share/keyrings/debian-archive-keyring.gpg"),
    "noble": Suite("http://archive.ubuntu.com/ubuntu", "main universe", ""),
}
"""Debian 13 and Ubuntu 24.04. Ubuntu 22.04 has no Lua for nginx."""


def root_of(name: str, packages: Sequence[str], cache: Path) -> Path:
    """Return the directory with a release's packages in it; made once."""
    key = hashlib.sha256(" ".join((name, *packages)).encode()).hexdigest()
    root = cache / f"{name}-{key[:12]}"
    if not root.exists():
        home = cache / f"{name}-debs"
        shutil.rmtree(home, ignore_errors=True)
        draft = root.with_suffix(".new")
        debian.unpack(_fetched(SUITES[name], name, (*packages, "libc6"), home), draft, RealMachine())
        for directory in ("tmp", "dev", "etc"):
            (draft / directory).mkdir(exist_ok=True)
        for file in RESOLVING:
            draft.joinpath(file[1:]).touch()
        draft.rename(root)
        shutil.rmtree(home)
    return root


def locked_in(root: Path, user: int) -> tuple[str, ...]:
    """Return the words before a command that has it see `root`, and of this machine /tmp, /dev and how names resolve."""
    mounts = " && ".join(f'mount --rbind {path} "$0{path}"' for path in ("/tmp", "/dev", *RESOLVING))  # noqa: S108
    script = f'{mounts} && exec /usr/sbin/chroot --userspec="$1" "$0" "${{@:2}}"'
    return ("unshare", "--mount", "--", "bash", "-c", script, str(root), f"{user}:{user}")


def _fetched(suite: Suite, name: str, packages: Sequence[str], home: Path) -> list[Path]:
    for part in ("state/lists/partial", "archives/partial"):
        (home / part).mkdir(parents=True)
    (home / "state" / "status").touch()
    keyring = suite.keyring or _keyring(suite, home)
    lines = [
        f"deb [arch={_architecture()} signed-by={keyring}] {suite.mirror} {one} {suite.components}\n"
        for one in (name, f"{name}-updates")
    ]
    (home / "sources.list").write_text("".join(lines))
    settings = {
        "Dir::Etc::sourcelist": home / "sources.list", "Dir::Etc::sourceparts": "/nonexistent",
        "Dir::State": home / "state", "Dir::State::status": home / "state" / "status",
        "Dir::Cache": home, "Dir::Cache::archives": home / "archives",
        "Acquire::Languages": "none", "APT::Sandbox::User": "root", "APT::Update::Error-Mode": "any",
    }  # fmt: skip
    apt = ("apt-get", "-q", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}")))
    _run(*apt, "update")
    _run(*apt, "install", "--download-only", "--yes", "--no-install-recommends", "--", *packages)
    return sorted((home / "archives").glob("*.deb"))


def _keyring(suite: Suite, home: Path) -> str:
    package = home / "keyring.deb"
    _run("curl", "--fail", "--silent", "--show-error", "--output", str(package), f"{suite.mirror}/{KEYRING}")
    assert hashlib.sha256(package.read_bytes()).hexdigest() == KEYRING_SHA256, "Ubuntu's keyring is another one"
    _run("dpkg-deb", "-x", str(package), str(home / "keyring"))
    return str(home / "keyring/usr/share/keyrings/ubuntu-archive-keyring.gpg")


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def _run(*argv: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    done = subprocess.run(argv, check=False, timeout=600, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{argv[0]}: {(done.stderr or done.stdout)[-500:]}"
