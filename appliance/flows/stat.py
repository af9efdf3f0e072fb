"""What each replica does and did, as the gateway counts it."""

from dataclasses import dataclass
from typing import Any

from appliance import verify
from appliance.domain.deployment import Deployment
from appliance.errors import UnhealthyError
from appliance.flows.site import Site, installed, unknown_model
from appliance.system.http import call


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStat:
    """One replica's counters since the gateway started."""

    model: str
    replica: str
    state: str
    """`up`, `starting` or `down`, as the gateway sees it."""
    balance: str
    """How requests are shared between the model's replicas."""
    slots: int
    """Requests that it works on at the same time; 0 = nobody says."""
    busy: int
    idle: int
    waiting: int
    """Requests that wait for any replica of the model."""
    requests: int
    in_flight: int
    max_concurrency: int
    """The most that it had at the same time."""
    last: int | None
    """Seconds since its last request ended."""
    tokens_per_second: float | None
    """Of one request, on average."""
    ttft: float | None
    """Seconds to the first token, on average."""


def read(site: Site, model: str = "") -> tuple[ReplicaStat, ...]:
    """Ask the gateway. Raises UnhealthyError where it does not tell, SpecError on an unknown model."""
    deployment = installed(site).deployment
    names = tuple(item.name for item in deployment.models)
    if model and model not in names:
        raise unknown_model(model, names)
    answer = call(verify.door(deployment), "/gateway/stat", timeout=5)
    if answer.status in (401, 403):
        raise UnhealthyError("the gateway tells its counters only to who has a key", hint=f"sudo {site.command}")
    document = answer.json() if answer.status == 200 else None
    if document is None:
        why = answer.error or f"HTTP {answer.status}"
        raise UnhealthyError(f"the gateway tells nothing: {why}", hint="llm-appliance status")
    return tuple(one for one in stats(document, deployment) if not model or one.model == model)


def stats(document: Any, deployment: Deployment) -> tuple[ReplicaStat, ...]:
    """Read the gateway's answer; how many slots a replica has, the plan knows."""
    parallel = {service.name: service.setting.parallel for service in deployment.started}
    return tuple(
        _stat(name, model, one, one["limit"] or parallel.get(one["name"], 0))
        for name, model in sorted(document["models"].items())
        for one in model["replicas"]
    )


def _stat(name: str, model: dict[str, Any], one: dict[str, Any], slots: int) -> ReplicaStat:
    flight = int(one["in_flight"])
    busy = min(flight, slots) if slots else flight
    return ReplicaStat(
        model=name, replica=one["name"], state=one["state"], balance=model["strategy"], slots=slots, busy=busy,
        idle=slots - busy if one["state"] == "up" and slots else 0, waiting=int(model["queue"]),
        requests=int(one["requests"]), in_flight=flight, max_concurrency=int(one["max_concurrency"]),
        last=one["seconds_since_last"], tokens_per_second=one["tokens_per_second"], ttft=one["ttft"],
    )  # fmt: skip
