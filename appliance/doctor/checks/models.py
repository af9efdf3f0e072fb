"""Models: their files, and whether the engines' user gets to them.

Weights are hard-linked or copied into the store, so an engine never walks the operator's own directories: who installs
must be able to read the source, and the engines' user the store. A hard link keeps the mode of the file itself, so a
later `chmod 600` of the source shuts the engine out too.
"""

from collections.abc import Iterator
from typing import Final

from appliance.doctor.access import ENTER, READ, WRITE, Account, Step, Trail, obstacle
from appliance.doctor.check import error, info, looks_for, size, warning
from appliance.doctor.facts import Facts, OptionPath, Source, under_systemd
from appliance.doctor.remedy import as_root
from appliance.domain.finding import Finding
from appliance.domain.host import Host

HIDDEN: Final = ("/home", "/root", "/run/user")
"""What `ProtectHome=yes` in our units leaves empty, whatever the permissions say."""
PRIVATE: Final = ("/tmp", "/var/tmp")  # noqa: S108 - `PrivateTmp=yes` gives units others of their own
WRITTEN: Final = frozenset({"cache", "save", "log", "download", "offload", "tmp", "temp"})
"""Words in an option's name that tell that the engine writes there."""


def hidden(trail: Trail, places: tuple[str, ...] = HIDDEN) -> str:
    """Return which of those places the way leads through, "" where through none."""
    paths = [trail.path, *(step.path for step in trail.steps)]
    return next((place for place in places for path in paths if _below(path, place)), "")


def mend(host: Host, account: Account, step: Step, letter: str) -> tuple[str, ...]:
    """Return what lets an account in: for it alone where it is there already, or for everybody."""
    everybody = as_root(host, f"chmod o+{letter} {step.path}")
    if account.uid < 0:
        return (everybody,)
    return (as_root(host, f"setfacl -m u:{account.name}:{letter} {step.path}"), f"or: {everybody}")


def copied(source: Source, facts: Facts) -> tuple[Step, ...]:
    """Return the files that the store copies: it links what is the installer's own, on its disk, and nobody's else.

    Files that are in the store already, and those that cannot be read, are left out.
    """
    if any(item.model == source.model and item.there for item in facts.stored):
        return ()
    files = [trail.end for trail in source.trails if not trail.failure and not obstacle(facts.installer, trail, READ)]
    return tuple(step for step in files if step and not step.directory and not _linkable(step, facts))


def _linkable(step: Step, facts: Facts) -> bool:
    own = step.uid == facts.installer.uid and not step.mode & 0o022
    readable = facts.engine.uid == facts.installer.uid or bool(step.mode & 0o004)
    return own and readable and (not facts.state.device or step.device == facts.state.device)


def _below(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


@looks_for("model-source-missing", "a model's files are not where the operator says")
def source_missing(host: Host, facts: Facts) -> Iterator[Finding]:
    """The copy in the store is served all the same."""
    for source in facts.sources:
        if not any(trail.absent for trail in source.trails):
            continue
        if any(item.model == source.model and item.there for item in facts.stored):
            yield info(source.model, f"{source.path} is gone; the copy in the store is served")
        else:
            message = f"{source.path} is not there"
            again = f"llm-appliance remove-model {source.model}"
            # An installation that needs the file says so itself, whichever way the model was named.
            yield error(source.model, message, again, f"llm-appliance add-model {source.model} PATH")


@looks_for("model-source-denied", "who installs may not read a model's files")
def source_denied(host: Host, facts: Facts) -> Iterator[Finding]:
    """Root is denied only by file systems that do not know it: NFS with root_squash, FUSE without allow_root."""
    account = facts.installer
    for source in facts.sources:
        stored = any(item.model == source.model and item.there for item in facts.stored)
        for trail in source.trails:
            step = obstacle(account, trail, READ)
            if step:
                letter = "x" if step is not trail.end else "r"
                message = f"{step.path} denies {account.name} ({step.mode:04o}, uid {step.uid}); needed: {trail.path}"
                yield error(source.model, message, *mend(host, account, step, letter), prevents=not stored)
            elif trail.failure and not trail.absent and trail.failure != "unseen":
                message = f"{trail.path} cannot be opened: {trail.failure}"
                hint = "a network or FUSE file system may deny root: mount it with no_root_squash or allow_root"
                yield error(source.model, message, hint, "or copy the file to a disk of this machine",
                            prevents=not stored)  # fmt: skip
            else:
                continue
            break


@looks_for("model-copied", "a model's files are copied into the store, because they cannot be linked")
def source_copied(host: Host, facts: Facts) -> Iterator[Finding]:
    """It costs their size once more; a link would cost nothing."""
    for source in facts.sources:
        files = copied(source, facts)
        if not files:
            continue
        first, amount = files[0], sum(step.size for step in files)
        if facts.state.device and first.device != facts.state.device:
            yield info(source.model, f"{size(amount)} are copied into the store: it is on another file system")
            continue
        message = (
            f"{size(amount)} are copied into the store: {first.path} ({first.mode:04o}, uid {first.uid}) could be "
        )
        message += "changed by others than who installs, or not be read by the engines"
        own = (as_root(host, f"chown root {first.path}"), as_root(host, f"chmod go-w,o+r {first.path}"))
        yield info(source.model, message, *(own if facts.installer.uid == 0 else ()))


@looks_for("weights-gone", "weights are missing from the store")
def weights_gone(host: Host, facts: Facts) -> Iterator[Finding]:
    """A directory in the store is taken for whole: `install` fills it again only where it is not there at all."""
    absent = {source.model for source in facts.sources if any(trail.absent for trail in source.trails)}
    for item in facts.stored:
        if item.there and not item.wrong:
            continue
        what = f"{', '.join(item.wrong)} missing or of the wrong size in" if item.there else "there is no"
        clear = (as_root(host, f"rm -r {item.directory}"),) if item.there else ()
        lost = item.model in absent
        again = f"llm-appliance add-model {item.model} PATH" if lost else "llm-appliance install"
        yield error(item.model, f"{what} {item.directory}", *clear, as_root(host, again), prevents=item.there or lost)


@looks_for("weights-denied", "the engines' user may not read weights in the store")
def weights_denied(host: Host, facts: Facts) -> Iterator[Finding]:
    """What denies it is the file's own mode; the directories are the next check's business."""
    for item in facts.stored:
        steps = [trail.end for trail in item.trails if trail.end and not trail.end.directory]
        step = next((one for one in steps if obstacle(facts.engine, Trail(path="", steps=(one,)), READ)), None)
        if step:
            message = f"{step.path} ({step.mode:04o}, uid {step.uid}) denies {facts.engine.name}"
            yield error(item.model, message, *mend(host, facts.engine, step, "r"), prevents=True)


@looks_for("store-denied", "the engines' user may not enter the store, or does not see it")
def store_denied(host: Host, facts: Facts) -> Iterator[Finding]:
    """A link into somebody's home is hidden from our units, too."""
    step = obstacle(facts.engine, facts.store, ENTER)
    if step:
        message = (
            f"{step.path} ({step.mode:04o}, uid {step.uid}) denies {facts.engine.name}; needed: {facts.store.path}"
        )
        yield error(facts.layout.state, message, *mend(host, facts.engine, step, "x"), prevents=True)
    place = hidden(facts.store) if under_systemd(host, facts) else ""
    if place:
        message = f"{facts.store.path} is below {place}, which the units do not see (ProtectHome=yes)"
        yield error(facts.layout.state, message, "move it to another directory, for example /srv", prevents=True)


@looks_for("python-denied", "the engines' user may not run the appliance's Python")
def python_denied(host: Host, facts: Facts) -> Iterator[Finding]:
    """A unit's probe is started with it, whatever the engine; elsewhere only engines that are Python programs are."""
    trail = facts.python
    step = obstacle(facts.engine, trail, READ | ENTER)
    place = hidden(trail) if under_systemd(host, facts) else ""
    move = "install it with installers/install.sh, which puts it into /opt/llm-appliance"
    if step:
        message = f"{step.path} ({step.mode:04o}, uid {step.uid}) keeps {facts.engine.name} from {trail.path}"
        yield error("python", message, move, prevents=under_systemd(host, facts))
    elif place:
        message = f"{trail.path} leads below {place}, which the units do not see (ProtectHome=yes)"
        yield error("python", message, move, prevents=True)


@looks_for("model-option-path", "a path in a model's options cannot be used by its engine")
def option_paths(host: Host, facts: Facts) -> Iterator[Finding]:
    """Under systemd an engine sees neither homes nor /tmp, and writes to its own cache only."""
    for item in facts.options:
        if WRITTEN & set(item.option.split("-")):
            yield from _written(host, facts, item)
        else:
            yield from _read(host, facts, item)


def _read(host: Host, facts: Facts, item: OptionPath) -> Iterator[Finding]:
    where, trail = f"{item.option}: {item.trail.path}", item.trail
    step = obstacle(facts.engine, trail, READ)
    place = hidden(trail, HIDDEN + PRIVATE) if under_systemd(host, facts) else ""
    if trail.absent:
        yield error(item.model, f"{where} is not there", f"correct it in models.d/{item.model}.yaml", prevents=True)
    elif step:
        letter = "r" if step is trail.end and not step.directory else "x"
        message = f"{where}: {step.path} ({step.mode:04o}, uid {step.uid}) denies {facts.engine.name}"
        yield error(item.model, message, *mend(host, facts.engine, step, letter), prevents=True)
    elif place:
        message = f"{where}: {place} is hidden from the units"
        yield error(item.model, message, "move the file to another directory, for example /srv", prevents=True)


def _written(host: Host, facts: Facts, item: OptionPath) -> Iterator[Finding]:
    where, trail = f"{item.option}: {item.trail.path}", item.trail
    own = f"{facts.layout.cache}/{item.model}"
    if under_systemd(host, facts):
        if not _below(trail.path, own):
            unit = f"systemctl edit llm-appliance-model@{item.model}"
            drop_in = f"{as_root(host, unit)}   # [Service] ReadWritePaths={trail.path}"
            yield warning(item.model, f"{where}: the unit may write to {own} only", f"use {own}", f"or: {drop_in}")
        return
    directory = next((step for step in reversed(trail.steps) if step.directory), None)
    step = obstacle(facts.engine, Trail(path="", steps=trail.steps), ENTER)
    if directory and not step and obstacle(facts.engine, Trail(path="", steps=(directory,)), WRITE | ENTER):
        step = directory
    if step:
        message = f"{where}: {step.path} ({step.mode:04o}, uid {step.uid}) denies {facts.engine.name}"
        yield warning(item.model, message, *mend(host, facts.engine, step, "rwx"))
