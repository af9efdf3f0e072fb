"""A remote model's headers: small files come at once, of large ones the beginning only, into a directory with holes."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

from appliance.acquire.hub.choose import INDEX, Choice, shards
from appliance.acquire.hub.listing import Hub, Listing, RemoteFile
from appliance.acquire.hub.reference import Reference
from appliance.acquire.hub.settings import Settings
from appliance.domain.weights import WeightFile, Weights
from appliance.errors import ArtifactError
from appliance.report import Progress, work
from appliance.system.ranges import RangeReader
from appliance.system.web import WebError, ask, broken, patiently
from appliance.weights import gguf, safetensors
from appliance.weights.cursor import MAX_HEADER
from appliance.weights.inspect import inspect
from appliance.weights.jsonfile import read_object

SMALL = 64 << 20
"""Bytes of one side file; the largest tokenizers known have 35 MB."""
MOST = 200 << 20
"""Bytes of all side files together."""


def read(
    pinned: Reference, listing: Listing, choice: Choice, hub: Hub, settings: Settings, home: Path, progress: Progress
) -> Weights:
    """Return what the headers say, with the side files left in `home`. Raises WebError or ArtifactError.

    `home` appears when all of it is there. The parsers read a directory as they do on this machine; of a file with
    tensors it holds the bytes that they asked for, and holes in place of the rest.
    """
    draft = home.with_name(f".{home.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        return _read(pinned, listing, choice, hub, settings, draft, home, progress)
    except ArtifactError as error:
        # People know the model by its name on the hub, and not where we keep its headers.
        message = error.message.replace(f"{draft}/", f"{pinned}: ").replace(str(draft), str(pinned))
        raise ArtifactError(message, hint=error.hint) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _read(
    pinned: Reference,
    listing: Listing,
    choice: Choice,
    hub: Hub,
    settings: Settings,
    draft: Path,
    home: Path,
    progress: Progress,
) -> Weights:
    known = {one.name: _small(one, listing, hub, settings, draft, progress) for one in _bounded(pinned, choice.side)}
    files = choice.tensors if choice.format == "gguf" else shards(choice, _placed(draft, known))
    known |= {one.name: one for one in files}
    with work(progress, "reading headers", len(files), unit="files") as bar:
        for one in files:
            _head(one, choice.format, listing, hub, settings, draft)
            bar.advance(1)
    weights = inspect(draft / files[0].name if choice.format == "gguf" else draft)
    code = choice.format == "safetensors" and any(one.path.endswith(".py") for one in listing.files)
    listed = [one.name for one in weights.files]
    beside = [one.name for one in choice.side if one.name not in listed]
    result = replace(
        weights,
        code=weights.code or code,
        files=tuple(_remote(known[name], listing.reference, pinned) for name in (*listed, *beside)),
    )
    for one in files:
        (draft / one.name).unlink()
    shutil.rmtree(home, ignore_errors=True)
    draft.rename(home)
    return result


def _bounded(pinned: Reference, side: tuple[RemoteFile, ...]) -> tuple[RemoteFile, ...]:
    if sum(one.size for one in side) > MOST or any(one.size > SMALL for one in side):
        raise ArtifactError(f"{pinned}: its configuration and tokeniser have more than {SMALL >> 20} MiB")
    return side


def _placed(draft: Path, known: dict[str, RemoteFile]) -> frozenset[str]:
    """Return the shards that the index names."""
    if INDEX not in known:
        return frozenset()
    found = read_object(draft / INDEX, SMALL).get("weight_map")
    return frozenset(map(str, found.values())) if isinstance(found, dict) else frozenset()


def _small(
    file: RemoteFile, listing: Listing, hub: Hub, settings: Settings, draft: Path, progress: Progress
) -> RemoteFile:
    """Fetch a whole small file, and digest it where the hub did not."""
    where = hub.remote(listing.reference, file.path, settings)

    def fetch() -> bytes:
        with ask(where, certificates=settings.certificates) as response:
            try:
                content = response.read(SMALL + 1)
            except OSError as error:
                raise broken(where.url, error) from None
        if len(content) != file.size:
            raise WebError(where.url, kind="cut", reason=f"{len(content):,} of {file.size:,} bytes of {file.path} came")
        return content

    content = patiently(fetch)
    digest = hashlib.sha256(content).hexdigest()
    if file.sha256 and digest != file.sha256:
        raise ArtifactError(
            f"{listing.reference}: {file.path} has the digest {digest}, {file.sha256} was promised",
            hint="the mirror may be out of step: try again, or another one",
        )
    (draft / file.name).write_bytes(content)
    progress.note(f"{file.path}: {len(content):,} bytes")
    return replace(file, sha256=digest)


def _head(file: RemoteFile, form: str, listing: Listing, hub: Hub, settings: Settings, draft: Path) -> None:
    """Parse a header over the network; what the parser read is then on the disk, at its place."""
    name = f"{listing.reference}: {file.path}"
    if not file.sha256:
        raise ArtifactError(f"{name}: the hub gives no digest of it", hint="download it by hand and give its path")
    where = hub.remote(listing.reference, file.path, settings)
    limit = min(file.size, MAX_HEADER + (8 << 20))
    with RangeReader(
        where, file.size, draft / file.name, limit=limit, certificates=settings.certificates
    ) as stream:  # fmt: skip
        if form == "gguf":
            gguf.parse(stream, file.size, name)  # type: ignore[arg-type]
        else:
            # The first bytes are looked at once more, to name what is no safetensors file.
            stream.read(min(4096, file.size))
            safetensors.parse(stream, file.size, name)  # type: ignore[arg-type]


def _remote(file: RemoteFile, commit: Reference, pinned: Reference) -> WeightFile:
    where = str(pinned) if pinned.hub == "ollama" else f"{commit.hub}:{commit.repository}@{commit.revision}"
    url = pinned.repository if pinned.hub == "https" else f"{where}/{file.path}"
    return WeightFile(name=file.name, path="", size=file.size, sha256=file.sha256, url=url)
