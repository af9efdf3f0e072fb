"""The step before a change: stand-ins for models that would not answer while their only replica is replaced."""

import shutil

from appliance import verify
from appliance.apply import differences
from appliance.apply.rolling import one_by_one, touched
from appliance.detect import detect
from appliance.domain.changes import Changeset
from appliance.flows.site import Site
from appliance.plan.standin import with_standins
from appliance.render.pages import render


def bridge(site: Site, changes: Changeset) -> Changeset | None:
    """Return the changes with stand-ins beside them; None where there are none, as nobody needs one or has room."""
    record = site.generations.record()
    if record is None or not record.confirmed:
        return None
    before, after = record.deployment, changes.deployment
    names = touched(before, after, differences(changes, record, site.machine))
    # What leads to a provider is back at once.
    spared = {*one_by_one(before, after, names), *(service.name for service in after.started if service.remote)}
    names = tuple(name for name in names if name not in spared)
    up = {state.name for state in verify.states(before, site.machine) if state.state == "running"} if names else ()
    names = tuple(name for name in names if name in up)
    if not names:
        return None
    bridged = with_standins(before, after, names, detect(site.machine, state=site.layout.state))
    covered = one_by_one(before, bridged, names)
    for name in names:
        site.progress.note(
            f"{name}: a second one stands in while it is replaced" if name in covered
            else f"{name}: does not answer while it is replaced; there is no room for a second one beside it"
        )  # fmt: skip
    if not covered:
        return None
    # What differs by the stand-ins only: a rollback's own files stay what they were, byte for byte.
    plain = {file.path: file for file in render(after).files}
    files = {file.path: file for file in changes.files}
    files |= {file.path: file for file in render(bridged).files if plain.get(file.path) != file}
    return Changeset(deployment=bridged, files=tuple(files.values()))


def lasting(changed: tuple[str, ...], bridge: Changeset, changes: Changeset) -> tuple[str, ...]:
    """Return the paths that differ once the stand-ins are gone again."""
    passing = {file.path for file in bridge.files} - {file.path for file in changes.files}
    return tuple(sorted({*changed} - passing))


def tidy(site: Site, bridge: Changeset) -> None:
    """Remove what the stand-ins kept for themselves: caches that nobody reads again; say so where they run still."""
    record = site.generations.record()
    if record and record.deployment.passing:
        site.progress.note("not ended: stand-ins run still; llm-appliance install takes them away")
        return
    for service in bridge.deployment.services:
        if service.standin:
            shutil.rmtree(service.home, ignore_errors=True)
