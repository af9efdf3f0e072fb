"""What a hub says that a repository holds."""

from dataclasses import dataclass
from typing import Protocol

from appliance.acquire.hub.reference import Reference
from appliance.acquire.hub.settings import Settings
from appliance.system.web import Remote


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file of a repository."""

    path: str
    """In the repository, with slashes."""
    size: int
    """Bytes."""
    sha256: str = ""
    """Hex; "" where the hub does not tell: it keeps small files in git, under other digests."""

    side: bool = False
    """It belongs to the GGUF beside it, whatever it is called; small."""

    @property
    def name(self) -> str:
        """Its name without directories."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A repository at one commit."""

    reference: Reference
    """What was asked for, with the commit as its revision."""
    files: tuple[RemoteFile, ...]
    note: str = ""
    """What people should know of it."""


class Hub(Protocol):
    """What a module must hold to be a hub."""

    @property
    def PREFIX(self) -> str:  # noqa: N802 - a constant of the module
        """What its sources begin with, without the colon."""

    @property
    def TITLE(self) -> str:  # noqa: N802
        """What people call it."""

    def home(self, settings: Settings) -> str:
        """Return the URL that says whether anybody is there."""

    def look(self, reference: Reference, settings: Settings) -> Listing:
        """Ask what the repository holds. Raises WebError."""

    def remote(self, reference: Reference, path: str, settings: Settings) -> Remote:
        """Return where a file of the repository is to be had."""

    def hints(self, reference: Reference, settings: Settings) -> tuple[str, str]:
        """Return what to do when access is denied, and when the hub cannot be reached."""
