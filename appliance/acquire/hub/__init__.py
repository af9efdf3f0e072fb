"""Models from hubs: from `hf:OWNER/REPO` to a pinned source and checked Weights before any large download."""

import importlib
import pkgutil
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

from appliance import codec
from appliance.acquire.hub import headers, keep
from appliance.acquire.hub.choose import Choice, choose, fits
from appliance.acquire.hub.listing import Hub
from appliance.acquire.hub.reference import COMMIT, FORMS, Reference, is_reference, parse
from appliance.acquire.hub.settings import Settings, settings
from appliance.acquire.hub.words import explain, wrong
from appliance.domain.weights import WeightFile, Weights
from appliance.errors import ArtifactError, SpecError
from appliance.report import Progress, amount_text, work
from appliance.system.transfer import Wanted, WrongBytesError, transfer
from appliance.system.web import WebError, answers

__all__ = [
    "FORMS", "Access", "Found", "Reference", "access", "bring", "find", "first", "is_reference", "parse", "same",
    "settings",
]  # fmt: skip

PROBE = 3.0
"""Seconds that a hub has to answer when nobody said which one is meant."""
FOUND = ".found.json"
"""File that makes a directory of headers complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a source comes to."""

    source: str
    """With hub and commit: the same for ever."""
    weights: Weights
    """Files with sizes, digests and urls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How hubs are asked from here, and where what they said is kept."""

    settings: Settings
    cache: str
    """Directory of side files; can be deleted at any time."""
    state: str
    """Directory that the store is in."""
    progress: Progress


def access(told: Settings, *, cache: str, state: str, progress: Progress) -> Access:
    """Return how hubs are asked; who may not write to the appliance's cache uses one of their own."""
    return Access(settings=told, cache=keep.writable(cache), state=state, progress=progress)


@cache
def hubs() -> dict[str, Hub]:
    """Return every hub by the prefix of its sources: the modules beside this one that have one."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    return {module.PREFIX: cast("Hub", module) for module in modules if hasattr(module, "PREFIX")}


def find(text: str, here: Access) -> Found:
    """Return what a source stands for, from what is here when it is. Raises SpecError or ArtifactError."""
    wanted = parse(text)
    if known := _known(wanted, here):
        return known
    if here.settings.offline:
        raise ArtifactError(
            f"{wanted} is not here, and offline no hub is asked",
            hint="run `llm-appliance pull` with network first, or see `llm-appliance config get hub.offline`",
        )
    if not wanted.hub:
        wanted = replace(wanted, hub=first(str(wanted), here))
    hub = _hub(wanted)
    try:
        return _ask(wanted, hub, here)
    except WebError as error:
        raise explain(error, wanted, hub, here.settings) from None


def bring(name: str, files: tuple[WeightFile, ...], here: Access) -> None:
    """Download what is missing of a model into the store's waiting room. Raises ArtifactError."""
    missing = [file for file in files if not keep.waiting(file, here.state).exists()]
    if not missing:
        return
    if here.settings.offline:
        raise ArtifactError(
            f"{name}: {len(missing)} files are not here, and offline no hub is asked", hint="run it once with network"
        )
    reference = parse_url(missing[0].url)
    hub = _hub(reference)
    wanted, known = [], keep.in_store(here.state)
    for file in missing:
        if keep.from_store(file, here.state, known) or keep.from_cache(file, here.cache, here.state):
            continue
        one = parse_url(file.url)
        path = one.file or file.name
        remote = hub.remote(one, path, here.settings)
        wanted.append(
            Wanted(remote=remote, target=keep.waiting(file, here.state), size=file.size, sha256=file.sha256)
        )  # fmt: skip
    if not wanted:
        return
    total = sum(one.size for one in wanted)
    here.progress.step("download", f"{name}: {amount_text(total)} from {hub.TITLE}")
    try:
        with work(here.progress, name, total) as bar:
            transfer(wanted, certificates=here.settings.certificates, on_bytes=bar.advance)
    except WebError as error:
        raise explain(error, replace(reference, file=""), hub, here.settings) from None
    except WrongBytesError as error:
        raise wrong(error, replace(reference, file="")) from None


def parse_url(url: str) -> Reference:
    """Take a file's `url` apart: any path may stand where a source has a GGUF file only."""
    if url.startswith(("https:", "http:")):
        return Reference(hub="https", repository=url)
    if url.startswith("ollama:"):
        source, _, blob = url.partition("/sha256:")
        return replace(parse(source), file=f"sha256:{blob}")
    hub, _, rest = url.partition(":")
    repository, _, tail = rest.partition("@")
    revision, _, path = tail.partition("/")
    if not path:
        raise SpecError(f"{url!r} is no file on a hub")
    return Reference(hub=hub, repository=repository, revision=revision, file=path)


def same(ours: str, asked: str) -> bool:
    """Tell whether a pinned source is what somebody asks for who names no commit, or no hub: branches move."""
    if ours == asked or not (is_reference(ours) and is_reference(asked)):
        return ours == asked
    one, other = parse(ours), parse(asked)
    if other.sha256 not in ("", one.sha256):
        return False
    if "ollama" in (one.hub, other.hub):  # a tag is part of the name: another one is another model
        return (one.hub, one.repository, one.revision) == (other.hub, other.repository, other.revision)
    hub, revision = other.hub in ("", one.hub), other.revision == one.revision or not COMMIT.fullmatch(other.revision)
    if not (hub and revision and one.repository == other.repository):
        return False
    if other.pick or "*" in other.file:
        return fits(other, one.file)
    return other.file in (one.file, "")


def _ask(wanted: Reference, hub: Hub, here: Access) -> Found:
    here.progress.step("hub", f"{wanted} at {hub.TITLE}")
    listing = hub.look(wanted, here.settings)
    choice = choose(wanted, listing)
    if listing.note:
        here.progress.note(f"{wanted}: {listing.note}")
    pinned = _pinned(listing.reference, choice)
    home = keep.headers(pinned, here.cache)
    weights = headers.read(pinned, listing, choice, hub, here.settings, home, here.progress)
    found = Found(source=str(pinned), weights=weights)
    (home / FOUND).write_text(codec.dump_json(found))
    here.progress.note(f"{pinned}: {amount_text(weights.size)} in {len(weights.files)} files")
    return found


def _pinned(commit: Reference, choice: Choice) -> Reference:
    if commit.sha256:
        return commit
    return replace(commit, file=choice.tensors[0].path if choice.format == "gguf" else "")


def _known(wanted: Reference, here: Access) -> Found | None:
    """Return what the store, or an earlier look in the cache, says of a source that cannot have changed."""
    for model in keep.stored(here.state):
        exact = wanted.pinned and model.source == str(wanted)
        if exact or (here.settings.offline and same(model.source, str(wanted))):
            return Found(source=model.source, weights=model.weights)
    content = keep.read(keep.headers(wanted, here.cache) / FOUND) if wanted.pinned else b""
    if not content:
        return None
    try:
        return codec.load_json(Found, content, source=FOUND)
    except SpecError:
        return None  # of another version of ours


def first(what: str, here: Access) -> str:
    """Return the hub that something without one is for, and say why. Raises ArtifactError.

    What `hub.source` says; else the first that answers within three seconds of: the one that did the last time, those
    whose address is configured, the others. Offline nobody is asked.
    """
    told = here.settings
    if told.source != "auto":
        here.progress.note(f"{what}: {told.source}:, as hub.source says")
        return told.source
    homes = {prefix: hubs()[prefix].home(told) for prefix in ("hf", "ms")}
    last = keep.answered(here.cache)
    order = sorted(homes, key=lambda prefix: (homes[prefix] != last, prefix not in told.configured))
    if told.offline:
        return order[0]
    silent: list[str] = []
    for prefix in order:
        home = homes[prefix]
        if answers(home, certificates=told.certificates, seconds=PROBE):
            why = f"; {' and '.join(silent)} did not within {PROBE:g} s" if silent else ""
            why = ", as it did the last time" if home == last else f"{why}; remembered"
            here.progress.note(f"{what}: {prefix}:, for {home} answers{why}")
            keep.remember_answer(home, here.cache)
            return prefix
        silent.append(home)
    raise ArtifactError(
        f"{what}: neither {' nor '.join(silent)} answered within {PROBE:g} s",
        hint="behind a proxy set https_proxy; behind a mirror: llm-appliance config set hub.endpoint https://MIRROR",
    )


def _hub(wanted: Reference) -> Hub:
    try:
        return hubs()[wanted.hub]
    except KeyError:
        raise SpecError(f"{wanted}: no hub is called {wanted.hub!r}", hint=FORMS) from None
