"""Says what a model gets, and what it lacks, in words for people."""

import math

from appliance.domain.deployment import Model, Reason
from appliance.domain.host import Host
from appliance.domain.service import Service, Setting
from appliance.domain.spec import ModelSpec
from appliance.engines import Engine, engine
from appliance.plan.place import Attempt, Fitted
from appliance.plan.room import pools, summed


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
    if model.weights.code:
        devices.append("the Python that its repository brings or asks for is left behind")
    if model.weights.layers and not model.weights.cache and "bert" not in model.weights.architecture.lower():
        devices.append("what its cache takes is not known")
    trained = model.weights.context_length
    cut = f" (trained for {trained})" if setting.context < trained else ""
    return Reason(
        subject=f"memory of {item.name}",
        chosen=words(setting, model, module) + _pooled(services, fitted) + _where(services) + cut,
        why="; ".join(devices),
        refused=fitted.steps,
    )


def _pooled(services: tuple[Service, ...], fitted: Fitted) -> str:
    """Say how many whole contexts an engine's one cache holds, where it has taken all that was left."""
    cache = [
        sum(amount for load in loads for name, amount in load.items if name == "KV cache")
        for loads in (services[0].loads, fitted.places[0].loads)
    ]
    if not cache[1] or cache[0] == cache[1]:
        return ""
    return f", cache for {cache[0] / cache[1] * services[0].setting.parallel:.1f} of that length"


def _where(services: tuple[Service, ...]) -> str:
    """Say which devices the replicas have, and that the weights lie in RAM where they have none."""
    places = [
        " + ".join(load.device for load in service.loads if load.device != "ram") or "the CPU" for service in services
    ]
    return f" on {'; '.join(dict.fromkeys(places))}"


def words(setting: Setting, model: Model, module: Engine) -> str:
    """Write a setting for people."""
    # Where one cache serves all, one context is what it must hold, and not how many requests there can be.
    several = f" × {setting.parallel} at the same time" if setting.parallel > 1 or not module.FILLS else ""
    text = f"{setting.context} tokens{several}"
    if setting.kv_type != "auto":
        text += f", KV cache {setting.kv_type}"
    if 0 < setting.gpu_layers <= module.layers(model):
        text += f", {setting.gpu_layers - 1} of {model.weights.layers} layers on the GPU"
    return text


def gib(amount: int) -> str:
    """Write bytes for people."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 10 << 30 else f"{amount >> 20} MiB"


def short(attempt: Attempt, host: Host) -> str:
    """Say which memory is too small, with the numbers."""
    here, needed = attempt.left, summed(attempt.loads, pools(host))
    worst = lacking(attempt, host)
    others = f" on each of {len(attempt.gpus)} GPUs" if len(attempt.gpus) > 1 and worst != "ram" else f" of {worst}"
    free = here.free(worst) if worst in here.left else 0
    return f"needs {gib(needed[worst])}{others}, {gib(free)} are free of {gib(here.total.get(worst, 0))}"


def lacking(attempt: Attempt, host: Host) -> str:
    """Return the memory that lacks the most."""
    here, needed = attempt.left, summed(attempt.loads, pools(host))
    return max(needed, key=lambda pool: needed[pool] - here.free(pool) if pool in here.left else needed[pool])


def lack(attempt: Attempt | str, host: Host) -> float:
    """Return the bytes that an attempt lacks."""
    if isinstance(attempt, str):
        return math.inf
    needed = summed(attempt.loads, pools(host))
    return max((amount - attempt.left.free(pool) for pool, amount in needed.items()), default=0)


def smaller(model: Model) -> str:
    """Say what a 4-bit release of the same model would take, where that is less than a half."""
    four = model.weights.parameters * 9 // 16
    return f" (a 4-bit GGUF has about {gib(four)})" if 0 < four < model.weights.tensors // 2 else ""
