"""Where artifacts come from: the registries and mirrors that pip and apt are set up for, or nothing when offline."""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from appliance.bundle.index import Component
from appliance.domain.changes import Command
from appliance.domain.deployment import Model
from appliance.domain.release import Artifact
from appliance.errors import ArtifactError
from appliance.report import Progress
from appliance.system.machine import Machine

PUBLIC: Final = "https://pypi.org/simple"
"""Python's own index, where nothing else is set up."""
TRUST: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
"""Where distributions keep the certificates that this machine trusts, a company's own among them."""


class Carried(Protocol):
    """What was carried here, in place of a network."""

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The engines and the gateway in it."""

    @property
    def models(self) -> tuple[Model, ...]:
        """The models in it."""

    def component(self, artifact: Artifact) -> Component | None:
        """Return what holds an artifact, None when nothing does."""

    def size(self, artifact: Artifact) -> int:
        """Return the bytes that it takes on the disk, 0 when it is not in it."""

    def bring(self, component: Component, target: Path, progress: Progress) -> None:
        """Put a directory in place. Raises ArtifactError."""

    def load(self, component: Component, artifact: Artifact, progress: Progress) -> None:
        """Give an image to Docker, under an artifact's name. Raises ArtifactError."""

    def attach(self, progress: Progress) -> None:
        """Put what models are served with beside their weights in place. Raises ArtifactError."""

    def has_model(self, model: Model) -> bool:
        """Tell whether a model's weights are in it."""

    def weights(self, model: Model, progress: Progress) -> None:
        """Bring a model's files into the store's waiting room. Raises ArtifactError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The registries that may be asked, or the bundle that is here in their place."""

    offline: bool = False
    """Nothing may reach the network."""
    bundle: Carried | None = None
    """What was carried here."""
    state: str = ""
    """Directory whose catalog says which packages a compiler is unpacked from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The Python package index of this machine, as pip is set up."""

    url: str
    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()

    @property
    def wheelhouse(self) -> bool:
        """Packages lie in directories of this machine, too: with those, no network is needed."""
        return any(Path(place.removeprefix("file://")).is_dir() for place in self.find_links)

    def options(self, source: Source) -> tuple[str, ...]:
        """Return the words that keep uv to the wheelhouse."""
        return ("--no-index",) if source.offline and self.wheelhouse else ()

    def environment(self, source: Source) -> tuple[tuple[str, str], ...]:
        """Return what makes uv ask the same places as pip, trusting what the system trusts."""
        pairs = [
            ("UV_DEFAULT_INDEX", self.url),
            ("UV_INDEX", " ".join(self.extra)),
            ("UV_FIND_LINKS", ",".join(self.find_links)),
            # As pip does; every requirement has its digest, so no foreign package can slip in.
            ("UV_INDEX_STRATEGY", "unsafe-best-match"),
            ("UV_SYSTEM_CERTS", "1"),
            ("UV_NO_CONFIG", "1"),
            ("UV_PYTHON_DOWNLOADS", "never"),
            ("UV_OFFLINE", "1" if source.offline else ""),
            ("SSL_CERT_FILE", certificates()),
        ]
        return tuple((name, value) for name, value in pairs if value)


def index(machine: Machine) -> Index:
    """Read pip's settings: its environment variables first, then its files."""
    done = machine.run(Command(argv=(sys.executable, "-m", "pip", "config", "list"), timeout=30))
    settings = parse_pip_config(done.stdout)
    environment = {key.removeprefix("PIP_").lower().replace("_", "-"): value for key, value in os.environ.items()}
    merged = {**settings, **{key: value for key, value in environment.items() if key in NAMES}}
    return Index(
        url=os.environ.get("UV_DEFAULT_INDEX") or merged.get("index-url", PUBLIC),
        extra=tuple(merged.get("extra-index-url", "").split()),
        find_links=tuple(merged.get("find-links", "").split()),
    )


NAMES: Final = ("index-url", "extra-index-url", "find-links")


def parse_pip_config(text: str) -> dict[str, str]:
    """Return `index-url` and its like from `pip config list`: lines of `section.name='value'`."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    found = {}
    for key, value in pairs:
        section, _, name = key.strip().rpartition(".")
        if section in ("global", "install", "download", ":env:") and name in NAMES:
            found[name] = " ".join(shlex.split(value)).replace("\\n", " ")
    return found


def certificates() -> str:
    """Return the file of trusted certificates, "" where the library's own must do."""
    candidates = (os.environ.get("SSL_CERT_FILE", ""), os.environ.get("PIP_CERT", ""), *TRUST)
    return next((path for path in candidates if path and Path(path).is_file()), "")


def refuse_offline(source: Source, what: str) -> None:
    """Raise ArtifactError when `what` would have to come over the network and must not."""
    if source.offline:
        raise ArtifactError(f"{what} is not here, and --offline forbids to fetch it", hint="run it once with network")
