"""Looks for what is wrong: for the operator all of it, for a verb that changes something what would make it fail."""

import difflib
from dataclasses import dataclass

from appliance import doctor
from appliance.detect import detect
from appliance.domain.finding import ERROR, INFO, Finding
from appliance.domain.host import Host
from appliance.domain.spec import ApplianceSpec
from appliance.errors import ApplianceError, HostError, UsageError
from appliance.flows import facts
from appliance.flows.site import Site

OWN = frozenset({
    "run-unfinished", "generation-link", "file-missing", "file-edited", "service-down", "gateway-silent",
    "account-missing", "engine-missing", "spec-broken", "record-broken", "model-source-missing",
})  # fmt: skip
"""What an installation mends, or says in words of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What all checks found."""

    findings: tuple[Finding, ...]
    checks: int

    def errors(self, ignored: tuple[str, ...] = ()) -> tuple[Finding, ...]:
        """Return the errors that are not to be ignored."""
        return tuple(item for item in self.findings if item.severity == ERROR and item.id not in ignored)


def known(ignored: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ids when each is a check's. Raises UsageError with near names."""
    names = tuple(doctor.checks())
    for name in ignored:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else "llm-appliance doctor --list"
            raise UsageError(f"no check is called {name!r}", hint=hint)
    return ignored


def examine(site: Site) -> Diagnosis:
    """Run all checks on what is here now; a spec or a record that cannot be read is a finding too."""
    host = detect(site.machine, state=site.layout.state)
    findings = doctor.check(host, facts.gather(site, host))
    return Diagnosis(findings=findings, checks=len(doctor.checks()))


def require(site: Site, host: Host, spec: ApplianceSpec, ignored: tuple[str, ...]) -> None:
    """Raise HostError when something would make an installation of `spec` fail; tell of all else that is not well."""
    findings = doctor.check(host, facts.gather(site, host, spec))
    stop = [item for item in findings if item.severity == ERROR and item.prevents and item.id not in ignored]
    if stop:
        raise _refusal(stop)
    for item in findings:
        if item.severity != INFO and item.id not in OWN:
            site.progress.note(f"{_marked(item, ignored)} {item.id}: {item.subject}: {item.message}")


def _marked(finding: Finding, ignored: tuple[str, ...]) -> str:
    return "ignored" if finding.id in ignored else "warning"


def _refusal(stop: list[Finding]) -> ApplianceError:
    lines = []
    for item in stop:
        lines.append(f"{item.id}: {item.subject}: {item.message}")
        lines += [f"  mend: {line}" for line in item.remedy]
    ids = dict.fromkeys(item.id for item in stop)
    return HostError(
        "this machine is not ready\n" + "\n".join(lines),
        hint="llm-appliance doctor shows all; to go on all the same: " + " ".join(f"--ignore {name}" for name in ids),
    )
