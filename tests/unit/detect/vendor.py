"""A vendor that says what a test wants."""

from collections.abc import Callable
from dataclasses import dataclass

from appliance.detect.gpu import Found, Vendor
from appliance.system.machine import Machine


def nothing(_machine: Machine, _present: bool) -> Found:
    return Found()


@dataclass(frozen=True, kw_only=True)
class FakeVendor:
    """As a module of appliance/detect/gpu/ is."""

    VENDOR: str = "acme"
    PCI: tuple[str, ...] = ("acce",)
    TOOLS: tuple[str, ...] = ("acme-smi",)
    MODULES: tuple[str, ...] = ("acme", "openacme")
    answer: Callable[[Machine, bool], Found] = nothing

    def probe(self, machine: Machine, present: bool) -> Found:
        return self.answer(machine, present)


CONFORMS: Vendor = FakeVendor()
