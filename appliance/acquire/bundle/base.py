"""What a target has already, so that a bundle can leave it out: said by an earlier bundle, or by the target itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance import codec
from appliance.acquire.bundle.here import known
from appliance.bundle import image as images
from appliance.bundle import index as indexes
from appliance.bundle.index import DIGEST, Index
from appliance.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is there."""

    digests: frozenset[str] = frozenset()
    """Of files."""
    keys: frozenset[str] = frozenset()
    """Of engines, gateways and models that are there as a whole, and of images' layers: their chain IDs."""
    serial: int = -1
    """Of the last bundle; -1 = none is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What `bundle inventory` says of a machine."""

    schema: int
    digests: tuple[str, ...]
    keys: tuple[str, ...]
    serials: tuple[tuple[str, int], ...] = ()


def of_bundle(index: Index) -> Known:
    """Return what a machine has on which that bundle was installed: of images their layers only, wherever they lie."""
    boxes = frozenset(one.payloads[0] for one in index.components if one.image)
    return Known(
        digests=frozenset({one.digest for one in index.payloads} | {one.digest for one in index.base}) - boxes,
        keys=frozenset(one.key for one in index.of("engine", "gateway", "model"))
        | images.known(one.payloads[1:] for one in index.components if one.image),
        serial=index.serial,
    )


def read_index(path: Path) -> Index:
    """Read a bundle.json by itself: enough to leave out what is in it. Raises ArtifactError."""
    return indexes.load(path.read_bytes(), source=str(path))


def inventory(
    state: Path, keys: tuple[str, ...], serials: dict[str, int], stacks: tuple[tuple[str, ...], ...]
) -> Inventory:
    """Return what this machine has; `keys` of engines and models in force, `stacks` the layers of Docker's images."""
    keys_ = sorted({*keys, *images.known(stacks)})
    return Inventory(
        schema=1, digests=tuple(sorted(known(state))), keys=tuple(keys_), serials=tuple(sorted(serials.items()))
    )


def of_inventory(document: Any, name: str, *, source: str) -> Known:
    """Read another machine's inventory; the serial is that of the bundles called `name`. Raises SpecError."""
    found = codec.from_data(Inventory, document, source=source)
    if not all(DIGEST.fullmatch(one) for one in (*found.digests, *found.keys)):
        raise SpecError(f"{source}: something in it is no SHA-256", hint="llm-appliance bundle inventory --json")
    return Known(
        digests=frozenset(found.digests), keys=frozenset(found.keys), serial=dict(found.serials).get(name, -1)
    )  # fmt: skip
