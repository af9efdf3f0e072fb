"""The one way in which files come into force, and the way back."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from appliance import gateway
from appliance.apply import accounts, schema
from appliance.apply.edits import edits
from appliance.apply.generation import Generations, digest, written
from appliance.apply.place import missing_directories, place, refuse_masked, remove_if_empty, remove_own
from appliance.apply.rolling import Steward, one_by_one, roll, run, run_all, stand_in, stop, touched
from appliance.domain.changes import Changeset, File, Record
from appliance.domain.deployment import Deployment
from appliance.domain.status import HandEdit
from appliance.errors import ApplianceError, CommandError, UnhealthyError
from appliance.report import Progress
from appliance.runtimes import runtime
from appliance.system.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What apply did."""

    generation: int
    changed: tuple[str, ...]
    """Paths that were written or removed; () = everything was as it should be."""
    kept: tuple[str, ...] = ()
    """Copies of files of ours that somebody had edited by hand."""
    edits: tuple[HandEdit, ...] = ()
    """What was edited in those files, and in those of the generation before, which lie where they lay."""


def apply(
    changes: Changeset, generations: Generations, machine: Machine, progress: Progress, healthy: Callable[[], None],
    steward: Steward | None = None,
) -> Report:  # fmt: skip
    """Bring `changes` into force; `healthy` raises UnhealthyError when the result does not answer.

    With a `steward`, replicas end their requests before they are stopped, and change one after the other.
    """
    before = generations.record()
    good = generations.confirmed(before)
    changed = differences(changes, before, machine)
    edited = edits(before, generations, machine) if before and changed else ()
    kept: tuple[str, ...] = ()
    if before and not changed:
        record = before
    else:
        record = _prepare(changes, changed, before, good, generations, machine, progress)
        progress.step("switch", f"to generation {record.generation}")
        try:
            kept = _switch(record, before, good, generations, machine, steward)
        except OSError:
            # A disk that is full or read-only in the middle of it: what was half put in place goes again.
            _return(good, record, generations, machine, progress, steward, ())
            raise
    deployment = record.deployment
    untold = changed | _untold(before, good, generations)
    renewed: list[str] = []
    try:
        if untold:
            progress.step("start", ", ".join(("gateway", *(service.name for service in deployment.started))))
        _renew(before if before is good else None, deployment, untold, machine, progress, steward, renewed)
        progress.step("health", "waiting for every model to answer")
        healthy()
    except (UnhealthyError, CommandError) as error:
        if record.confirmed:
            raise
        _return(good, record, generations, machine, progress, steward, tuple(renewed))
        back = f"generation {good.generation} is back" if good else "nothing was installed before, so nothing runs"
        if good and steward and (trouble := steward.answers(good.deployment)):
            back += f", but {trouble}"
        for copy in _keep_tried(edited, record, generations, machine):
            back += f"\nyour edit is kept as {copy}"
        raise UnhealthyError(f"{error.message}\n{back}", hint=error.hint) from error
    if not record.confirmed:
        generations.confirm(record)
        if before and before.deployment.passing:
            generations.drop(before.generation)
        generations.prune(record.generation)
    ours = tuple(one for one in edited if not one.yours)
    return Report(generation=record.generation, changed=tuple(sorted(changed)), kept=kept, edits=ours)


def _keep_tried(
    edited: tuple[HandEdit, ...], failed: Record, generations: Generations, machine: Machine
) -> Iterator[str]:
    """Keep what the operator had edited, and what did not work, beside what is back in force; yield the copies."""
    for one in edited:
        content = generations.read(failed.generation, one.path) if one.yours and not one.gone else b""
        if content and machine.read(one.path, 8 << 20) != content:
            copy = f"{one.path}.edited-{digest(content)[:8]}"
            machine.write(File(path=copy, content=content, mode=0o600))
            yield copy


def _renew(
    before: Record | None, after: Deployment, untold: frozenset[str], machine: Machine, progress: Progress,
    steward: Steward | None, renewed: list[str],
) -> None:  # fmt: skip
    """Make what runs what the files say: replicas that can one by one, all else at once."""
    module = runtime(after.runtime)
    if steward and before and untold and before.deployment.runtime == after.runtime:
        stand_in(after, machine, steward, renewed)
        names = touched(before.deployment, after, untold)
        rolled = one_by_one(before.deployment, after, names)
        for name in rolled:
            progress.note(f"{name}: ends its requests, then starts anew; another replica answers meanwhile")
            roll(before.deployment, after, (name,), machine, steward, renewed)
        rest = tuple(name for name in names if name not in rolled)
        stop(before.deployment, rest, module, machine, steward)
        # Whoever has been started by now is not to be started again.
        untold -= {path for name in renewed for path in module.files(name)}
    renewed += [service.name for service in after.started if service.name not in renewed]
    run_all(module.activate(after, untold), machine)


def _untold(before: Record | None, good: Record | None, generations: Generations) -> frozenset[str]:
    """Return what a run that was killed had put in force before anything that runs was told of it."""
    if before is None or before.confirmed:
        return frozenset()
    return generations.difference(good.generation if good else 0, before.generation)


def _prepare(
    changes: Changeset, changed: frozenset[str], before: Record | None, good: Record | None,
    generations: Generations, machine: Machine, progress: Progress,
) -> Record:  # fmt: skip
    """Write and check a new generation; nothing that runs has noticed yet."""
    refuse_masked(changes)
    number = generations.next_number()
    deployment = changes.deployment
    progress.step("write", f"generation {number}, {len(changed)} files differ")
    generations.write(number, changes)
    accounts.create(deployment, machine)
    users, groups = accounts.ours(deployment)
    progress.step("check", "gateway and " + deployment.runtime)
    try:
        _check(deployment, generations.path(number), machine)
    except ApplianceError:
        if good:
            accounts.directories(good.deployment)  # keys were handed to who was to read them
        raise
    return Record(
        schema=schema.SCHEMA,
        generation=number,
        deployment=deployment,
        files=written(tuple(file for file in changes.files if file.path.startswith("/"))),
        inside=written(tuple(file for file in changes.files if not file.path.startswith("/"))),
        users=_merged(before.users if before else (), users),
        groups=_merged(before.groups if before else (), groups),
        directories=_merged(before.directories if before else (), missing_directories(changes)),
        fallback=_lasting(good),
    )


def _lasting(good: Record | None) -> int:
    """Return the generation that a rollback leads to: never a step on the way."""
    if good is None:
        return 0
    return good.fallback if good.deployment.passing else good.generation


def differences(changes: Changeset, before: Record | None, machine: Machine) -> frozenset[str]:
    """Return the paths that are not on the machine as they should be, and those that should go."""
    layout = changes.deployment.layout
    wanted = {file.path: file for file in changes.files}
    paths = {path: path if path.startswith("/") else f"{layout.current}/{path}" for path in wanted}
    stale = {path for path, file in wanted.items() if machine.read(paths[path], 8 << 20) != file.content}
    gone = {item.path for item in before.files if item.path not in wanted} if before else set()
    return frozenset(stale | gone)


def remove_everything(record: Record, generations: Generations, machine: Machine) -> tuple[str, ...]:
    """Stop all, remove every file, directory and account of the record; return what is left behind."""
    deployment = record.deployment
    module = runtime(deployment.runtime)
    for command in module.retire(deployment, ("gateway", *(service.name for service in deployment.started))):
        machine.run(command)
    left = [item.path for item in record.files if not remove_own(item.path, item.sha256, machine)]
    generations.unlink()
    for command in module.settle(deployment):
        machine.run(command)
    for path in sorted(record.directories, key=len, reverse=True):
        remove_if_empty(path)
    left += accounts.delete(record.users, record.groups, machine)
    generations.forget()
    return tuple(left)


def _check(deployment: Deployment, generation: str, machine: Machine) -> None:
    """Run every configuration check on files that are not in force yet."""
    accounts.directories(deployment)
    for command in (*gateway.check(deployment, generation), *runtime(deployment.runtime).check(deployment, generation)):
        run(command, machine)


def _switch(
    record: Record, before: Record | None, good: Record | None, generations: Generations, machine: Machine,
    steward: Steward | None,
) -> tuple[str, ...]:  # fmt: skip
    """Stop what goes, put the system files in place, flip the link, write the record."""
    deployment = record.deployment
    if before:
        names = {service.name for service in deployment.started}
        gone = tuple(service.name for service in before.deployment.started if service.name not in names)
        module = runtime(before.deployment.runtime)
        if _keeper(before.deployment) != _keeper(deployment):
            gone = ("gateway", *(service.name for service in before.deployment.started))
        if steward and "gateway" not in gone:
            stop(before.deployment, gone, module, machine, steward)
        elif gone:
            for command in module.retire(before.deployment, gone):
                machine.run(command)
    # Until the switch is over the record names the old files too: a run that is killed here loses track of none.
    old = (
        tuple(item for item in before.files if item.path not in {file.path for file in record.files}) if before else ()
    )
    generations.save(replace(record, files=record.files + old))
    kept = place(generations.system_files(record.generation), (before, good), machine)
    generations.flip(record.generation)
    generations.save(record)
    return kept


def _keeper(deployment: Deployment) -> tuple[str, bool]:
    """Return what keeps services alive: Docker and Podman know nothing of each other's containers."""
    return deployment.runtime, deployment.podman is not None


def _return(
    before: Record | None, failed: Record, generations: Generations, machine: Machine, progress: Progress,
    steward: Steward | None, renewed: tuple[str, ...],
) -> None:  # fmt: skip
    """Put the previous generation back in force, best effort: each step is tried whatever the one before did.

    What was never told of the one that failed goes on as it is.
    """
    progress.step("return", f"to generation {before.generation}" if before else "to nothing")
    try:
        if before is None:
            remove_everything(failed, generations, machine)
            return
        changed = generations.difference(failed.generation, before.generation)
        module, names = runtime(before.deployment.runtime), [service.name for service in before.deployment.started]
        _switch(before, failed, before, generations, machine, steward)
        accounts.directories(before.deployment)  # another runtime's users read keys and certificates
        if steward and failed.deployment.runtime == before.deployment.runtime:
            stays = {service.name for service in failed.deployment.started} - set(renewed)
            changed -= {path for name in names if name in stays for path in module.files(name)}
            again = touched(failed.deployment, before.deployment, changed)
            rolled = one_by_one(failed.deployment, before.deployment, tuple(name for name in again if name in renewed))
            # The one that failed first: it answers nobody.
            _roll_back(failed.deployment, before.deployment, rolled[::-1], machine, steward)
            changed -= {path for name in rolled for path in module.files(name)}
        run_all(module.activate(before.deployment, changed), machine)
    except (ApplianceError, OSError) as error:
        progress.note(f"could not be put back completely: {error}")


def _roll_back(
    failed: Deployment, before: Deployment, names: tuple[str, ...], machine: Machine, steward: Steward
) -> None:
    for name in names:
        with suppress(ApplianceError):
            roll(failed, before, (name,), machine, steward, [])


def _merged(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*old, *new}))
