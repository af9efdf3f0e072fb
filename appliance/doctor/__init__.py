"""Looks for everything that is wrong, all at once: pure checks over a Host and what else was asked of the machine."""

import importlib
import pkgutil
from functools import cache

from appliance.doctor import checks as package
from appliance.doctor.check import Check
from appliance.doctor.facts import Facts
from appliance.domain.finding import SEVERITIES, Finding
from appliance.domain.host import Host


@cache
def checks() -> dict[str, Check]:
    """Return every check by id, in the order of modules and within them: each module holds some, found by discovery."""
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Check)]
    return {item.id: item for item in found}


def check(host: Host, facts: Facts) -> tuple[Finding, ...]:
    """Run all checks; the worst findings come first, otherwise the order of the checks is kept."""
    findings = [finding for item in checks().values() for finding in item.run(host, facts)]
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
