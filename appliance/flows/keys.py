"""The verbs for clients' keys: the gateway takes over what they write within a second, and nothing is restarted."""

import difflib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from appliance import codec, keyring, specfile
from appliance.domain.changes import File
from appliance.domain.spec import ApplianceSpec
from appliance.errors import HostError, SpecError
from appliance.flows.planning import guards, read_spec
from appliance.flows.site import Site, require_rights, unknown_model
from appliance.keyring import Key
from appliance.system.lock import lock

BYTES = 32
"""Of chance in a key."""


def add(site: Site, key: Key) -> str:
    """Make a key and return it; it is shown this once. `key.sha256` and `key.created` are filled in here."""
    spec, _ = read_spec(site)
    for name in key.models or ():
        if name not in (known := _names(spec)):
            raise unknown_model(name, known)
    return _new(site, lambda keys, sha256, now: keyring.added(keys, _made(key, sha256, now)))


def rotate(site: Site, name: str, keep: int) -> str:
    """Make a new key for a name and return it; the old one is valid for `keep` seconds more."""

    def change(keys: tuple[Key, ...], sha256: str, now: int) -> tuple[Key, ...]:
        _require(keys, name)
        return keyring.rotated(keys, name, sha256, now, keep)

    return _new(site, change)


def revoke(site: Site, name: str) -> None:
    """Take a key away. Raises SpecError where the last one would leave the gateway open to everybody."""

    def change(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        _require(keys, name)
        left = keyring.without(keys, name)
        spec, _ = read_spec(site)
        specfile.check_guarded(spec, keys=len(left))
        return left

    _change(site, change)


def listed(site: Site) -> tuple[Key, ...]:
    """Return all keys. Raises HostError where this user may not see them."""
    path = site.layout.keys
    content = site.machine.read(path, codec.MAX_BYTES)
    if content is None and guards(site):
        raise HostError(f"{path} cannot be read", hint="run it with sudo")
    return keyring.load(content, path)


def _new(site: Site, change: Callable[[tuple[Key, ...], str, int], tuple[Key, ...]]) -> str:
    secret = keyring.PREFIX + secrets.token_urlsafe(BYTES)
    _change(site, lambda keys: change(keys, keyring.digest(secret), int(time.time())))
    return secret


def _change(site: Site, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        record = site.generations.record()
        # Who reads it does not exist before the first installation, which hands the file over then.
        owner = record.deployment.gateway_user if record else ""
        content = keyring.dump(change(listed(site)))
        site.machine.write(File(path=site.layout.keys, content=content, mode=0o600, user=owner))


def _made(key: Key, sha256: str, now: int) -> Key:
    return Key(
        name=key.name, sha256=sha256, created=now, expires=key.expires, models=key.models, rpm=key.rpm, tpm=key.tpm,
        parallel=key.parallel, metrics=key.metrics,
    )  # fmt: skip


def _names(spec: ApplianceSpec) -> tuple[str, ...]:
    names = [name for item in spec.models for name in (item.name, *(name for name, _ in item.adapters))]
    return (
        *names,
        *(alias for item in spec.models for alias in item.serving.aliases),
        *(name for name, _ in spec.splits),
    )


def _require(keys: tuple[Key, ...], name: str) -> None:
    names = tuple(dict.fromkeys(key.name for key in keys))
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"keys: {', '.join(names[:20]) or 'none'}"
        raise SpecError(f"no key is called {name!r}", hint=hint)
