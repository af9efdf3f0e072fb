"""The image of a fresh server, built from Debian's packages because it needs no registry."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache as once
from pathlib import Path

from tests.integration.lab.machine import alone, cache, command

REPOSITORY = "llm-appliance-lab-server"
SUITE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "ca-certificates", "iproute2", "curl")
MIRROR = "http://deb.debian.org/debian/"
SECURITY_MIRROR = "http://deb.debian.org/debian-security/"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
EXTRA_CERTIFICATES = Path("usr/local/share/ca-certificates")
# Mounts are shared on a real server, but systemd leaves that to others when it runs in a container;
# without it no service sees its credentials.
START = ("/bin/sh", "-c", "mount --make-rshared / && exec /sbin/init")
# What decides on this machine whether its package mirror can be used at all.
APT_OPTIONS = (
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
)
# What a freshly installed server does not have: package lists and traces of its making.
LEFT_BY_DEBOOTSTRAP = (
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
    "var/log/alternatives.log",
    "var/log/apt",
    "debootstrap",
)
# What Debian does by itself at midnight and at six: it would hold dpkg's lock, and write where a test has just looked.
DAILY = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer")
EMPTY_DIRECTORIES = ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is in the image."""

    suite: str
    packages: tuple[str, ...]
    mirror: str
    security_mirror: str
    apt_options: str
    certificates: tuple[tuple[str, str], ...]
    start: tuple[str, ...]
    daily: tuple[str, ...]
    code: str

    @property
    def digest(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def sources(self) -> str:
        return "".join(
            f"deb {mirror} {suite} main\n"
            for mirror, suite in (
                (self.mirror, self.suite),
                (self.mirror, f"{self.suite}-updates"),
                (self.security_mirror, f"{self.suite}-security"),
            )
        )


@once
def base_image() -> str:
    """The name of the image of a fresh server; builds it when this recipe has none yet."""
    recipe = _recipe()
    name = f"{REPOSITORY}:{recipe.digest}"
    with alone("image"):
        if command("docker", "image", "inspect", name, timeout=60, check=False).returncode == 0:
            return name
        tarball = cache() / f"server-{recipe.digest}.tar"
        if not tarball.exists():
            _build(recipe, tarball)
            _remove_others(tarball)
        start = f"CMD {json.dumps(START)}"
        command("docker", "import", "--change", start, tarball, name, timeout=300)
    return name


def base_tarball() -> Path:
    """What the image of a fresh server is made of, as a file."""
    base_image()
    recipe = _recipe()
    with alone("image"):
        tarball = cache() / f"server-{recipe.digest}.tar"
        if not tarball.exists():
            _build(recipe, tarball)
    return tarball


def _recipe() -> Recipe:
    mirrors = _mirrors()
    options = ("apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', *APT_OPTIONS)
    return Recipe(
        suite=SUITE,
        packages=PACKAGES,
        mirror=mirrors.get(SUITE, MIRROR),
        security_mirror=mirrors.get(f"{SUITE}-security", SECURITY_MIRROR),
        apt_options=command(*options, timeout=30).stdout.decode(),
        certificates=tuple(
            (path.name, path.read_text()) for path in sorted(Path("/", EXTRA_CERTIFICATES).glob("*.crt"))
        ),
        start=START,
        daily=DAILY,
        code=inspect.getsource(_build) + inspect.getsource(_make_fresh),
    )


def _mirrors() -> dict[str, str]:
    """The mirror that this machine has configured for each suite."""
    listed = command("apt-get", "update", "--print-uris", timeout=60).stdout.decode()
    found = re.findall(r"^'(\S+/)dists/(\S+)/InRelease'", listed, re.MULTILINE)
    return {suite: mirror for mirror, suite in reversed(found)}


def _build(recipe: Recipe, tarball: Path) -> None:
    with _workplace() as workplace:
        root = workplace / "root"
        proxy = re.search(r'Acquire::http::Proxy "(.*)";', recipe.apt_options)
        command(
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(recipe.packages)}",
            f"--keyring={KEYRING}",
            recipe.suite,
            root,
            recipe.mirror,
            timeout=900,
            env={"http_proxy": proxy[1]} if proxy else None,
        )
        _make_fresh(root, recipe)
        unfinished = workplace / "server.tar"
        command("tar", "--one-file-system", "-C", root, "-c", "-f", unfinished, ".", timeout=300)
        unfinished.replace(tarball)


def _remove_others(tarball: Path) -> None:
    for other in tarball.parent.glob("server-*.tar"):
        if other != tarball:
            other.unlink()


@contextmanager
def _workplace() -> Iterator[Path]:
    """A directory for building in, gone afterwards with whatever was mounted inside."""
    directory = Path(tempfile.mkdtemp(prefix="building-", dir=cache()))
    try:
        yield directory
    finally:
        for mounted in ("proc", "sys"):
            command("umount", "-R", directory / "root" / mounted, timeout=30, check=False)
        shutil.rmtree(directory)


def _make_fresh(root: Path, recipe: Recipe) -> None:
    """Turns what debootstrap left into what a cloud provider hands out."""
    for name, text in recipe.certificates:
        path = root / EXTRA_CERTIFICATES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    command("chroot", root, "update-ca-certificates", timeout=120)
    (root / "etc/apt/sources.list").write_text(recipe.sources)
    if recipe.apt_options:
        (root / "etc/apt/apt.conf.d/90lab").write_text(recipe.apt_options)
    for name in LEFT_BY_DEBOOTSTRAP:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in EMPTY_DIRECTORIES:
        (root / name).mkdir(parents=True)
    for name in recipe.daily:
        (root / "etc/systemd/system" / name).symlink_to("/dev/null")
    # Every server gives itself an identity when it boots for the first time.
    (root / "etc/machine-id").write_text("")
    bus_id = root / "var/lib/dbus/machine-id"
    bus_id.unlink(missing_ok=True)
    bus_id.symlink_to("/etc/machine-id")
