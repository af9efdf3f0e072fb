"""Reads a secret from its file: a regular file that nobody else may read, holding one word."""

import stat
from pathlib import Path

from appliance.errors import HostError

LARGEST = 4096
"""Bytes."""


def read(path: str, what: str) -> str:
    """Return the secret. Raises HostError; no message ever holds a part of it."""
    place = Path(path)
    try:
        status = place.stat()
        if not stat.S_ISREG(status.st_mode):
            raise HostError(f"{path} is no file", hint=f"the {what} goes into a file, and its path here")
        if status.st_mode & 0o077:
            raise HostError(
                f"{path} can be read by others (mode {status.st_mode & 0o777:04o}); it holds the {what}",
                hint=f"chmod 600 {path}",
            )
        with place.open() as stream:
            content = stream.read(LARGEST)
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else "not text"
        raise HostError(
            f"the {what} cannot be read: {path}: {why}", hint="it must be a file of yours, mode 0600"
        ) from None
    if not content.strip():
        raise HostError(f"{path} is empty; the {what} goes into it")
    return word(content.strip(), path, what)


def word(text: str, where: str, what: str) -> str:
    """Return a secret that may stand in a header: most likely anything else is another file. Raises HostError."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise HostError(f"{where} holds no {what}: it has to be one word")
    return text
