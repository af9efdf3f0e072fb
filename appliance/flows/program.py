"""The program itself: a newer release of it, found and unpacked for its own installers/install.sh to take over."""

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance import __version__
from appliance.domain.changes import Command
from appliance.errors import ArtifactError
from appliance.flows.site import Site, require_rights

SCRIPT: Final = "installers/install.sh"
VERSION: Final = re.compile(r'^__version__ = "([^"\s]{1,40})"$', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Newer:
    """A release, or a checkout."""

    home: Path
    version: str
    old: str = __version__

    def argv(self, site: Site, *, offline: bool) -> tuple[str, ...]:
        """Return what puts it in force: an environment beside ours, then its own `install`; and back if that fails."""
        where = () if site.layout.prefix == "/" else ("--prefix", site.layout.prefix)
        return (str(self.home / SCRIPT), *where, *(("--offline",) if offline else ()))


def newer(site: Site, path: str) -> Newer:
    """Return the release in a directory, or unpack an archive of release.sh. Raises ArtifactError."""
    source = Path(path).absolute()
    if source.is_dir():
        return _read(source, path)
    require_rights(site)
    if not source.is_file():
        raise ArtifactError(f"{path} is not there", hint="llm-appliance upgrade --appliance ARCHIVE|DIRECTORY")
    _check_digest(site, source)
    return _read(_unpacked(site, source), path)


def _check_digest(site: Site, archive: Path) -> None:
    """Hold it against `ARCHIVE.sha256`, where release.sh's other file lies beside it. Raises ArtifactError."""
    beside = archive.with_name(f"{archive.name}.sha256")
    if not beside.is_file():
        site.progress.note(f"{beside.name} does not lie beside it: the archive is taken as it is")
        return
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if beside.read_text(errors="replace")[:64] != found:
        raise ArtifactError(f"{archive}: sha256 {found}, and {beside.name} says another one", hint="fetch both again")


def _unpacked(site: Site, archive: Path) -> Path:
    """Unpack below the cache, where the one before made room. Raises ArtifactError."""
    home = Path(site.layout.cache, "release")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    words = ("tar", "--no-same-owner", "--strip-components=1", "-C", str(home), "-xzf", str(archive))
    done = site.machine.run(Command(argv=words, timeout=300))
    if done.code:
        said = (done.stderr.strip().splitlines() or ["tar cannot read it"])[0]
        raise ArtifactError(f"{archive} cannot be unpacked: {said}", hint="installers/release.sh archive makes one")
    return home


def _read(home: Path, path: str) -> Newer:
    about = home / "appliance/__init__.py"
    found = VERSION.search(about.read_text(errors="replace")) if about.is_file() else None
    if found is None or not (home / SCRIPT).is_file():
        raise ArtifactError(
            f"{path} holds no release of llm-appliance",
            hint="an archive that installers/release.sh made, or a checkout; models: llm-appliance upgrade MODEL",
        )
    return Newer(home=home, version=found[1])
