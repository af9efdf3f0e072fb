"""The largest layout of a model that fits the memory that is left: on which GPUs, with how much context."""

from collections.abc import Iterator
from dataclasses import replace

from appliance.domain.deployment import Model, Refusal
from appliance.domain.host import Gpu, Host
from appliance.domain.service import Setting
from appliance.domain.spec import ModelSpec
from appliance.domain.version import version
from appliance.engines import Engine, engine
from appliance.errors import HostError
from appliance.plan import ladder
from appliance.plan.choose import Candidate, label
from appliance.plan.place import Attempt, Fitted, Place
from appliance.plan.room import Room, pools, sets
from appliance.plan.words import gib, lack, lacking, short, smaller, words

OBVIOUS = ("GPUs, there is none", "runs no container images")
"""Ends of reasons that are no news to anybody."""
SAID = 6
"""Releases that were passed over for what they need, which a refusal names too."""


Tried = list[tuple[Candidate, Attempt | str]]
"""What each candidate came to that does not fit; a text where there was nothing to be tried."""


def fit(
    item: ModelSpec, model: Model, candidates: tuple[Candidate, ...], host: Host, here: Room, most: int = 0
) -> tuple[Fitted, Room]:
    """Return the first candidate's largest layout that fits, and what it leaves. Raises HostError with the numbers.

    `most`: tokens of context that it gets unless more are asked for; 0 = what it was trained for.
    """
    attempts: Tried = []
    found = _search(item, model, candidates, host, here, attempts, most)
    if found is None:
        raise _nothing(item, model, attempts, host, here)
    return found


def attempt(
    item: ModelSpec, model: Model, candidates: tuple[Candidate, ...], host: Host, here: Room
) -> tuple[Fitted | None, str]:
    """Return the layout as `fit` does, or None and why there is none; no way out is looked for, which takes longer."""
    attempts: Tried = []
    found = _search(item, model, candidates, host, here, attempts)
    if found:
        return found[0], ""
    told = [(label(one.release), last if isinstance(last, str) else short(last, host)) for one, last in attempts]
    whys = dict.fromkeys(why for _, why in told)
    return None, "; ".join(whys) if len(whys) == 1 else "; ".join(f"{name} {why}" for name, why in told)


def _search(
    item: ModelSpec, model: Model, candidates: tuple[Candidate, ...], host: Host, here: Room,
    attempts: Tried, most: int = 0,
) -> tuple[Fitted, Room] | None:  # fmt: skip
    """Go down each candidate's ladder; what was tried last of each that does not fit goes into `attempts`."""
    passed: list[Refusal] = []
    tried: set[tuple[str, tuple[str, ...]]] = set()
    for candidate in candidates:
        passed += candidate.refused
        # An older release of the same engine takes as much of the same GPUs.
        what = (candidate.release.engine, tuple(gpu.device for gpu in candidate.gpus))
        if what in tried:
            continue
        tried.add(what)
        refused: list[Refusal] = []
        last: Attempt | None = None
        module = engine(candidate.release.engine)
        why = module.unfit(model, candidate.gpus) or _no_type(item, model, module, candidate)
        if why:
            attempts.append((candidate, why))
            passed.append(Refusal(name=label(candidate.release), why=why))
            continue
        for setting, _ in ladder.ladder(item, model, module, candidate.gpus, most):
            places, left, attempt = _all(item, model, module, setting, candidate.gpus, host, here)
            if places:
                steps = _shortened(refused)
                return Fitted(candidate=candidate, places=places, steps=steps, refused=tuple(passed)), left
            last = attempt or last
            if attempt:
                refused.append(Refusal(name=words(setting, model, module), why=short(attempt, host)))
        attempts.append((candidate, last or _unplaced(item, candidate)))
        passed.append(
            Refusal(name=label(candidate.release), why=short(last, host) if last else _unplaced(item, candidate))
        )
    return None


def _all(
    item: ModelSpec, model: Model, module: Engine, setting: Setting, gpus: tuple[Gpu, ...], host: Host, here: Room
) -> tuple[tuple[Place, ...], Room, Attempt | None]:
    """Place every replica of one setting; () and the nearest attempt where one of them finds no place."""
    where, left = pools(host), here
    places: list[Place] = []
    for _ in range(item.replicas):
        attempt: Attempt | None = None
        for chosen in _choices(item, model, module, gpus, left):
            shaped = _shaped(setting, item, module, model, chosen)
            loads = module.estimate(model, shaped, chosen)
            attempt = Attempt(shaped, loads, chosen, left)
            if left.holds(loads, where):
                places.append(Place(gpus=chosen, setting=shaped, loads=loads))
                left = left.take(loads, where)
                break
        else:
            return (), here, attempt
    return tuple(places), left, None


def _choices(
    item: ModelSpec, model: Model, module: Engine, gpus: tuple[Gpu, ...], here: Room
) -> Iterator[tuple[Gpu, ...]]:
    """Yield the GPUs that one replica may get, the fewest first; () alone where it computes on the CPU."""
    if not gpus:
        yield ()
        return
    # A process can use one slice of a GPU, and none beside it.
    most, stages = 1 if any(gpu.slice is not None for gpu in gpus) else len(gpus), item.tuning.pipeline_parallel
    counts = tuple(count * stages for count in module.spreads(model, most // stages))
    if isinstance(item.gpus, tuple):
        named = tuple(gpu for gpu in gpus if gpu.index in item.gpus)
        if len(item.gpus) in counts and all(gpu.pool in here.left for gpu in named):
            yield from sets(named, 1, here) if len(item.gpus) < len(named) else (named,)
        return
    for count in counts:
        if item.gpus in (None, count):
            yield from sets(gpus, count, here)


def _shaped(setting: Setting, item: ModelSpec, module: Engine, model: Model, gpus: tuple[Gpu, ...]) -> Setting:
    """Say what follows from the GPUs: how many share a layer, and the type that they compute in."""
    if not gpus:
        return setting
    old = any(gpu.vendor == "nvidia" and version(gpu.compute_capability) < (8, 0) for gpu in gpus)
    whole = not module.layers(model)  # an engine that moves single layers does not divide them
    half = old and whole and setting.dtype == "auto"
    stages = item.tuning.pipeline_parallel
    return replace(
        setting,
        tensor_parallel=len(gpus) // stages if whole else 1,
        pipeline_parallel=stages,
        dtype="half" if half else setting.dtype,
    )


def _no_type(item: ModelSpec, model: Model, module: Engine, candidate: Candidate) -> str:
    types = ("auto", *module.caches(model, candidate.gpus))
    if item.kv_type in types:
        return ""
    known = ", ".join(types)
    return f"knows no KV cache of type {item.kv_type} there, only {known}"


def _unplaced(item: ModelSpec, candidate: Candidate) -> str:
    """Say why there was no set of GPUs to try."""
    blind = [gpu.device for gpu in candidate.gpus if gpu.memory is None and not gpu.unified]
    if blind:
        return f"how much memory {', '.join(blind)} has is not known"
    asked = item.gpus if isinstance(item.gpus, int) else len(item.gpus or ())
    return f"cannot be spread over {asked} GPUs of one kind here"


def _shortened(refused: list[Refusal]) -> tuple[Refusal, ...]:
    """Keep the ends of a long way down: hundreds of layers tell nobody anything."""
    return tuple(refused) if len(refused) <= 8 else (*refused[:6], *refused[-2:])


def _nothing(item: ModelSpec, model: Model, attempts: Tried, host: Host, here: Room) -> HostError:
    """Say what the least would take with each engine, and what can be done."""
    lines = []
    for candidate, attempt in _nearest(attempts, host):
        if isinstance(attempt, str):
            lines.append(f"{label(candidate.release)}: {attempt}")
            continue
        worst, where = lacking(attempt, host), pools(host)
        short_of = (load for load in attempt.loads if where.get(load.device, load.device) == worst)
        parts = max(short_of, key=lambda load: load.total)
        items = ", ".join(f"{name} {gib(amount)}" for name, amount in parts.items)
        said = words(attempt.setting, model, engine(candidate.release.engine))
        lines.append(f"{label(candidate.release)}: {said} {short(attempt, host)} ({items})")
    refused = [one for candidate, _ in attempts for one in candidate.refused]
    passed = [one for one in refused if not one.why.startswith("reads ") and not one.why.endswith(OBVIOUS)]
    lines += [f"{one.name}: {one.why}" for one in passed[:SAID]]
    # What the CPU cannot hold either might have fitted on GPUs that do not work, or only with another driver.
    last = [candidate for candidate, _ in attempts if not candidate.gpus]
    advice = dict.fromkeys(candidate.advice for candidate in last if candidate.advice)
    hint = "; ".join((*advice, _way_out(item, model, attempts, host, here)))
    return HostError(f"{item.name} does not fit: " + "; ".join(lines), hint=hint)


def _nearest(attempts: Tried, host: Host) -> Tried:
    """Keep of each engine what came nearest: on a machine of several kinds of GPUs each was tried."""
    best: dict[str, tuple[Candidate, Attempt | str]] = {}
    for candidate, attempt in attempts:
        name = candidate.release.engine
        if name not in best or lack(attempt, host) < lack(best[name][1], host):
            best[name] = candidate, attempt
    return list(best.values())


def _way_out(item: ModelSpec, model: Model, attempts: Tried, host: Host, here: Room) -> str:
    """Find what would fit: the operator's own wishes are the first that can give way."""
    candidates = tuple(candidate for candidate, _ in attempts)
    lenient, before = replace(item, strict=False), "leave --strict out and " if item.strict else ""
    for flag, loosened in (
        ("--strict", lenient),
        ("--context", replace(lenient, context=None)),
        ("--parallel", replace(lenient, parallel=None)),
        ("--gpus", replace(lenient, gpus=None)),
        ("--replicas", replace(lenient, replicas=1)),
        ("--kv-type", replace(lenient, kv_type="auto")),
        ("", replace(lenient, context=None, parallel=None, gpus=None, replicas=1, kv_type="auto")),
    ):
        if loosened == item:
            continue
        found = _search(loosened, model, candidates, host, here, [])
        if found is None:
            continue
        fitted = found[0]
        setting = fitted.places[0].setting
        value = {
            "--context": setting.context, "--parallel": setting.parallel,
            "--gpus": len(fitted.places[0].gpus), "--replicas": 1, "--kv-type": "auto",
        }.get(flag)  # fmt: skip
        if flag == "--strict":
            return "leave --strict out, and it steps down to what fits"
        said = words(setting, model, engine(fitted.candidate.release.engine))
        return f"{before}try {flag} {value}" if flag else f"{said} would fit"
    if all(isinstance(attempt, str) for _, attempt in attempts) and model.weights.format == "safetensors":
        return "a GGUF file of the same model can be served by llama.cpp"
    more = "" if any(gpu.unified or gpu.slice is not None for gpu in host.devices) or not host.gpus else ", more GPUs"
    return f"take a smaller quantisation{smaller(model)}{more}, or remove another model"
