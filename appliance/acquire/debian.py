"""Debian and Ubuntu packages, fetched and verified by apt, unpacked into a directory of ours: nothing is installed."""

import os
import shutil
from pathlib import Path
from typing import Final

from appliance.acquire.source import Source, refuse_offline
from appliance.domain.changes import Command
from appliance.domain.deployment import Deployment
from appliance.domain.release import Artifact
from appliance.errors import ApplianceError, ArtifactError
from appliance.report import Progress
from appliance.system.machine import Machine, sync

SYSTEM: Final = ("libc6", "libgcc-s1")
"""The running system's own are used, so that its loader and its C library always match."""
DIRECTORIES: Final = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")


def gateway(artifact: Artifact, deployment: Deployment, machine: Machine, source: Source, progress: Progress) -> None:
    """Unpack nginx, its Lua module and their libraries."""
    target = Path(deployment.gateway.root)
    if target.is_dir():
        return
    refuse_offline(source, "nginx")
    progress.step("gateway", "nginx and its Lua module, from this distribution's packages")
    unpack_programs(tuple(artifact.ref.split()), target, Path(deployment.layout.cache), machine)
    done = machine.run(
        Command(argv=(deployment.gateway.program, "-v"), env=(("LD_LIBRARY_PATH", deployment.gateway.ld_library_path),))
    )
    if done.code:
        shutil.rmtree(target)
        raise ArtifactError(f"the unpacked nginx does not start: {done.stderr.strip()}")


def unpack_programs(packages: tuple[str, ...], target: Path, cache: Path, machine: Machine) -> None:
    """Make a directory of packages and all that they depend on, less the C library; it shows when it is whole."""
    archives = fetch(packages, cache, machine)
    chosen = [path for path in archives if path.name.partition("_")[0] not in SYSTEM]
    draft = target.with_name(f".{target.name}.new")
    unpack(chosen, draft, machine)
    draft.rename(target)
    sync(target.parent)
    shutil.rmtree(archives[0].parents[1], ignore_errors=True)


def fetch(packages: tuple[str, ...], cache: Path, machine: Machine) -> list[Path]:
    """Download packages with all that they depend on; apt checks its signed index. Raises ArtifactError.

    The closure is resolved as if nothing were installed, so that it does not change when the system does.
    """
    if not machine.which("apt-get") or not machine.which("dpkg-deb"):
        raise ArtifactError("no apt-get here: nginx is taken from Debian's or Ubuntu's packages")
    # Always an empty directory, for apt does not check again what lies there already; and one of this run's own,
    # for the apt of a run that was killed may still be at work in the last one.
    shutil.rmtree(cache / "debs", ignore_errors=True)
    home = cache / "debs" / f"{packages[0]}-{os.getpid()}"
    for part in ("state/lists/partial", "archives/partial"):
        (home / part).mkdir(parents=True, exist_ok=True)
    (home / "state" / "status").touch()
    options = _options(home)
    wanted = ("install", "--download-only", "--yes", "--no-install-recommends", "--", *packages)
    try:
        _apt(machine, ("apt-get", *options, "update"))
        _apt(machine, ("apt-get", *options, *wanted))
    except ApplianceError:
        shutil.rmtree(home.parent, ignore_errors=True)
        raise
    return sorted((home / "archives").glob("*.deb"))


def unpack(archives: list[Path], root: Path, machine: Machine) -> None:
    """Unpack packages into a new directory laid out as a merged /usr; absolute links are made to stay inside."""
    shutil.rmtree(root, ignore_errors=True)
    for name in DIRECTORIES:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for archive in archives:
        stream = root / ".unpacking.tar"
        read = Command(argv=("dpkg-deb", "--fsys-tarfile", str(archive)), stdout=str(stream), timeout=300)
        # Not `dpkg-deb -x`: it puts a directory where the merged /usr has its link.
        write = Command(
            argv=(
                "tar", "-x", "-f", str(stream), "-C", str(root), "--keep-directory-symlink", "--no-same-owner",
                "--no-same-permissions", "--exclude=./usr/share/doc", "--exclude=./usr/share/man",
                "--exclude=./usr/share/locale", "--exclude=./usr/share/info", "--exclude=./usr/share/lintian",
            ),
            timeout=300,
        )  # fmt: skip
        for command in (read, write):
            done = machine.run(command)
            if done.code:
                raise ArtifactError(f"{archive.name} cannot be unpacked: {done.stderr.strip()[-500:]}")
        stream.unlink()
    _keep_links_inside(root)


def _options(home: Path) -> tuple[str, ...]:
    settings = {
        "Dir::State": home / "state",
        "Dir::State::lists": home / "state" / "lists",
        "Dir::State::status": home / "state" / "status",
        "Dir::Cache": home,
        "Dir::Cache::archives": home / "archives",
        "Dir::Log": home,
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Sandbox::User": "root",
        # The machine's own hooks are not meant for our private lists.
        "APT::Update::Post-Invoke": "",
        "APT::Update::Post-Invoke-Success": "",
        "APT::Update::Error-Mode": "any",
    }
    return ("-q", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}")))


def _apt(machine: Machine, argv: tuple[str, ...]) -> str:
    done = machine.run(Command(argv=argv, timeout=1200, env=(("DEBIAN_FRONTEND", "noninteractive"),)))
    if done.code:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith(("E:", "W:"))]
        raise ArtifactError(
            "packages cannot be fetched: " + " ".join(said[-3:] or [f"apt-get ends with {done.code}"]),
            hint="check the network and /etc/apt/sources.list; behind a proxy set Acquire::http::Proxy or http_proxy",
        )
    return done.stdout


def _keep_links_inside(root: Path) -> None:
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory, name)
            if path.is_symlink() and (target := os.readlink(path)).startswith("/"):  # noqa: PTH115
                path.unlink()
                path.symlink_to(os.path.relpath(f"{root}{target}", os.path.realpath(directory)))
