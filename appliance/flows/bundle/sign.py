"""Keys that bundles are signed with: made, and used."""

import os
from pathlib import Path

from appliance.bundle import keys
from appliance.bundle.keys import Key
from appliance.errors import UsageError
from appliance.flows.bundle.create import Sign

SECRET = 0o600


def keygen(path: Path) -> tuple[Key, Path, Path]:
    """Write a pair of keys and return (public key, secret file, public file). Raises UsageError."""
    secret, public = path.with_name(f"{path.name}.key"), path.with_name(f"{path.name}.pub")
    for one in (secret, public):
        if one.exists():
            raise UsageError(
                f"{one} is there already", hint="name another file; whoever loses a key cannot sign any more"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    private, shown, key = keys.generate()
    for one, content, mode in ((secret, private, SECRET), (public, shown, 0o644)):
        stream = os.open(one, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(stream, "wb") as writer:
            writer.write(content)
    return key, secret, public


def signing(secret: Path, password: Path | None) -> Sign:
    """Return what signs with a key in a file that nobody else may read. Raises UsageError."""
    content = _read(secret)
    word = _read(password).decode(errors="replace").strip("\r\n") if password else ""

    def sign(index: bytes) -> tuple[bytes, Key]:
        return keys.sign(index, content, word, source=str(secret))

    sign(b"")  # a key that cannot be used is told before anything is made
    return sign


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise UsageError(f"{path}: others may read it", hint=f"chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="llm-appliance bundle keygen") from None
