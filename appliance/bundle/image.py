"""Container images in a bundle: each layer a payload; put together again as the tar that Docker and Podman load."""

import hashlib
import json
import tarfile
from collections.abc import Iterable, Sequence

NAME = "blobs/sha256/{}"


def chains(layers: Sequence[str]) -> tuple[str, ...]:
    """Return the chain ID of each layer: it says what lies below it, too, and a Docker that has it needs no layer.

    As the OCI image specification defines it; `layers` are SHA-256 (hex) of their tars, the lowest first.
    """
    found: list[str] = []
    for layer in layers:
        below = f"sha256:{found[-1]} sha256:{layer}".encode() if found else b""
        found.append(hashlib.sha256(below).hexdigest() if found else layer)
    return tuple(found)


def known(stacks: Iterable[Sequence[str]]) -> frozenset[str]:
    """Return the chain IDs of several images, each given by its layers."""
    return frozenset(chain for layers in stacks for chain in chains(layers))


def names(layers: int) -> tuple[str, ...]:
    """Return what an image's payloads are called: its configuration, then its layers."""
    return ("config.json", *(f"layer-{number}.tar" for number in range(1, layers + 1)))


def full(ref: str) -> str:
    """Return an image's name with its registry: one without is Docker's own, but a file's is `localhost` to Podman."""
    host, slash, _ = ref.partition("/")
    if slash and (host == "localhost" or "." in host or ":" in host):
        return ref
    return f"docker.io/{'' if slash else 'library/'}{ref}"


def header(name: str, size: int) -> bytes:
    """Return the headers of one member of the tar that Docker loads."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.PAX_FORMAT)


def manifest(config: str, layers: Sequence[str], ref: str) -> bytes:
    """Return manifest.json of that tar: whose configuration and layers are called so, and the image `ref`."""
    row = {"Config": NAME.format(config), "RepoTags": [full(ref)], "Layers": [NAME.format(one) for one in layers]}
    return json.dumps([row]).encode()
