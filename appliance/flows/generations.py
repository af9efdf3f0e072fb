"""Generations: what was in force when, what differs between two, and the way back to one."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from appliance import codec
from appliance.acquire.source import Source
from appliance.domain.changes import Record
from appliance.domain.deployment import Deployment
from appliance.errors import SpecError
from appliance.flows.converge import Converged, bring_about
from appliance.flows.planning import Planned, compared
from appliance.flows.site import Site, installed, require_rights
from appliance.system.lock import lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One generation on the disk."""

    number: int
    made: float
    """Seconds since 1970."""
    healthy: bool
    """It was in force and answered."""
    current: bool
    deployment: Deployment

    @property
    def models(self) -> tuple[str, ...]:
        """Names of what it serves."""
        return tuple(model.name for model in self.deployment.models)


def kept(site: Site) -> tuple[Kept, ...]:
    """Return what a rollback can reach, the oldest first. Raises SpecError where one cannot be read."""
    home = Path(site.layout.state, "generations")
    current = installed(site).generation
    found = []
    for number in sorted(int(name) for name in site.machine.names(str(home)) if name.isdigit()):
        path = home / str(number)
        content = site.machine.read(f"{path}/deployment.json", codec.MAX_BYTES)
        if content:
            found.append(
                Kept(
                    number=number,
                    made=(path / "deployment.json").stat().st_mtime,
                    healthy=(path / "record.json").exists(),
                    current=number == current,
                    deployment=codec.load_json(Deployment, content, source=f"{path}/deployment.json"),
                )
            )
    return tuple(found)


def choose(site: Site, number: int | None) -> Kept:
    """Return the generation of that number; None = the one that was in force before. Raises SpecError."""
    there = kept(site)
    wanted = number if number is not None else _before(installed(site), there)
    found = next((one for one in there if one.number == wanted), None)
    listed = ", ".join(str(one.number) for one in there)
    if found is None:
        what = f"there is no generation {wanted}" if wanted else "there is none before this one"
        raise SpecError(f"{what} to go back to", hint=f"kept are {listed}; llm-appliance generations list")
    if not found.healthy:
        raise SpecError(f"generation {wanted} was never healthy", hint="llm-appliance generations list")
    return found


def _before(record: Record, there: tuple[Kept, ...]) -> int:
    """Return the generation that the one in force followed; the newest healthy one below it, if that is not told."""
    older = [one.number for one in there if one.healthy and one.number < record.generation]
    return record.fallback if record.fallback in {one.number for one in there} else max(older, default=0)


def doomed(site: Site, keep: int) -> tuple[Kept, ...]:
    """Return what pruning takes away: all but the one in force and the `keep` newest that were healthy."""
    there = [one for one in kept(site) if not one.current]
    healthy = sorted((one.number for one in there if one.healthy), reverse=True)[:keep]
    return tuple(one for one in there if one.number not in healthy)


def prune(site: Site, keep: int) -> tuple[Kept, ...]:
    """Take old generations away, and tell which; what only they needed can be pruned from the store then."""
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        record, gone = installed(site), doomed(site, keep)
        for one in gone:
            if record.confirmed or one.number != record.fallback:
                site.generations.drop(one.number)
        return tuple(one for one in gone if record.confirmed or one.number != record.fallback)


def preview(site: Site, number: int | None) -> Planned:
    """Return what going back would change."""
    return compared(site, site.generations.changes(choose(site, number).number))


def back(site: Site, number: int | None) -> Converged:
    """Put a generation's files in force once more, byte for byte, as a new generation."""
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        chosen = choose(site, number)
        site.progress.step("back", f"to what generation {chosen.number} was")
        # What it needs is still here: nothing that a kept generation uses is ever taken away.
        return bring_about(site, site.generations.changes(chosen.number), Source(offline=True))


def difference(site: Site, old: int, new: int | None) -> str:
    """Return what differs between two generations, as a unified diff; None = the one in force."""
    newer = installed(site).generation if new is None else new
    known = {one.number for one in kept(site)}
    for number in (old, newer):
        if number not in known:
            raise SpecError(f"there is no generation {number}", hint="llm-appliance generations list")
    generations = site.generations
    parts: list[str] = []
    for path in sorted(generations.difference(old, newer)):
        before, after = (
            generations.read(number, path).decode(errors="replace").splitlines(keepends=True) for number in (old, newer)
        )
        parts += difflib.unified_diff(before, after, f"{old}: {path}", f"{newer}: {path}")
    return "".join(parts)
