"""Writes the bundle: one tar file that only its owner reads."""

import io
import os
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance import __version__
from appliance.errors import ApplianceError, UsageError
from appliance.flows.site import Site
from appliance.flows.support import gather
from appliance.flows.support.redact import Redactor

ABOUT = """What this is: the state of an llm-appliance {version}, for whoever helps its operator.

Made {made} by `{command}`. Keys, tokens and passwords were taken out ({count} places say {mark}), and files that hold
nothing else are left out: keys.json, secrets/, private keys. What engines wrote into their logs is in it as it was;
look through it before it leaves the house: tar -xzOf FILE | less
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written."""

    path: str
    size: int
    """Bytes."""
    files: tuple[str, ...]
    redacted: int
    """Places where something was taken out."""


def write(site: Site, path: str) -> Written:
    """Gather everything and write it to `path`, which must not be there yet. Raises UsageError."""
    redact = Redactor(gather.secrets(site, dict(os.environ)))
    try:
        # Nobody else may read it, not even while it is being written.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} is there already", hint="-o FILE") from None
    names: list[str] = []
    home = Path(path).name.partition(".")[0]
    try:
        with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for name, make in gather.parts(site):
                site.progress.note(name)
                _add(tar, f"{home}/{name}", redact(_made(make)))
                names.append(name)
            about = ABOUT.format(
                version=__version__, made=time.strftime("%Y-%m-%d %H:%M:%S %z"), command=redact(site.command),
                count=redact.count, mark="[redacted]",
            )  # fmt: skip
            _add(tar, f"{home}/README.txt", about)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    return Written(path=path, size=Path(path).stat().st_size, files=tuple(names), redacted=redact.count)


def _made(make: Callable[[], str]) -> str:
    """Return a part's text, or why there is none: the others are wanted all the same."""
    try:
        return make()
    except ApplianceError as error:
        return f"cannot be had: {error.message}\n"
    except Exception as error:  # noqa: BLE001 - what is broken here is what the bundle is for
        return f"cannot be had: {type(error).__name__}: {error}\n"


def _add(tar: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode(errors="replace")
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
    tar.addfile(entry, io.BytesIO(content))
