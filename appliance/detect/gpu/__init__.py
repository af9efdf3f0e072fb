"""The GPUs: one module for each vendor, found by discovery; each is commands and files to ask, and pure readers."""

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast

from appliance.domain.host import Driver, Gpu
from appliance.system.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one vendor's tools and files told; nothing at all where there is no sign of that vendor."""

    gpus: tuple[Gpu, ...] = ()
    driver: Driver | None = None
    """None = no hardware, no kernel module and no tool of this vendor was seen."""
    silent: tuple[str, ...] = ()
    """Programs that gave no answer in time."""


class Vendor(Protocol):
    """What a module must hold to be a vendor."""

    @property
    def VENDOR(self) -> str:  # noqa: N802 - a constant of the module
        """As `Gpu.vendor` says it."""

    @property
    def PCI(self) -> tuple[str, ...]:  # noqa: N802
        """PCI vendor ids, four lower-case hexadecimal digits."""

    @property
    def TOOLS(self) -> tuple[str, ...]:  # noqa: N802
        """Programs of this vendor that are worth to be listed in `Host.tools`."""

    @property
    def MODULES(self) -> tuple[str, ...]:  # noqa: N802
        """Kernel modules that concern it, the wrong ones (nouveau) too."""

    def probe(self, machine: Machine, present: bool) -> Found:
        """Ask; `present` tells that a device of this vendor is on the PCI bus. Never raises."""


@cache
def vendors() -> tuple[Vendor, ...]:
    """Return every vendor's module."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))
    return tuple(cast("Vendor", importlib.import_module(f"{__name__}.{name}")) for name in names)
