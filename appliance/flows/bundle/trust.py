"""Which keys are believed here, and which bundles were installed: small files below the state."""

from pathlib import Path

from appliance import codec
from appliance.bundle import keys
from appliance.bundle.keys import Key
from appliance.domain.changes import File
from appliance.errors import SpecError, UsageError
from appliance.flows.site import Site

KEYS = "bundles/keys"
SERIALS = "bundles/serials.json"


def read_key(word: str) -> Key:
    """Return the public key in a file, or the one that a word is. Raises UsageError."""
    path = Path(word)
    if not path.exists():
        return keys.read_public(word.encode(), source=f"--trust {word[:60]}")
    try:
        return keys.read_public(path.read_bytes()[:4096], source=word)
    except OSError as error:
        raise UsageError(f"{word}: {error.strerror}") from None


def pinned(site: Site) -> tuple[Key, ...]:
    """Return the keys that were pinned here. Raises UsageError for one that cannot be read."""
    home = f"{site.layout.state}/{KEYS}"
    names = [name for name in site.machine.names(home) if name.endswith(".pub")]
    return tuple(keys.read_public(site.machine.read(f"{home}/{name}", 4096) or b"", source=name) for name in names)


def pin(site: Site, key: Key) -> None:
    """Believe a key from now on."""
    if key.id not in {one.id for one in pinned(site)}:
        content = f"untrusted comment: minisign public key {key.id}\n{key.text}\n".encode()
        site.machine.write(File(path=f"{site.layout.state}/{KEYS}/{key.id}.pub", content=content))
        site.progress.note(f"key {key.id} is trusted from now on")


def serials(site: Site) -> dict[str, int]:
    """Return the serial of the last bundle that was installed, by name."""
    path = f"{site.layout.state}/{SERIALS}"
    content = site.machine.read(path, codec.MAX_BYTES)
    if not content:
        return {}
    try:
        return codec.load_json(dict[str, int], content, source=path)
    except SpecError as error:
        error.hint = f"remove {path}; then an older bundle is not told from a newer one"
        raise


def remember(site: Site, name: str, serial: int) -> None:
    """Write down which bundle was installed."""
    known = {**serials(site), name: serial}
    content = codec.dump_json(dict(sorted(known.items()))).encode()
    site.machine.write(File(path=f"{site.layout.state}/{SERIALS}", content=content))
