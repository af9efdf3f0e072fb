"""Which driver a machine would need for the releases that its own one is too old for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from appliance.domain.host import Driver, Host
from appliance.domain.release import Release
from appliance.domain.version import version
from appliance.plan.fitness import NAMES, VENDORS, Wanted, fit

API: Final = (
    ("450.80.02", "11.0"), ("520.61.05", "11.8"), ("525.60.13", "12.0"), ("530.30.02", "12.1"), ("535.54.03", "12.2"),
    ("545.23.06", "12.3"), ("550.54.14", "12.4"), ("555.42.02", "12.5"), ("560.28.03", "12.6"), ("570.26", "12.8"),
    ("575.51.03", "12.9"), ("580", "13.0"), ("590.44.01", "13.1"), ("595.45.04", "13.2"),
)  # fmt: skip
"""NVIDIA driver -> newest CUDA that it supports: the driver that each toolkit's release notes say it comes with."""


def driver_that_would_do(host: Host, rows: Sequence[Release], wanted: Wanted = None, runtime: str = "systemd") -> str:
    """Return a sentence: for what the NVIDIA driver is too old, and which one would run what; "" = for nothing.

    The rows are in the order of preference; of each engine the first that a driver would run is named. A driver of any
    vendor that does not work comes first: nothing else is known until it does.
    """
    if broken := _broken(host, rows) if wanted != 0 else "":
        return broken
    driver = host.driver("nvidia")
    if not driver or driver.failure or not driver.version:
        return ""
    rows = [row for row in rows if VENDORS.get(row.api) == "nvidia"]
    before = _runs(rows, host, wanted, runtime)
    offers, engines = [], dict(before)
    for floor in sorted({row.driver for row in rows if version(row.driver) > version(driver.version)}, key=version):
        after = _runs(rows, _with(host, driver, floor), wanted, runtime)
        better = [row for name, row in after.items() if engines.get(name) != row]
        if better:
            offers.append(f"{floor} would run {', '.join(_label(row) for row in better)}")
        engines.update(after)
    none = [name for name in engines if name not in before]
    if not offers:
        return ""
    old = f"too old for every build of {', '.join(none)}" if none else "too old for the newest builds"
    return f"driver {driver.version} is {old}: {'; '.join(offers)}"


def _broken(host: Host, rows: Sequence[Release]) -> str:
    vendors = {VENDORS.get(row.api) for row in rows}
    found = (driver for driver in host.drivers if driver.failure and driver.remedy and driver.vendor in vendors)
    return "; ".join(f"to mend the {NAMES[driver.vendor]} driver: {driver.remedy}" for driver in found)


def api_of(driver: str) -> str:
    """Return the newest CUDA that an NVIDIA driver of this version supports; "" = older than all we know."""
    known = [api for lowest, api in API if version(lowest) <= version(driver)]
    return known[-1] if known else ""


def _runs(rows: Sequence[Release], host: Host, wanted: Wanted, runtime: str) -> dict[str, Release]:
    """Return the first release of each engine that fits, in the order of preference."""
    found: dict[str, Release] = {}
    for row in rows:
        if row.engine not in found and fit(row, host, wanted, runtime).groups:
            found[row.engine] = row
    return found


def _with(host: Host, driver: Driver, newer: str) -> Host:
    others = tuple(one for one in host.drivers if one.vendor != driver.vendor)
    return replace(host, drivers=(*others, replace(driver, version=newer, api=api_of(newer))))


def _label(row: Release) -> str:
    return f"{row.engine} {row.version} ({row.accelerator})"
