"""The clients' keys: what is kept of them, which is never the key itself, and how they come, change and go."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Final

from appliance import codec
from appliance.errors import SpecError
from appliance.serving import ALIAS

PREFIX: Final = "sk-"
"""What every key begins with: some clients refuse others."""
MOST: Final = 10_000
"""Keys; the gateway was tried with so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key as the gateway knows it."""

    name: str
    """Who has it; in the log, and what its limits are counted for."""
    sha256: str
    """Of the whole key, as hex. It is random and long, so nothing slower is needed."""
    created: int
    """Seconds since 1970."""
    expires: int | None = None
    """Seconds since 1970; None = never."""
    models: tuple[str, ...] | None = None
    """What it may ask for; None = everything."""
    rpm: int | None = None
    """Requests a minute."""
    tpm: int | None = None
    """Tokens a minute, of requests and answers."""
    parallel: int | None = None
    """Requests at the same time."""
    metrics: bool = False
    """It may read /metrics and /gateway/stat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeyFile:
    version: int = 1
    keys: tuple[Key, ...] = ()


def load(content: bytes | None, source: str) -> tuple[Key, ...]:
    """Read the key file; None = there is none. Raises SpecError."""
    if content is None:
        return ()
    document = codec.load_json(_KeyFile, content, source=source)
    if document.version != 1:
        raise SpecError(f"{source}: version: {document.version} is not known", hint="this release knows version 1")
    return document.keys


def dump(keys: tuple[Key, ...]) -> bytes:
    """Return the key file: one line for each key."""
    rows = [
        {name: value for name, value in asdict(key).items() if value is not None and value is not False} for key in keys
    ]
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f'{{"version": 1, "keys": [\n{lines}\n]}}\n'.encode()


def digest(secret: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def check(key: Key) -> Key:
    """Return a key when it can be meant. Raises SpecError."""
    if not ALIAS.fullmatch(key.name):
        raise SpecError(f"{key.name!r} cannot be a key's name", hint="1 to 63 of A-Z a-z 0-9 . _ : -")
    for what, number in (("--rpm", key.rpm), ("--tpm", key.tpm), ("--parallel", key.parallel)):
        if number is not None and not 1 <= number <= 1_000_000_000:
            raise SpecError(f"{what}: {number} is not between 1 and 1000000000")
    if key.expires is not None and key.expires <= key.created:
        raise SpecError("--expires: that day is over")
    return key


def added(keys: tuple[Key, ...], new: Key) -> tuple[Key, ...]:
    """Return the keys with one more. Raises SpecError when the name is taken, or there are too many."""
    if any(key.name == new.name for key in keys):
        raise SpecError(
            f"there is a key {new.name} already",
            hint=f"llm-appliance keys rotate {new.name} makes a new one; keys revoke {new.name} takes it away",
        )
    if len(keys) >= MOST:
        raise SpecError(f"{len(keys)} keys are there, and {MOST} is the limit", hint="llm-appliance keys revoke NAME")
    return (*keys, check(new))


def without(keys: tuple[Key, ...], name: str) -> tuple[Key, ...]:
    """Return the keys without one of that name, and those that it took the place of."""
    return tuple(key for key in keys if key.name != name)


def rotated(keys: tuple[Key, ...], name: str, sha256: str, now: int, keep: int) -> tuple[Key, ...]:
    """Return the keys with a new one for a name; the old one is valid for `keep` seconds more."""
    old = [key for key in keys if key.name == name and (key.expires is None or key.expires > now)]
    current = old[-1] if old else [key for key in keys if key.name == name][-1]
    ending = tuple(replace(key, expires=min(key.expires or now + keep, now + keep)) for key in old if keep)
    others = without(keys, name)
    return (*others, *ending, check(replace(current, sha256=sha256, created=now)))
