"""Where things of hubs lie: side files in the cache, downloads in a waiting room, sources beside the store."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from appliance import codec
from appliance.acquire.hub.reference import Reference
from appliance.domain.deployment import Model
from appliance.domain.weights import WeightFile
from appliance.errors import SpecError
from appliance.system.transfer import part

MANIFEST = 4 << 20
"""Bytes of a file that says what a model in the store is."""


ANSWERED = "hub-that-answers"
"""File of the cache with an address."""


def writable(cache: str) -> str:
    """Return the cache, or one of one's own for who may look but not write."""
    nearest = next(path for path in (Path(cache), *Path(cache).parents) if path.exists())
    if os.access(nearest, os.W_OK | os.X_OK):
        return cache
    own = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return f"{own}/llm-appliance"


def answered(cache: str) -> str:
    """Return the address of the hub that answered when it was last asked which one does; "" = not known."""
    return read(Path(cache, ANSWERED)).decode(errors="replace").strip()


def remember_answer(home: str, cache: str) -> None:
    """Keep which hub answered: who is out of reach is waited for once, and not by every command."""
    if answered(cache) != home:
        path = Path(cache, ANSWERED)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{ANSWERED}.{os.getpid()}")
        draft.write_text(home + "\n")
        draft.rename(path)


def headers(reference: Reference, cache: str) -> Path:
    """Return the directory for what a pinned source's headers said."""
    text = str(reference)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", reference.repository.rpartition("://")[2])[:60]
    return Path(cache, "hub", f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:16]}")


def room(state: str) -> Path:
    """Return the directory of downloads that are in no model yet: same file system as the store, so they are linked."""
    return Path(state, "store", "downloads")


def waiting(file: WeightFile, state: str) -> Path:
    """Return where a download lies until its model is in the store: named by its digest, so any model can have it."""
    return room(state) / file.sha256


def there(file: WeightFile, state: str) -> int:
    """Return how many bytes of a file an earlier run has brought."""
    for path in (waiting(file, state), part(waiting(file, state))):
        try:
            return min(path.stat().st_size, file.size)
        except OSError:
            continue
    return 0


def in_store(state: str) -> dict[str, Path]:
    """Return digest -> a file of the store, for the files of all models that came from hubs."""
    home = Path(state, "store", "models")
    return {
        file.sha256: home / model.digest / file.name for model in stored(state) for file in model.weights.files
    }  # fmt: skip


def from_store(file: WeightFile, state: str, known: dict[str, Path]) -> bool:
    """Take a file that another model in the store has, too; what is there was digested when it came."""
    path = known.get(file.sha256)
    target = waiting(file, state)
    try:
        if path is None or path.stat().st_size != file.size:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)
    except OSError:
        return False  # a file system without hard links
    return True


def from_cache(file: WeightFile, cache: str, state: str) -> bool:
    """Take a side file from the cache, where reading the headers has put it; tell whether it was there."""
    for path in Path(cache, "hub").glob(f"[!.]*/{_escaped(file.name)}"):
        try:
            if path.stat().st_size != file.size:
                continue
            content = path.read_bytes()
        except OSError:
            continue
        if hashlib.sha256(content).hexdigest() == file.sha256:
            target = waiting(file, state)
            target.parent.mkdir(parents=True, exist_ok=True)
            part(target).write_bytes(content)
            part(target).rename(target)
            return True
    return False


def sources(state: str) -> Path:
    """Return the directory that says where the store's models came from."""
    return Path(state, "store", "sources")


def stored(state: str) -> Iterator[Model]:
    """Yield the models of hubs that are in the store, the newest first."""
    home = sources(state)
    paths = sorted(home.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True) if home.is_dir() else []
    for path in paths:
        try:
            model = codec.load_json(Model, read(path), source=str(path))
        except SpecError:
            continue  # of another version of ours; it is asked for again
        if Path(state, "store", "models", model.digest).is_dir():
            yield model


def remember(model: Model, state: str) -> None:
    """Write down where a model in the store came from."""
    home = sources(state)
    home.mkdir(parents=True, exist_ok=True)
    draft = home / f".{model.digest}.new"
    draft.write_text(codec.dump_json(model))
    draft.rename(home / f"{model.digest}.json")


def let_go(model: Model, state: str) -> None:
    """Remove the downloads that are in the store now."""
    for file in model.weights.files:
        waiting(file, state).unlink(missing_ok=True)
    home = room(state)
    if home.is_dir() and not any(home.iterdir()):
        home.rmdir()


def read(path: Path) -> bytes:
    """Return a small file, b"" when it is not there."""
    try:
        with path.open("rb") as stream:
            return stream.read(MANIFEST)
    except OSError:
        return b""


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)
