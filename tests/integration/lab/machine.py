"""The machine that carries the lab: its packages, its cache and its Docker daemon."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PACKAGE_OF = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "iptables": "iptables",
    "debootstrap": "debootstrap",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
DAEMON_START_SECONDS = 60.0
LOG_TAIL_LINES = 30
DEFAULT_MTU = 1500

# Daemons that this process started; kept referenced because they outlive it.
_started: list[subprocess.Popen[bytes]] = []


class LabError(Exception):
    """A program of the lab, or one inside a server, did not do what was asked."""


def command(
    *argv: str | Path,
    timeout: float,
    check: bool = True,
    data: bytes | None = None,
    stdin: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Runs a program on this machine, never through a shell and never without an end."""
    words = tuple(str(word) for word in argv)
    try:
        done = subprocess.run(
            words,
            input=data,
            stdin=None if data is not None else stdin or subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed on this machine") from error
    except subprocess.TimeoutExpired as error:
        seen = b"".join((error.stdout or b"", error.stderr or b"")).decode(errors="replace")
        raise LabError(f"no end after {timeout:g} s: {' '.join(words)}\n{seen}") from error
    if check and done.returncode != 0:
        seen = (done.stdout + done.stderr).decode(errors="replace")
        raise LabError(f"exit code {done.returncode}: {' '.join(words)}\n{seen}")
    return done


def missing_ability() -> str | None:
    """Why this machine cannot carry the lab, or None when it can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"the lab needs Linux on x86_64, this is {platform.system()} {platform.machine()}"
    if os.geteuid() != 0:
        return "the lab needs root"
    if shutil.which("apt-get") is None:
        return "the lab needs Debian or one of its children: there is no apt-get"
    return None


def cache() -> Path:
    """The directory that keeps base images and logs from one run to the next."""
    directory = Path(os.environ.get("LAB_CACHE", "/var/cache/llm-appliance-lab"))
    directory.mkdir(parents=True, exist_ok=True)
    return directory.resolve()


@contextmanager
def alone(what: str) -> Iterator[None]:
    """Makes one run of the lab wait while another one does the same thing."""
    with (cache() / f"{what}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def require_packages(needs: Mapping[str, str] = PACKAGE_OF) -> tuple[str, ...]:
    """Installs what the lab, or one of its tests, needs and this machine lacks; answers what it installed."""
    with alone("packages"):
        absent = {
            package for need, package in needs.items() if shutil.which(need) is None and not Path("/", need).is_file()
        }
        missing = tuple(sorted(absent))
        if missing:
            quiet = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
            install = ("apt-get", "install", "-y", "--no-install-recommends", *missing)
            if command(*install, timeout=600, check=False, env=quiet).returncode != 0:
                command("apt-get", "update", timeout=300, env=quiet)
                command(*install, timeout=600, env=quiet)
        return missing


def dockerd() -> None:
    """Makes sure that a Docker daemon answers: one that runs already, or one started here."""
    with alone("dockerd"):
        if _answers():
            return
        legacy = _legacy_iptables()
        attempts: list[tuple[Sequence[str], Mapping[str, str]]] = [
            ((), {}),
            ((), legacy),
            (("--storage-driver=vfs",), {}),
            (("--storage-driver=vfs",), legacy),
        ]
        tails: list[str] = []
        for options, env in attempts:
            tail = _start(options, env)
            if tail is None:
                return
            tails.append(tail)
        raise LabError("no Docker daemon starts here:\n" + "\n---\n".join(tails))


def _answers() -> bool:
    ask = ("docker", "version", "--format", "{{.Server.Version}}")
    done = command(*ask, timeout=30, check=False)
    return done.returncode == 0 and bool(done.stdout.strip())


def _start(options: Sequence[str], env: Mapping[str, str]) -> str | None:
    """Starts the daemon detached; answers the end of its log when it does not come up."""
    log = cache() / "dockerd.log"
    argv = ("dockerd", f"--mtu={_mtu()}", *options)
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
        )
    _started.append(daemon)
    deadline = time.monotonic() + DAEMON_START_SECONDS
    while daemon.poll() is None and time.monotonic() < deadline:
        if _answers():
            return None
        time.sleep(0.2)
    if daemon.poll() is None:
        daemon.terminate()
        try:
            daemon.wait(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(timeout=20)
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join((" ".join(argv), *lines))


def _legacy_iptables() -> dict[str, str]:
    """An environment in which `iptables` is the legacy one, for kernels without nftables.

    The machine's own choice in update-alternatives stays as it is.
    """
    directory = cache() / "iptables-legacy"
    directory.mkdir(exist_ok=True)
    for name in ("iptables", "ip6tables"):
        link = directory / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"/usr/sbin/{name}-legacy")
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def _mtu() -> int:
    """The MTU of the way out; a bridge with a larger one loses packets on some networks."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        interface, destination = line.split()[:2]
        if destination == "00000000":
            return int(Path("/sys/class/net", interface, "mtu").read_text())
    return DEFAULT_MTU
