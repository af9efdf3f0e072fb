"""The verbs about what lies on the disk: bring a model here, take one away, take away all that nobody needs."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance import acquire, codec
from appliance.acquire import hub, models, store
from appliance.acquire.hub import keep
from appliance.bundle import cargo
from appliance.domain.deployment import Deployment, Model
from appliance.errors import SpecError, UsageError
from appliance.flows import planning, preflight
from appliance.flows.site import Site, require_rights
from appliance.system.lock import lock
from appliance.system.machine import sync

MODEL = "model"
PARTS = {"engines": "engine", "gateway": "gateway", cargo.ATTACHED: "files"}
"""Directories of the state directory that artifacts are put into -> what lies there."""
GONE = ".gone"
"""End of the name of what was being removed when somebody was killed."""
SHORTEST = 6
"""Characters of a digest that are enough where they fit one model only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model in the store, what is left of a download, an engine's environment, or an unpacked gateway."""

    path: str
    digest: str
    """"" for a download; of an engine or a gateway the part that its directory is called by."""
    size: int
    """Bytes on the disk that are freed when it goes; a file that is linked elsewhere, too, counts all the same."""
    names: tuple[str, ...] = ()
    """What it is, or was, called: names of models, sources on hubs."""
    served: tuple[str, ...] = ()
    """Models that it is served as."""
    kept: tuple[int, ...] = ()
    """Generations that a rollback could reach and that need it."""
    kind: str = MODEL
    """`model`, `download`, `engine` or `gateway`."""


def pull(site: Site, source: str, *, offline: bool = False) -> Model:
    """Bring a model from a hub into the store without serving it; what is there already is left alone."""
    if not hub.is_reference(source):
        raise UsageError(f"{source!r} is no model on a hub", hint=f"{hub.FORMS}; add-model takes paths as they are")
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        spec, _ = planning.read_spec(site)
        here = planning.access(site, spec, offline=offline)
        found = hub.find(source, here)
        model = models.from_hub(found.source, found.source, here)
        preflight.refuse_small_disk(site.layout.state, 0, store.missing(model, site.layout.state))
        acquire.add(model, here)
        return model


def entries(site: Site) -> tuple[Entry, ...]:
    """Return what the store holds, the largest first."""
    state = site.layout.state
    record = site.generations.record()
    served = _names(record.deployment) if record else {}
    generations = {number: _names(one) for number, one in deployments(site).items()}
    sources = {model.digest: model.source for model in keep.stored(state)}
    home = Path(state, "store", "models")
    found = []
    for path in sorted(home.iterdir()) if home.is_dir() else []:
        digest = path.name
        now = served.get(digest, ())
        before = [name for names in generations.values() for name in names.get(digest, ())]
        called = dict.fromkeys((*now, *before, *([sources[digest]] if digest in sources else [])))
        kept = tuple(sorted(number for number, names in generations.items() if digest in names))
        found.append(
            Entry(path=str(path), digest=digest, size=_size(path), names=tuple(called), served=now, kept=kept)
        )  # fmt: skip
    room = keep.room(state)
    found += [
        Entry(path=str(path), digest="", size=_size(path), names=("unfinished download",), kind="download")
        for path in (sorted(room.iterdir()) if room.is_dir() else [])
    ]
    return tuple(sorted((*found, *_environments(site)), key=lambda one: -one.size))


def _environments(site: Site) -> Iterator[Entry]:
    """Yield engines and gateways with who needs them. What is being made (`.NAME.new`) belongs to whoever makes it."""
    record = site.generations.record()
    now = _needed(record.deployment) if record else {}
    before = {number: _needed(one) for number, one in deployments(site).items()}
    for part, kind in PARTS.items():
        home = Path(site.layout.state, part)
        for path in sorted(home.iterdir()) if home.is_dir() else []:
            if path.name.startswith(".") and not path.name.endswith(GONE):
                continue
            digest = path.name.rpartition("-")[2]
            kept = tuple(sorted(number for number, needed in before.items() if digest in needed))
            yield Entry(
                path=str(path), digest=digest, size=_size(path), names=(path.name,), served=now.get(digest, ()),
                kept=kept, kind=kind,
            )  # fmt: skip


def _needed(deployment: Deployment) -> dict[str, tuple[str, ...]]:
    """Return the end of a directory's name -> the models, or the gateway, that need what lies there."""
    found = {artifact.digest[:16]: (artifact.name,) for artifact in deployment.artifacts}
    for service in deployment.services:
        for digest in service.artifacts:
            found[digest[:16]] = tuple(dict.fromkeys((*found.get(digest[:16], ()), service.model)))
    home = f"{deployment.layout.state}/{cargo.ATTACHED}/"
    for item in deployment.spec.models:
        for path in cargo.paths(item):
            if path.startswith(home):
                found[path.removeprefix(home).partition("/")[0]] = (item.name,)
    return {**found, Path(deployment.gateway.root).name: ("gateway",)}


def remove(site: Site, word: str) -> Entry:
    """Take one model out of the store. Raises SpecError for an unknown, an ambiguous or a served one."""
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        entry = choose(entries(site), word)
        _remove(site, entry)
        return entry


def choose(there: tuple[Entry, ...], word: str) -> Entry:
    """Return the model of that name, source or beginning of a digest. Raises SpecError."""
    models_ = [one for one in there if one.kind == MODEL and not one.digest.startswith(".")]
    fitting = [one for one in models_ if word in one.names or any(hub.same(name, word) for name in one.names)]
    fitting = fitting or [one for one in models_ if len(word) >= SHORTEST and one.digest.startswith(word)]
    if not fitting:
        known = [name for one in models_ for name in (*one.names[:1], one.digest[:12])]
        raise SpecError(f"the store holds no {word!r}", hint=f"it holds {', '.join(known) or 'nothing'}")
    if len(fitting) > 1:
        raise SpecError(
            f"{word!r} fits {len(fitting)} models in the store",
            hint=f"one of {', '.join(one.digest[:12] for one in fitting)}",
        )
    if fitting[0].served:
        name = fitting[0].served[0]
        raise SpecError(f"{word} is served as {name}", hint=f"llm-appliance remove-model {name}")
    return fitting[0]


def unused(there: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Return what no generation that is kept needs."""
    return tuple(one for one in there if not one.served and not one.kept)


def prune(site: Site) -> tuple[Entry, ...]:
    """Take away what nobody needs, and tell what that was."""
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        doomed = unused(entries(site))
        for entry in doomed:
            _remove(site, entry)
        shutil.rmtree(Path(site.layout.cache, "hub"), ignore_errors=True)
        return doomed


def _remove(site: Site, entry: Entry) -> None:
    path = Path(entry.path)
    if not entry.digest:
        path.unlink(missing_ok=True)
        return
    # Out of sight with one rename: what shows under its digest is whole.
    doomed = path if path.name.endswith(GONE) else path.with_name(f".{path.name}{GONE}")
    if doomed == path:
        shutil.rmtree(doomed)
        return
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    sync(path.parent)
    if entry.kind == MODEL:
        (keep.sources(site.layout.state) / f"{entry.digest}.json").unlink(missing_ok=True)
    shutil.rmtree(doomed)


def _names(deployment: Deployment) -> dict[str, tuple[str, ...]]:
    """Return digest -> the models that are served from it."""
    found: dict[str, tuple[str, ...]] = {}
    for model in deployment.models:
        if model.weights.files:
            found[model.digest] = (*found.get(model.digest, ()), model.name)
    return found


def deployments(site: Site) -> dict[int, Deployment]:
    """Return the generations on the disk. Raises SpecError where one cannot be read: it may need anything."""
    home = f"{site.layout.state}/generations"
    found = {}
    for name in site.machine.names(home):
        path = f"{home}/{name}/deployment.json"
        content = site.machine.read(path, codec.MAX_BYTES) if name.isdigit() else None
        if content:
            found[int(name)] = codec.load_json(Deployment, content, source=path)
    return found


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(one.lstat().st_size for one in path.rglob("*") if one.is_file() or one.is_symlink())
