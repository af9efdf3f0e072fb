"""The largest layout of a model that fits the memory that is left: on which GPUs, with how much context."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from appliance.domain.deployment import Load, Model, Reason, Refusal, Service, Setting
from appliance.domain.host import Gpu, Host
from appliance.domain.spec import ModelSpec
from appliance.domain.version import version
from appliance.engines import Engine, engine
from appliance.errors import HostError
from appliance.plan import ladder
from appliance.plan.choose import Candidate
from appliance.plan.room import Room, pools, sets, summed


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one replica gets."""

    gpus: tuple[Gpu, ...]
    setting: Setting
    loads: tuple[Load, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What a model gets."""

    candidate: Candidate
    places: tuple[Place, ...]
    """One for each replica."""
    steps: tuple[Refusal, ...]
    """Settings that were tried before and did not fit."""
    refused: tuple[Refusal, ...] = ()
    """Releases that were passed over, for what they need or for the memory that they take."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The last layout of a candidate that did not fit."""

    setting: Setting
    loads: tuple[Load, ...]
    gpus: tuple[Gpu, ...]
    left: Room
    """What there was for it: the replicas before it have theirs."""


Tried = list[tuple[Candidate, _Attempt | str]]
"""What each candidate came to that does not fit; a text where there was nothing to be tried."""


def fit(
    item: ModelSpec, model: Model, candidates: tuple[Candidate, ...], host: Host, here: Room
) -> tuple[Fitted, Room]:
    """Return the first candidate's largest layout that fits, and what it leaves. Raises HostError with the numbers."""
    attempts: Tried = []
    found = _search(item, model, candidates, host, here, attempts)
    if found is None:
        raise _nothing(item, model, attempts, host, here)
    return found


def _search(
    item: ModelSpec, model: Model, candidates: tuple[Candidate, ...], host: Host, here: Room,
    attempts: Tried,
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
        last: _Attempt | None = None
        module = engine(candidate.release.engine)
        if item.kv_type not in ("auto", *module.caches(model, candidate.gpus)):
            why = _no_type(item, model, module, candidate)
            attempts.append((candidate, why))
            passed.append(Refusal(name=_name(candidate), why=why))
            continue
        for setting, _ in ladder.ladder(item, model, module, candidate.gpus):
            places, left, attempt = _all(item, model, module, setting, candidate.gpus, host, here)
            if places:
                steps = _shortened(refused)
                return Fitted(candidate=candidate, places=places, steps=steps, refused=tuple(passed)), left
            last = attempt or last
            if attempt:
                refused.append(Refusal(name=words(setting, model, module), why=_short(attempt, host)))
        attempts.append((candidate, last or _unplaced(item, candidate)))
        passed.append(Refusal(name=_name(candidate), why=_short(last, host) if last else _unplaced(item, candidate)))
    return None


def explain(item: ModelSpec, model: Model, services: tuple[Service, ...], fitted: Fitted, host: Host) -> Reason:
    """Return what a model gets, item by item, and every step down that led there."""
    setting = services[0].setting
    module = engine(services[0].engine)
    totals = {"ram": host.memory} | {gpu.device: gpu.memory or host.memory for gpu in host.devices}
    devices = [
        f"{load.device} {gib(load.total)} of {gib(totals[load.device])}: "
        + ", ".join(f"{name} {gib(amount)}" for name, amount in load.items)
        for service in services
        for load in service.loads
        if load.items
    ]
    trained = model.weights.context_length
    cut = f" (trained for {trained})" if setting.context < trained else ""
    return Reason(
        subject=f"memory of {item.name}",
        chosen=words(setting, model, module) + _where(services) + cut,
        why="; ".join(devices),
        refused=fitted.steps,
    )


def _where(services: tuple[Service, ...]) -> str:
    """Say which devices the replicas have, and that the weights lie in RAM where they have none."""
    places = [
        " + ".join(load.device for load in service.loads if load.device != "ram") or "the CPU" for service in services
    ]
    return f" on {'; '.join(dict.fromkeys(places))}"


def words(setting: Setting, model: Model, module: Engine) -> str:
    """Write a setting for people."""
    text = f"{setting.context} tokens × {setting.parallel} at the same time"
    if setting.kv_type != "auto":
        text += f", KV cache {setting.kv_type}"
    if 0 < setting.gpu_layers <= module.layers(model):
        text += f", {setting.gpu_layers - 1} of {model.weights.layers} layers on the GPU"
    return text


def gib(amount: int) -> str:
    """Write bytes for people."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 10 << 30 else f"{amount >> 20} MiB"


def _all(
    item: ModelSpec, model: Model, module: Engine, setting: Setting, gpus: tuple[Gpu, ...], host: Host, here: Room
) -> tuple[tuple[Place, ...], Room, _Attempt | None]:
    """Place every replica of one setting; () and the nearest attempt where one of them finds no place."""
    where, left = pools(host), here
    places: list[Place] = []
    for _ in range(item.replicas):
        attempt: _Attempt | None = None
        for chosen in _choices(item, model, module, gpus, left):
            shaped = _shaped(setting, item, module, model, chosen)
            loads = module.estimate(model, shaped, chosen)
            attempt = _Attempt(shaped, loads, chosen, left)
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
    known = ", ".join(("auto", *module.caches(model, candidate.gpus)))
    return f"knows no KV cache of type {item.kv_type} there, only {known}"


def _unplaced(item: ModelSpec, candidate: Candidate) -> str:
    """Say why there was no set of GPUs to try."""
    blind = [gpu.device for gpu in candidate.gpus if gpu.memory is None and not gpu.unified]
    if blind:
        return f"how much memory {', '.join(blind)} has is not known"
    asked = item.gpus if isinstance(item.gpus, int) else len(item.gpus or ())
    return f"cannot be spread over {asked} GPUs of one kind here"


def _short(attempt: _Attempt, host: Host) -> str:
    """Say which memory is too small, with the numbers."""
    here, needed = attempt.left, summed(attempt.loads, pools(host))
    worst = max(needed, key=lambda pool: needed[pool] - here.free(pool) if pool in here.left else needed[pool])
    others = f" on each of {len(attempt.gpus)} GPUs" if len(attempt.gpus) > 1 and worst != "ram" else f" of {worst}"
    free = here.free(worst) if worst in here.left else 0
    return f"needs {gib(needed[worst])}{others}, {gib(free)} are free of {gib(here.total.get(worst, 0))}"


def _shortened(refused: list[Refusal]) -> tuple[Refusal, ...]:
    """Keep the ends of a long way down: hundreds of layers tell nobody anything."""
    return tuple(refused) if len(refused) <= 8 else (*refused[:6], *refused[-2:])


def _name(candidate: Candidate) -> str:
    release = candidate.release
    return f"{release.engine} {release.version} ({release.accelerator})"


def _nothing(item: ModelSpec, model: Model, attempts: Tried, host: Host, here: Room) -> HostError:
    """Say what the least would take with each engine, and what can be done."""
    lines = []
    for candidate, attempt in attempts:
        if isinstance(attempt, str):
            lines.append(f"{_name(candidate)}: {attempt}")
            continue
        parts = max(attempt.loads, key=lambda load: load.total)
        items = ", ".join(f"{name} {gib(amount)}" for name, amount in parts.items)
        said = words(attempt.setting, model, engine(candidate.release.engine))
        lines.append(f"{_name(candidate)}: {said} {_short(attempt, host)} ({items})")
    # What the CPU cannot hold either might have fitted on GPUs that do not work, or only with another driver.
    last = [candidate for candidate, _ in attempts if not candidate.gpus]
    lines += [f"{driver.vendor}: {driver.failure}" for driver in host.drivers if driver.failure and last]
    advice = dict.fromkeys(candidate.advice for candidate in last if candidate.advice)
    gguf = ("a GGUF file of the same model can be served by llama.cpp",) if last == [one for one, _ in attempts] else ()
    gguf = gguf if model.weights.format == "safetensors" else ()
    hint = "; ".join((*advice, *gguf, _way_out(item, model, attempts, host, here)))
    return HostError(f"{item.name} does not fit: " + "; ".join(lines), hint=hint)


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
    return f"take a smaller quantisation{_smaller(model)}, more GPUs, or remove another model"


def _smaller(model: Model) -> str:
    """Say what a 4-bit release of the same model would take, where that is less than a half."""
    four = model.weights.parameters * 9 // 16
    form = "a GGUF file with 4 bits" if model.weights.format == "safetensors" else "4 bits"
    return f" ({form}: about {gib(four)})" if 0 < four < model.weights.tensors // 2 else ""
