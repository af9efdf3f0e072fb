"""What starts on a machine that has nothing: Python's packages, the appliance's own wheels, the installer's scripts."""

import base64
import hashlib
import io
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from typing import Final

from appliance import __version__, resources
from appliance.acquire import debian
from appliance.acquire.source import Source, index, refuse_offline
from appliance.domain.changes import Command
from appliance.errors import ArtifactError
from appliance.report import Progress
from appliance.system.machine import Machine

PACKAGES: Final = ("python3", "python3-pip-whl")
"""What installers/install.sh needs where there is no Python, with all that these depend on."""
FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~%_-]*\.deb")
"""What a package's file is called; the script beside a bundle takes it as one word."""
PROJECT: Final = "llm-appliance"
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Time of every file in our wheel: the earliest that a zip archive can say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A file that is carried as it is."""

    kind: str
    """`wheel` or `deb`."""
    name: str
    version: str
    path: Path
    size: int
    licence: str
    """SPDX expression, or what the package says; "" = it says nothing where we look."""


def wheels(cache: Path, machine: Machine, source: Source, progress: Progress) -> tuple[Package, ...]:
    """Return the wheels that the appliance itself needs, by the digests that come with it. Raises ArtifactError."""
    requirements = resources.data("installers/requirements.txt")
    home = cache / "bundle" / "wheels" / hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    if not (home / "complete").exists():
        refuse_offline(source, "the appliance's own packages")
        progress.step("wheels", "the appliance's own packages")
        draft = home.with_name(f".{home.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        where = index(machine)
        extra = [word for url in where.extra for word in ("--extra-index-url", url)]
        extra += [word for url in where.find_links for word in ("--find-links", url)]
        command = (
            sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps",
            "--require-hashes", "--only-binary", ":all:", "--index-url", where.url, *extra,
            "--dest", str(draft), "-r", str(requirements),
        )  # fmt: skip
        done = machine.run(Command(argv=command, env=where.environment(source), timeout=1800))
        if done.code:
            raise ArtifactError(
                f"the appliance's own packages cannot be fetched: {done.stderr.strip()[-500:]}",
                hint="check the network; behind a mirror set index-url in /etc/pip.conf",
            )
        shutil.rmtree(home, ignore_errors=True)
        draft.rename(home)
        (home / "complete").touch()
    return tuple(_wheel(path) for path in sorted(home.glob("*.whl")))


def debs(cache: Path, machine: Machine, source: Source, progress: Progress) -> tuple[Package, ...]:
    """Return Python's packages of this distribution with all they depend on, as for a machine that has none of them."""
    return _debs(PACKAGES, cache / "bundle" / "debs", cache, machine, source, progress)


def named(
    names: tuple[str, ...], cache: Path, machine: Machine, source: Source, progress: Progress
) -> Iterator[Package]:
    """Yield packages that the operator named, with all they depend on, as for a machine that has none of them.

    Raises ArtifactError.
    """
    if names:
        home = cache / "bundle" / f"debs-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:16]}"
        yield from _debs(names, home, cache, machine, source, progress)


def _debs(
    names: tuple[str, ...], home: Path, cache: Path, machine: Machine, source: Source, progress: Progress
) -> tuple[Package, ...]:
    if not (home / "complete").exists():
        refuse_offline(source, names[0])
        progress.step("packages", f"{', '.join(names)}, from this distribution's packages")
        archives = debian.fetch(names, cache, machine)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for archive in archives:
            shutil.copyfile(archive, home / archive.name)
        shutil.rmtree(archives[0].parents[1], ignore_errors=True)
        (home / "complete").touch()
    return tuple(_deb(path) for path in sorted(home.glob("*.deb")))


def given(path: Path) -> Package:
    """Return a package that the operator gave by its path. Raises ArtifactError."""
    if path.suffix != ".deb" or not path.is_file():
        raise ArtifactError(f"{path}: no package of Debian's or Ubuntu's")
    if not FILE.fullmatch(path.name):
        raise ArtifactError(f"{path}: a name that no package has", hint="call it NAME_VERSION_ARCH.deb")
    return _deb(path)


def own_wheel() -> tuple[str, bytes]:
    """Return (name, content) of a wheel of this very program; the same program gives the same bytes."""
    name = f"llm_appliance-{__version__}"
    files = dict(_own_files())
    files |= {f"{name}.dist-info/{key}": value for key, value in _about().items()}
    record = f"{name}.dist-info/RECORD"
    lines = [f"{path},sha256={_record(content)},{len(content)}" for path, content in sorted(files.items())]
    files[record] = "".join(f"{line}\n" for line in (*lines, f"{record},,")).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files, key=lambda path: (".dist-info/" in path, path)):
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[path])
    return f"{name}-py3-none-any.whl", buffer.getvalue()


def _own_files() -> Iterator[tuple[str, bytes]]:
    package = Path(resources.__file__).parent
    yield from _below(package, "appliance")
    for name in ("templates", "images", "installers"):
        if not (package / "_data").is_dir():
            yield from _below(resources.data(name), f"appliance/_data/{name}")


def _below(root: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            yield f"{prefix}/{path.relative_to(root).as_posix()}", path.read_bytes()


def _about() -> dict[str, bytes]:
    requires = "".join(f"Requires-Dist: {line}\n" for line in _requires())
    about = f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: {__version__}\nLicense: Apache-2.0\n{requires}"
    return {
        "METADATA": about.encode(),
        "WHEEL": b"Wheel-Version: 1.0\nGenerator: llm-appliance\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": b"[console_scripts]\nllm-appliance = appliance.__main__:main\n",
    }


def _requires() -> list[str]:
    try:
        return [line for line in metadata.requires(PROJECT) or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        return []  # run from a checkout; the requirements come with their digests all the same


def _record(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _wheel(path: Path) -> Package:
    name, version, *_ = path.name.split("-")
    with zipfile.ZipFile(path) as archive:
        about = next((one for one in archive.namelist() if one.endswith(".dist-info/METADATA")), "")
        said = HeaderParser().parsestr(archive.read(about).decode(errors="replace")) if about else Message()
    licence = str(said.get("License-Expression") or said.get("License") or "").partition("\n")[0].strip()[:120]
    return Package(kind="wheel", name=name, version=version, path=path, size=path.stat().st_size, licence=licence)


def _deb(path: Path) -> Package:
    name, version, *_ = path.name.removesuffix(".deb").split("_")
    # apt writes the colon of an epoch as %3a.
    return Package(
        kind="deb", name=name, version=version.replace("%3a", ":"), path=path, size=path.stat().st_size, licence=""
    )  # fmt: skip
