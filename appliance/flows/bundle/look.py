"""Looks at bundles and takes them apart: inspect, verify, diff, extract, and the inventory of this machine."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from appliance.acquire.bundle import Known, Reader, open_bundle
from appliance.acquire.bundle import base as bases
from appliance.acquire.bundle.base import Inventory
from appliance.bundle import compare, tar
from appliance.bundle.index import Index
from appliance.bundle.keys import Key
from appliance.errors import ArtifactError, HostError, UsageError
from appliance.flows import documents
from appliance.flows.bundle import trust
from appliance.flows.bundle.install import Wish, trusted
from appliance.flows.site import Site
from appliance.report import work
from appliance.system.docker import Daemon
from appliance.system.machine import sync


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a bundle says of itself."""

    index: Index
    claimed: str
    """Id of the key that it says to be signed by; "" = it is not signed."""
    key: Key | None
    """The key that did sign it, as far as it is known here."""
    problem: str = ""
    """Why the signature cannot be believed."""


def inspect(site: Site, wish: Wish) -> Seen:
    """Read signature and index, nothing else; whoever signed it, it is shown."""
    key, problem = None, ""
    try:
        with open_bundle(wish.path, places=wish.places, trusted=trusted(site, wish), allow_unsigned=True) as reader:
            return Seen(index=reader.index, claimed=reader.claimed, key=reader.key)
    except ArtifactError as error:
        problem = error.message
    with open_bundle(wish.path, places=wish.places, unchecked=True) as reader:
        return Seen(index=reader.index, claimed=reader.claimed, key=key, problem=problem)


def verify(site: Site, wish: Wish) -> Reader:
    """Check signature, index and every byte. Raises ArtifactError that names what is damaged."""
    known = trusted(site, wish)
    with open_bundle(wish.path, places=wish.places, trusted=known, allow_unsigned=wish.allow_unsigned) as reader:
        reader.verify(site.progress)
        return reader


def diff(old: Path, new: Path) -> compare.Difference:
    """Return how two bundles differ, whoever signed them."""
    with open_bundle(old, unchecked=True) as one, open_bundle(new, unchecked=True) as other:
        return compare.difference(one.index, other.index)


def extract(site: Site, wish: Wish, target: Path) -> Index:
    """Write the bundle as a directory: an OCI image layout that is a bundle as well. Raises ArtifactError."""
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty", hint="name a new directory")
    known = trusted(site, wish)
    draft = target.with_name(f".{target.name}.new")
    with open_bundle(wish.path, places=wish.places, trusted=known, allow_unsigned=wish.allow_unsigned) as reader:
        shutil.rmtree(draft, ignore_errors=True)
        blobs = draft / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        with work(site.progress, f"extracting {wish.path.name}", reader.index.size) as bar:
            for payload in reader.index.payloads:
                path = blobs / payload.digest
                stream = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
                try:
                    reader.write(payload, stream, reader.check(payload), 0, bar.advance)
                finally:
                    os.close(stream)
        for name, place, size in tar.head(len(reader.content)):
            (draft / name).write_bytes(reader.volume.read(place + tar.BLOCK, size))
        os.sync()
        if target.exists():
            target.rmdir()
        draft.rename(target)
        sync(target.parent)
        return reader.index


def inventory(site: Site) -> Inventory:
    """Return what this machine has, for bundles that leave it out. Raises HostError when nothing is installed."""
    record = site.generations.record()
    if record is None:
        raise HostError("nothing is installed here, so there is nothing to leave out")
    deployment = record.deployment
    keys = (*(one.digest for one in deployment.artifacts), *(one.digest for one in deployment.models))
    stacks = Daemon(deployment.podman).stacks() if deployment.gateway.image else ()
    return bases.inventory(Path(site.layout.state), keys, trust.serials(site), stacks)


def known(word: str, name: str) -> Known:
    """Return what a target has: from a bundle, an extracted one, its bundle.json, or an inventory."""
    path = Path(word)
    if path.suffix == ".json" and path.name != tar.INDEX:
        return bases.of_inventory(documents.read_json(word), name, source=word)
    if path.name == tar.INDEX and path.is_file():
        return bases.of_bundle(bases.read_index(path))
    with open_bundle(path, unchecked=True) as reader:
        return bases.of_bundle(reader.index)
