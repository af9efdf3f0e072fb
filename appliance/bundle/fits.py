"""Whether a bundle fits a machine, from its index alone: everything that is wrong, at once."""

from collections.abc import Iterator

from appliance.bundle.index import Component, Index
from appliance.domain.host import Host
from appliance.domain.version import version


def misfits(index: Index, host: Host) -> Iterator[str]:
    """Yield why it cannot be installed on that machine."""
    target = index.target
    if host.arch != target.arch:
        yield f"it is for {target.arch}, this is {host.arch}"
    if (host.os, host.os_version) != (target.os, target.os_version):
        yield f"its packages are of {target.os} {target.os_version}, this is {host.os} {host.os_version}"
    if version(host.glibc) < version(target.glibc):
        yield f"it needs glibc >= {target.glibc}, found {host.glibc}"
    if target.python and host.python != target.python:
        yield f"its environments are of Python {target.python}, this is {host.python}"
    missing = sorted(set(target.cpu_flags) - set(host.cpu_flags))
    if missing:
        yield f"it was compiled for a processor with {', '.join(missing)}; this one has not"
    yield from _driver_misfits(index, host)


def _driver_misfits(index: Index, host: Host) -> Iterator[str]:
    for vendor, lowest in index.target.drivers:
        driver = host.driver(vendor)
        if driver is None:
            yield f"it needs {vendor}'s driver >= {lowest}, and there is none"
        elif driver.failure:
            yield f"it needs {vendor}'s driver, which does not work: {driver.failure}"
        elif version(driver.version) < version(lowest):
            yield f"it needs {vendor}'s driver >= {lowest}, found {driver.version}"


def older(index: Index, serial: int, appliance: str) -> str:
    """Return why a bundle is older than what is installed, "" when it is not.

    `serial` is that of the last bundle of this name, -1 for none; `appliance` the version that is installed.
    """
    if index.serial < serial:
        return f"its serial is {index.serial}, that of the last {index.name} was {serial}"
    if version(index.appliance) < version(appliance):
        return f"it brings llm-appliance {index.appliance}, {appliance} is installed"
    return ""


def unpacked(components: tuple[Component, ...]) -> int:
    """Return the bytes that these take on the disk."""
    return sum(one.unpacked for one in components if not one.base)
