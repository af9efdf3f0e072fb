"""What a check is: an id that never changes, one line for `--list`, and a pure look at what is known of the machine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from appliance.doctor.facts import Facts
from appliance.domain.finding import ERROR, INFO, WARNING, Finding
from appliance.domain.host import Host

Look = Callable[[Host, Facts], Iterator[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check."""

    id: str
    about: str
    """What it looks for, in one line."""
    look: Look

    def run(self, host: Host, facts: Facts) -> tuple[Finding, ...]:
        """Return what it finds, under its id."""
        return tuple(replace(finding, id=self.id) for finding in self.look(host, facts))


def looks_for(name: str, about: str) -> Callable[[Look], Check]:
    """Make a check of a function; being a Check in a module of `appliance.doctor.checks` is all that it takes."""

    def wrap(look: Look) -> Check:
        return Check(id=name, about=about, look=look)

    return wrap


def error(subject: str, message: str, *remedy: str, prevents: bool = False) -> Finding:
    """Return a finding that something does not work; the check's id is put in later."""
    return Finding(id="", severity=ERROR, subject=subject, message=message, remedy=remedy, prevents=prevents)


def warning(subject: str, message: str, *remedy: str) -> Finding:
    """Return a finding that something will work badly, or will not work if it is asked for."""
    return Finding(id="", severity=WARNING, subject=subject, message=message, remedy=remedy)


def info(subject: str, message: str, *remedy: str) -> Finding:
    """Return a finding that is worth to know."""
    return Finding(id="", severity=INFO, subject=subject, message=message, remedy=remedy)


def size(amount: int) -> str:
    """Write bytes for people, in binary units."""
    return f"{amount / (1 << 30):.1f} GiB" if abs(amount) >= 1 << 30 else f"{amount / (1 << 20):.0f} MiB"
