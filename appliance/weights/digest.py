"""SHA-256 of files and of whole models."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from appliance.domain.weights import WeightFile
from appliance.weights.files import open_regular

# Large enough that the time is hashing and not calls; hashlib lets other threads run meanwhile.
_CHUNK = 4 << 20


def sha256(path: str | Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Hex digest of the file; `on_bytes` is called with the bytes done since the last call.

    Raises ArtifactError when the file cannot be read.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    with open_regular(Path(path)) as (stream, _):
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
            if on_bytes:
                on_bytes(count)
    return digest.hexdigest()


def model_digest(files: tuple[WeightFile, ...]) -> str:
    """Hex digest over the names and digests of `files`, whatever their order and place.

    Raises ValueError when a file has no digest yet, or a name that would make two models look the same.
    """
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda one: one.name):
        if len(file.sha256) != 64 or "\n" in file.name or "\0" in file.name:
            raise ValueError(f"{file.name!r} cannot be part of a model's digest: sha256 {file.sha256!r}")
        digest.update(f"{file.name}\0{file.sha256}\n".encode())
    return digest.hexdigest()
