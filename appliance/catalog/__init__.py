"""Which engine releases exist and what they are made of: engines.yaml as data."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from appliance import codec
from appliance.domain.deployment import Release

DIRECTORY = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything that the appliance knows how to get."""

    schema: int
    releases: tuple[Release, ...]
    gateway_packages: tuple[str, ...]
    """Distribution packages that the gateway is unpacked from."""
    toolchain_packages: tuple[str, ...]
    """Distribution packages that a compiler is unpacked from where the machine has none."""


@cache
def catalog() -> Catalog:
    """Return the catalog that comes with this version."""
    return codec.load_yaml(Catalog, (DIRECTORY / "engines.yaml").read_text(), source="catalog engines.yaml")
