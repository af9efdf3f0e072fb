"""The store of weights: one directory for each set of files, named by its digest, never changed afterwards."""

import hashlib
import os
import shutil
from pathlib import Path

from appliance.acquire.hub import keep
from appliance.domain.deployment import Model
from appliance.domain.weights import WeightFile
from appliance.errors import ArtifactError, HostError
from appliance.report import Bar, Progress, amount_text, work
from appliance.system.machine import sync

BLOCK = 4 << 20


def home(model: Model, state: str) -> Path:
    """Return the model's directory in the store."""
    return Path(state, "store", "models", model.digest)


def has(model: Model, state: str) -> bool:
    """Tell whether the model is in the store; it only shows there when it is whole."""
    return not model.weights.files or home(model, state).is_dir()


def add(model: Model, state: str, progress: Progress, *, group: str = "") -> None:
    """Link or copy a model's files into the store. Raises ArtifactError when a digest does not match.

    What a hub or a bundle has must be in the waiting room already.
    """
    if has(model, state):
        return
    target = home(model, state)
    draft = target.with_name(f".{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    progress.step("store", f"{model.name}: {amount_text(model.weights.size)}")
    try:
        with work(progress, f"copying {model.name}", model.weights.size) as bar:
            for file in model.weights.files:
                if file.url or keep.waiting(file, state).exists():
                    _place(keep.waiting(file, state), draft / file.name)
                else:
                    _take(file, draft / file.name, bar, shared=not group)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise HostError(f"{model.name} cannot be stored in {target.parent}: {error.strerror or error}") from error
    except ArtifactError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync(draft)
    if any(file.url for file in model.weights.files) or not Path(model.weights.files[0].path).exists():
        keep.remember(model, state)
    draft.rename(target)
    sync(target.parent)
    keep.let_go(model, state)


def damaged(model: Model, state: str, progress: Progress) -> tuple[Path, ...]:
    """Return the files in the store that are not, byte for byte, what was put there; every byte is read."""
    with work(progress, f"reading {model.name}", model.weights.size) as bar:
        paths = [(home(model, state) / file.name, file.sha256) for file in model.weights.files]
        return tuple(path for path, sha256 in paths if not path.is_file() or digested(path, bar) != sha256)


def missing(model: Model, state: str) -> int:
    """Return the bytes that are still to be brought into the store."""
    if has(model, state):
        return 0
    known = keep.in_store(state)
    files = [file for file in model.weights.files if not (file.url and file.sha256 in known)]
    return sum(file.size - keep.there(file, state) for file in files)


def _take(file: WeightFile, target: Path, bar: Bar, *, shared: bool) -> None:
    """Hard-link a file that everybody may read and nobody else may change; copy any other."""
    try:
        status = os.stat(file.path)  # noqa: PTH116
    except OSError as error:
        raise ArtifactError(
            f"{file.path}: {error.strerror}", hint="give the model's files again: llm-appliance add-model NAME PATH"
        ) from error
    safe = status.st_uid == os.geteuid() and not status.st_mode & 0o022 and (shared or status.st_mode & 0o004)
    if safe and _link(file, target):
        if digested(target, bar) != file.sha256:
            target.unlink()
            raise _changed(file)
        return
    if copied(file.path, target, bar) != file.sha256:
        raise _changed(file)
    target.chmod(0o644)


def _place(download: Path, target: Path) -> None:
    """Take a download, whose digest was checked when it came; as a link, so that a kill here costs nothing."""
    try:
        os.link(download, target)
    except OSError:
        download.rename(target)  # a file system without hard links


def _link(file: WeightFile, target: Path) -> bool:
    try:
        os.link(file.path, target)
    except OSError:
        return False
    return True


def digested(path: Path, bar: Bar) -> str:
    """Return a file's SHA-256 as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            bar.advance(len(block))
    return digest.hexdigest()


def copied(source: str, target: Path, bar: Bar) -> str:
    """Copy to the disk and return the SHA-256 as hex, in one pass."""
    digest = hashlib.sha256()
    with open(source, "rb") as reader, target.open("xb") as writer:  # noqa: PTH123
        while block := reader.read(BLOCK):
            writer.write(block)
            digest.update(block)
            bar.advance(len(block))
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


def _changed(file: WeightFile) -> ArtifactError:
    return ArtifactError(
        f"{file.path} is not the file that was planned with: its digest differs",
        hint="it changed meanwhile; run the command again",
    )
