"""From what a person types after add-model to a spec: a path, a repository, or the form of a known model that fits."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from appliance import codec, specfile
from appliance.acquire import hub
from appliance.acquire import models as model_files
from appliance.catalog import Catalog
from appliance.catalog import load as load_catalog
from appliance.catalog.models.names import Found
from appliance.detect import detect
from appliance.domain.deployment import Reason, Service
from appliance.domain.host import Host
from appliance.domain.spec import SMOKE, TASKS, ApplianceSpec, ModelSpec, Tuning
from appliance.domain.version import version
from appliance.errors import UsageError
from appliance.flows.converge import Terms, access, read_spec
from appliance.flows.site import Site
from appliance.plan import choose, offer, pick, size
from appliance.plan.room import Room, pools, room
from appliance.plan.runtime import runtime_name

ALIASES: Final = "aliases.yaml"
"""The operator's own names, beside appliance.yaml: name -> a source, or a name of the catalog."""
SCHEMES: Final = ("hf:", "ms:", "ollama:", "https:", "http:", "file:", "remote:")
BUILTIN: Final = "builtin:"
REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w.-]+)?(:[\w.-]+)?")
FILES: Final = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".zip")
"""Endings of what is a file, even where it is not there."""
UNIFORM: Final = ("tool-call-parser", "reasoning-parser", "runner", "enable-auto-tool-choice")
"""Flags of the catalog that are options of every engine, or follow from one."""
DEEPEST: Final = 8
"""Aliases of aliases that are followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a form of a known model is chosen, beside what its spec says."""

    quantisation: str = ""
    """`Q4_K_M`, `fp8`, `bf16` …; "" = the best that fits."""
    hub: str = "hf"
    """`hf`, `ms` for ModelScope, `ollama`, or `auto`: what `hub.source` says, else the first that answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A spec whose source says exactly what is meant."""

    model: ModelSpec
    reason: Reason | None = None
    """Why this form was chosen; None where the operator said which."""


def resolve(site: Site, asked: ModelSpec, wish: Wish, terms: Terms, host: Host | None = None) -> Resolved:
    """Return the spec with a source that names files; `asked.source` is the word that was typed, "" = none.

    Raises UsageError with near names for a word that nothing is called, HostError when no form fits. With `host`, the
    choice is for that other machine, which has nothing of ours yet.
    """
    if wish.hub not in ("auto", *offer.HUBS):
        raise UsageError(f"--hub {wish.hub!r} is not known", hint=f"auto, {', '.join(offer.HUBS)}")
    if asked.engine == "dummy" and not asked.source:
        return Resolved(model=replace(asked, source=model_files.NONE))
    word = _followed(site, asked.source or asked.name)
    asked = asked if asked.source else replace(asked, name=_instance(asked.name))
    if source := _direct(word, typed=bool(asked.source)):
        # The model that comes along runs on the CPU, as a first installation has it: that works wherever anything does.
        gpus = 0 if source == SMOKE and asked.gpus is None else asked.gpus
        # Of files that are named, it says how the engine is to quantise them, or to read them.
        tuning = replace(asked.tuning, quantisation=wish.quantisation)
        return Resolved(model=replace(asked, source=source, gpus=gpus, tuning=tuning))
    return _known(site, replace(asked, source=word), wish, terms, host)


def _followed(site: Site, word: str) -> str:
    """Replace the operator's own names by what they stand for."""
    path = f"{site.layout.etc}/{ALIASES}"
    content = site.machine.read(path, codec.MAX_BYTES + 1)
    if content is None:
        return word
    try:
        aliases = codec.load_yaml(dict[str, str], content.decode(), source=ALIASES)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 at byte {error.start}") from error
    for _ in range(DEEPEST):
        if word not in aliases or aliases[word] == word:
            return word
        word = aliases[word]
    raise UsageError(f"{path}: {word} goes round in a circle")


def _direct(word: str, *, typed: bool) -> str:
    """Return the source that a word is by itself; "" = it must be a name of the catalog.

    A bare word is a file only where one of that name is here and it was typed as the source.
    """
    if word == "smoke" and not typed:
        return SMOKE
    if word.startswith(BUILTIN):
        if word != SMOKE:
            raise UsageError(f"{word} does not come with the appliance", hint=SMOKE)
        return word
    if word.startswith(SCHEMES):
        return word
    here = os.path.expanduser(word)  # noqa: PTH111 - as the shell would have it
    if word.startswith(("/", "./", "../", "~")) or word in (".", "..") or word.lower().endswith(FILES):
        return os.path.abspath(here)  # noqa: PTH100 - links stay: a hub's cache replaces what they point to
    if typed and Path(here).exists():
        return os.path.abspath(here)  # noqa: PTH100
    if REPOSITORY.fullmatch(word):
        return word  # which hub is asked for it is the operator's setting
    return os.path.abspath(here) if "/" in word else ""  # noqa: PTH100


def _instance(name: str) -> str:
    """Return the served name of a model that is asked for by its own: `qwen3:8b` is served as `qwen3-8b`."""
    if specfile.NAME.fullmatch(name):
        return name
    bare = name.rpartition("/")[2].partition("@")[0]
    return re.sub(r"[^a-z0-9.]+", "-", bare.lower()).strip("-.")[:63] or name


def _known(site: Site, asked: ModelSpec, wish: Wish, terms: Terms, host: Host | None) -> Resolved:
    from appliance.catalog.models import load, names  # 0.2 s that only a name of the catalog costs

    word, shelf = asked.source, load(terms.catalog, state=site.layout.state)
    found = names.find(word, shelf)
    if found is None:
        near = names.near(word, shelf)
        meant = f"did you mean {', '.join(near)}? " if near else ""
        raise UsageError(
            f"where are the files of {asked.name}? no model of the catalog is called {word!r}",
            hint=f"{meant}`llm-appliance catalog search` lists the models; "
            f"or say where it is: llm-appliance add-model {asked.name} /path/to/model.gguf",
        )
    spec, _ = read_spec(site)
    there = next((model for model in spec.models if model.name == asked.name), None)
    offered = (
        one
        for entry in found.entries
        for place in offer.HUBS
        for one in offer.choices(entry, place, wish.quantisation or found.quantisation)
    )
    chosen = next((one for one in offered if there and _stands_for(there.source, one)), None)
    if there and chosen:
        # It was chosen before, and what runs since then would only make the choice another one.
        return Resolved(model=_again(asked, there, chosen))
    place = _place(site, spec, found, wish, offline=terms.offline)
    catalog = load_catalog(terms.catalog, state=site.layout.state)
    machine = host or detect(site.machine, state=site.layout.state)
    record = None if host else site.generations.record()
    runtime = runtime_name(spec, machine, site.layout, record.deployment if record else None)
    left = room(machine) if host else _left(site, spec, machine, catalog, terms, runtime)
    picked = pick.pick(found, asked, machine, catalog, left, quantisation=wish.quantisation, hub=place, runtime=runtime)
    reason = picked.reason(asked.name)
    _tell(site, reason)
    return Resolved(model=_spec(asked, picked.best), reason=reason)


def _place(site: Site, spec: ApplianceSpec, found: Found, wish: Wish, *, offline: bool) -> str:
    """Return the hub that the form is taken from; one that has none of the model is no choice."""
    if wish.hub != "auto":
        return wish.hub
    forms = [(entry, variant) for entry in found.entries for variant in entry.variants]
    hubs = [name for name in ("hf", "ms") if any(offer.there(entry, variant, name) for entry, variant in forms)]
    if len(hubs) == 1:
        site.progress.note(f"{found.entries[0].id}: {hubs[0]}:, no other hub is known to have it")
        return hubs[0]
    return hub.first(found.entries[0].family, access(site, spec, offline=offline))


def _spec(asked: ModelSpec, best: pick.Fitting) -> ModelSpec:
    """Return the spec of a choice: its engine too for safetensors, which is the one with room, kernels and flags."""
    release = best.fitted.candidate.release
    flags = dict(_flags(best.choice, release.engine, release.version))
    known = {*UNIFORM, *dict(asked.options)}
    options = (*asked.options, *((key, value) for key, value in flags.items() if key not in known))
    own = best.choice.weights.format == "safetensors"
    return replace(
        asked,
        source=best.choice.source,
        options=options,
        tuning=_tuned(asked.tuning, flags, best.choice.entry.kind),
        engine=release.engine if own else asked.engine,
    )


def _tuned(tuning: Tuning, flags: dict[str, str], kind: str) -> Tuning:
    """Return the uniform options with what the catalog says; what the operator said stays."""
    task = kind if "runner" in flags and kind in TASKS and tuning.task == "chat" else tuning.task
    return replace(
        tuning,
        task=task,
        tool_parser=tuning.tool_parser or flags.get("tool-call-parser", ""),
        reasoning_parser=tuning.reasoning_parser or flags.get("reasoning-parser", ""),
    )


def _stands_for(source: str, one: offer.Choice) -> bool:
    """Whether a source is this choice, though a commit and a file's name have been written into it since."""
    if one.hub == "ollama":
        return hub.same(source, one.source)
    bare = re.sub(r"@[^/:]+", "", source)
    if bare == one.source or not one.quantisation:
        return bare == one.source
    repository = one.source.removesuffix(f":{one.quantisation}")
    file = bare.removeprefix(f"{repository}/")
    return file != bare and bool(re.search(rf"(?i)(^|[-._/]){re.escape(one.quantisation)}[-.]", file))


def _again(asked: ModelSpec, there: ModelSpec, one: offer.Choice) -> ModelSpec:
    """Return the spec as it was made of the same words before."""
    ours = {pair for each in one.entry.options for pair in each.flags.items()}
    asked_keys = dict(asked.options)
    options = (*asked.options, *(pair for pair in there.options if pair in ours and pair[0] not in asked_keys))
    engine = there.engine if asked.engine == "auto" else asked.engine
    said = {
        "tool-call-parser": there.tuning.tool_parser,
        "reasoning-parser": there.tuning.reasoning_parser,
    } | ({"runner": "pooling"} if there.tuning.task != "chat" else {})
    tuning = _tuned(asked.tuning, said, one.entry.kind)
    return replace(asked, source=there.source, engine=engine, options=options, tuning=tuning)


def _flags(one: offer.Choice, engine: str, release: str) -> Iterator[tuple[str, str]]:
    """Yield the flags that the catalog has for this model with this engine, where the release knows them."""
    for each in one.entry.options:
        if each.engine == engine and version(release) >= version(each.since or "0"):
            yield from each.flags.items()


def _left(site: Site, spec: ApplianceSpec, host: Host, catalog: Catalog, terms: Terms, runtime: str) -> Room:
    """Return the memory beside the models that are served already, or will be again with --replan."""
    record = site.generations.record()
    here, where = room(host), pools(host)
    if record is None:
        return here
    services: tuple[Service, ...] = record.deployment.services
    if not terms.replan:
        for service in services:
            here = here.take(service.loads, where, running=True)
        return here
    for service in services:
        here = here.without(service.loads, where)
    known = {model.name: model for model in record.deployment.models}
    for item in (item for item in spec.models if item.name in known):
        model = known[item.name]
        here = size.fit(item, model, choose.candidates(item, model, host, catalog, runtime), host, here)[1]
    return here


def _tell(site: Site, reason: Reason) -> None:
    site.progress.step("choose", f"{reason.chosen}: {reason.why}")
    for one in reason.refused:
        site.progress.note(f"{'or' if one.why.startswith('fits too') else 'not'} {one.name}: {one.why}")
