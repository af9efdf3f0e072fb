"""Which size, form and quantisation of a model fits a machine best: the largest first, each with what spoke against it.

The order: what lies wholly on GPUs before what the CPU has to compute; the model with the most parameters; of one
model 16 bits before 8 before 4, safetensors before GGUF on GPUs and GGUF alone on the CPU. Less than 4 bits must be
asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

from appliance.catalog import Catalog
from appliance.catalog.models.names import Found
from appliance.domain.deployment import Model, Reason, Refusal
from appliance.domain.host import Host
from appliance.domain.spec import ModelSpec
from appliance.engines import engine
from appliance.errors import HostError
from appliance.plan import choose, formats, size
from appliance.plan.choose import Candidate
from appliance.plan.ladder import USEFUL
from appliance.plan.offer import Choice, no_form, offers
from appliance.plan.place import Fitted
from appliance.plan.room import Room
from appliance.plan.words import gib, words

OTHERS: Final = 3
"""Runner-ups that are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """A choice that fits, and what serves it."""

    choice: Choice
    fitted: Fitted

    @property
    def engine(self) -> str:
        """Return the engine's name."""
        return self.fitted.candidate.release.engine

    def words(self) -> str:
        """Return the choice with what serves it where."""
        return f"{self.choice.label} with {self.served()}"

    def served(self) -> str:
        """Return what serves it where, and how much it takes there."""
        place = self.fitted.places[0]
        where = " + ".join(gpu.device for gpu in place.gpus) or "the CPU"
        total = sum(load.total for load in place.loads)
        return f"{choose.label(self.fitted.candidate.release)} on {where}, about {gib(total)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """What a name came to on a machine."""

    best: Fitting
    others: tuple[Fitting, ...]
    """Those that would fit too, in the same order."""
    refused: tuple[Refusal, ...]
    """What stood before the best one."""
    why: str

    def reason(self, name: str) -> Reason:
        """Return the decision with everything that was passed over."""
        others = tuple(Refusal(name=one.choice.label, why=f"fits too, with {one.served()}") for one in self.others)
        return Reason(
            subject=f"model for {name}", chosen=self.best.words(), why=self.why, refused=self.refused + others
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """One way to lay models out."""

    gpu: bool | None
    """On GPUs, on the CPU; None = whichever."""
    strict: bool
    why: str


STAGES: Final = (
    _Stage(gpu=True, strict=True, why="the largest that lies wholly on the GPUs"),
    _Stage(gpu=False, strict=True, why="the largest that fits the machine's memory"),
    _Stage(gpu=None, strict=False, why="the smallest, and with less context or fewer requests than wanted"),
)


def pick(
    found: Found, item: ModelSpec, host: Host, catalog: Catalog, here: Room,
    *, quantisation: str = "", hub: str = "hf", runtime: str = "systemd",
) -> Picked:  # fmt: skip
    """Return the best choice and the next ones. Raises HostError with every reason when nothing can be served.

    `item` is what the operator said; without a context `USEFUL` tokens must fit for each request.
    """
    offered = offers(found, quantisation or found.quantisation, hub)
    if not offered:
        raise no_form(found, quantisation or found.quantisation, hub)
    bench = _Bench(item, host, catalog, here, runtime)
    passed: list[_Passed] = []
    stages = [stage for stage in STAGES if (stage.strict or not item.strict) and (host.gpus or stage.gpu is not True)]
    for stage in stages:
        # The smallest form of the smallest model is the last hope, so the order turns round.
        ordered = offered if stage.strict else sorted(offered, key=lambda one: one.weights.size)
        fitting, tried = _walk(ordered, stage, bench)
        passed += tried if stage.strict else ()
        if fitting:
            best, *others = fitting
            refused = tuple(_condensed(passed, best))
            return Picked(best=best, others=tuple(others), refused=refused, why=_why(stage, found, best))
    told = "; ".join(f"{one.name}: {one.why}" for one in _condensed(passed, None))
    raise HostError(f"no form of {item.name} fits this machine: {told}", hint=_hint(offered))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Passed:
    """A choice that was tried in vain."""

    choice: Choice
    why: str
    memory: bool = False
    """It would have been served, had there been more memory."""


class _Bench:
    """Tries choices on one machine; which releases could serve a form is asked once."""

    def __init__(self, item: ModelSpec, host: Host, catalog: Catalog, here: Room, runtime: str) -> None:
        self._item, self._host, self._catalog, self._here, self._runtime = item, host, catalog, here, runtime
        self._known: dict[tuple[str, str, str], tuple[Candidate, ...] | str] = {}

    def attempt(self, one: Choice, stage: _Stage) -> Fitting | _Passed:
        """Return what a choice gets, or why it gets nothing."""
        model, known = _model(one), self._candidates(one)
        if isinstance(known, str):
            return _Passed(choice=one, why=known)
        usable, why = _usable(one, [each for each in known if stage.gpu is None or bool(each.gpus) == stage.gpu])
        if not usable:
            place = {True: "no engine serves it on these GPUs", False: "no engine serves it on the CPU"}
            return _Passed(choice=one, why=why or place.get(stage.gpu is not False, ""))
        able = usable if stage.gpu else _usable(one, known)[0]
        if stage.strict:
            item = self._wish(one, strict=True, context=self._item.context or min(USEFUL, one.entry.context))
            fitted, why = None, self._short(one, usable)
            if not why:
                fitted, why = size.attempt(item, model, usable, self._host, self._here)
            if not fitted:
                return _Passed(choice=one, why=why, memory=True)
            able = _alike(able, fitted)
        # What it will get: the most that fits, as the plan will lay it out.
        fitted, why = size.attempt(self._wish(one, strict=self._item.strict), model, able, self._host, self._here)
        if fitted and stage.gpu and 0 < fitted.places[0].setting.gpu_layers <= one.entry.shape.layers:
            fitted, why = None, "some of its layers would have to stay in RAM"
        return Fitting(choice=one, fitted=fitted) if fitted else _Passed(choice=one, why=why, memory=True)

    def _wish(self, one: Choice, **changed: Any) -> ModelSpec:
        return replace(self._item, name=one.entry.id, **changed)

    def _candidates(self, one: Choice) -> tuple[Candidate, ...] | str:
        key = (one.weights.format, one.weights.architecture, one.weights.quantisation)
        if key not in self._known:
            try:
                self._known[key] = choose.candidates(self._item, _model(one), self._host, self._catalog, self._runtime)
            except HostError as error:
                asked = self._item.engine
                why = str(error).partition(": ")[2]
                self._known[key] = why if asked != "auto" else f"no engine reads {one.weights.format} here"
        return self._known[key]

    def _short(self, one: Choice, usable: Sequence[Candidate]) -> str:
        """Tell at once what is larger than all memory that it could get."""
        pools = {gpu.pool for each in usable for gpu in each.gpus} or {"ram"}
        free = sum(self._here.free(pool) for pool in pools)
        told = f"weights of about {gib(one.weights.size)}, {gib(free)} are free"
        return told if one.weights.size > free else ""


def _usable(one: Choice, known: Sequence[Candidate]) -> tuple[tuple[Candidate, ...], str]:
    """Keep the candidates that compute with the form."""
    only = one.variant.format == "bf16" and not any(variant.format == "gguf" for variant in one.entry.variants)
    form = one.variant.format
    whys = ["" if only else formats.refuse(form, each.release.engine, each.gpus) for each in known]
    usable = tuple(each for each, why in zip(known, whys, strict=True) if not why)
    return usable, "; ".join(dict.fromkeys(filter(None, whys)))


def _alike(known: Sequence[Candidate], fitted: Fitted) -> tuple[Candidate, ...]:
    """Keep the engine that has room for what is wanted; llama.cpp's two servers take each other's place."""
    chosen = fitted.candidate.release.engine
    return tuple(each for each in known if each.release.engine == chosen or chosen.startswith("llama-cpp"))


def _walk(ordered: Sequence[Choice], stage: _Stage, bench: _Bench) -> tuple[list[Fitting], list[_Passed]]:
    """Try one after the other until the best one and enough others are found."""
    fitting: list[Fitting] = []
    passed: list[_Passed] = []
    for one in ordered:
        if fitting and not _worth_telling(one, fitting):
            continue
        tried = bench.attempt(one, stage)
        if isinstance(tried, Fitting):
            fitting.append(tried)
        elif not fitting:
            passed.append(tried)
        if len(fitting) > OTHERS:
            break
    return fitting, passed


def _worth_telling(one: Choice, fitting: Sequence[Fitting]) -> bool:
    """The next form of the best model, and the best form of each model after it."""
    told = [other.choice.entry.id for other in fitting]
    return told.count(one.entry.id) < (2 if one.entry.id == told[0] else 1)


def _condensed(passed: Sequence[_Passed], best: Fitting | None) -> Iterator[Refusal]:
    """Tell each form of the model that was taken, and of the others only the one that came nearest."""
    once = {one.choice.label: one for one in reversed(passed)}  # tried on GPUs first, and that tells the most
    forms = list(reversed(once.values()))
    for entry in dict.fromkeys(one.choice.entry.id for one in forms):
        own = [one for one in forms if one.choice.entry.id == entry]
        if best and entry == best.choice.entry.id:
            better = [one for one in own if one.choice != best.choice]
            for why, same in groupby(better, key=lambda one: one.why):
                yield Refusal(name=", ".join(one.choice.label for one in same), why=why)
            continue
        nearest = min(own, key=lambda one: (not one.memory, one.choice.weights.size))
        yield Refusal(name=nearest.choice.label, why=nearest.why)


def _why(stage: _Stage, found: Found, best: Fitting) -> str:
    setting = best.fitted.places[0].setting
    said = words(setting, _model(best.choice), engine(best.engine))
    among = f", of {len(found.entries)} models" if len(found.entries) > 1 else ""
    return f"{stage.why}{among}: {said}"


def _model(one: Choice) -> Model:
    return Model(name=one.entry.id, source=one.source, weights=one.weights, digest="")


def _hint(offered: Sequence[Choice]) -> str:
    smallest = min(offered, key=lambda one: one.weights.size)
    less = [name for one in smallest.entry.variants for name in one.quantisations if formats.bits(one, name) <= 4]
    ask = f"; fewer bits must be asked for: --quantisation {less[0]}" if less else ""
    return f"the smallest is {smallest.label}, about {gib(smallest.weights.size)}{ask}"
