"""Waits until every replica is healthy, then asks each model for one real completion through the gateway."""

import shlex
import time
from dataclasses import dataclass
from typing import Final

from appliance import codec, resources
from appliance.domain.changes import Call, Command, Completed, ServiceState
from appliance.domain.deployment import Deployment
from appliance.domain.spec import SMOKE
from appliance.errors import UnhealthyError
from appliance.runtimes import GATEWAY, runtime
from appliance.system.http import Response, call
from appliance.system.machine import Machine

PAUSE = 0.05
"""Seconds between two looks; a small model is up within a second."""
GATEWAY_TIMEOUT = 20
"""Seconds for nginx to answer."""
LOG_LINES = 15
"""Lines of a failed engine's log that its error message carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoke:
    """What smoke.yaml says of the built-in model's known answer."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One model that was asked."""

    model: str
    answer: str
    seconds: float
    """Until the whole answer was there."""
    exact: bool
    """The answer was known beforehand and is the same."""


def address(deployment: Deployment) -> str:
    """Return where the gateway answers on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(deployment.spec.host, deployment.spec.host)  # noqa: S104
    return f"{f'[{host}]' if ':' in host else host}:{deployment.spec.port}"


def wait(deployment: Deployment, machine: Machine) -> None:
    """Return when gateway and all replicas are up. Raises UnhealthyError with the log lines that matter."""
    began = time.monotonic()
    here = tuple(service for service in deployment.services if not service.remote)
    limits = {service.name: service.start_timeout for service in here}
    while True:
        response = call(address(deployment), "/health", timeout=5)
        models = (response.json() or {}).get("models", {}) if response.status == 200 else {}
        waiting = [service.name for service in here if models.get(service.model) != "up"]
        if response.status == 200 and not waiting:
            waiting = _restarting(deployment, machine)
            if not waiting:
                return
        waited = time.monotonic() - began
        failed = [state for state in states(deployment, machine) if state.state == "failed"] if waited > 1 else []
        late = [name for name in waiting if waited > limits.get(name, GATEWAY_TIMEOUT)]
        if response.status != 200 and waited > GATEWAY_TIMEOUT:
            raise _unhealthy(
                "gateway", f"does not answer on {address(deployment)}: {_say(response)}", deployment, machine
            )
        if failed:
            raise _unhealthy(failed[0].name, f"failed: {failed[0].detail}", deployment, machine)
        if late:
            raise _unhealthy(late[0], f"not healthy after {waited:.0f} s", deployment, machine)
        time.sleep(PAUSE if waited < 5 else 0.5)


def completion(deployment: Deployment, model: str, machine: Machine, *, timeout: float = 300) -> Check:
    """Ask one model through the gateway. Raises UnhealthyError when the answer is none, or not the known one."""
    task = next((item.tuning.task for item in deployment.services if item.model == model), "chat")
    if task != "chat":
        return _other(deployment, model, machine, task, timeout)
    source = next(item.source for item in deployment.models if item.name == model)
    ours = not any(item.remote for item in deployment.services if item.model == model)
    service = _log_of(deployment, model)
    known = _smoke() if source == SMOKE else None
    prompt = known.prompt if known else "Say hello."
    payload: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    if ours:
        # Providers' models differ in which limits they take.
        payload |= {"temperature": 0, "max_tokens": 64 if known else 8}
    began = time.monotonic()
    response = call(address(deployment), "/v1/chat/completions", payload=payload, timeout=timeout)
    seconds = time.monotonic() - began
    try:
        text = str(response.json()["choices"][0]["message"]["content"] or "")
    except (TypeError, KeyError, IndexError):
        raise _unhealthy(service, f"gives no completion: {_say(response)}", deployment, machine) from None
    if known and text.strip() != known.answer:
        why = f"answers {text.strip()!r} where {known.answer!r} is known to be right"
        raise _unhealthy(service, why, deployment, machine)
    return Check(model=model, answer=text, seconds=round(seconds, 3), exact=known is not None)


ASKED: Final[dict[str, tuple[str, dict[str, object], str]]] = {
    "embed": ("/v1/embeddings", {"input": "Hello."}, "data"),
    "rerank": ("/v1/rerank", {"query": "Hello?", "documents": ["Hello.", "Good night."]}, "results"),
}
"""Task -> path, what is asked, and the key of the answer that holds something."""


def _other(deployment: Deployment, model: str, machine: Machine, task: str, timeout: float) -> Check:
    """Ask a model that does not chat for what it is there for."""
    path, payload, key = ASKED[task]
    service = _log_of(deployment, model)
    began = time.monotonic()
    response = call(address(deployment), path, payload={"model": model, **payload}, timeout=timeout)
    found = (response.json() or {}).get(key) if response.status == 200 else None
    if not found:
        raise _unhealthy(service, f"gives no answer to {path}: {_say(response)}", deployment, machine)
    said = f"{len(found)} {key} from {path}"
    return Check(model=model, answer=said, seconds=round(time.monotonic() - began, 3), exact=False)


def _log_of(deployment: Deployment, model: str) -> str:
    """Return the service whose log tells why a model does not answer."""
    started = (item.name for item in deployment.started if item.model == model and not item.remote)
    return next(started, GATEWAY)


def states(deployment: Deployment, machine: Machine) -> tuple[ServiceState, ...]:
    """Ask the runtime what state each service is in."""
    module = runtime(deployment.runtime)
    question = module.status(deployment)
    if isinstance(question, Command):
        return module.read_status(deployment, machine.run(question))
    return module.read_status(deployment, _post(question))


def _restarting(deployment: Deployment, machine: Machine) -> list[str]:
    """Return the services between their end and their start: the gateway's knowledge may be a second old."""
    between = ("starting", "stopped")
    return [state.name for state in states(deployment, machine) if state.state in between and not state.detail]


def _post(question: Call) -> Completed:
    response = call(f"unix:{question.socket}", question.path, body=question.body, timeout=question.timeout)
    code = 0 if response.status == 200 else 1
    return Completed(
        argv=(), code=code, stdout=response.body.decode(errors="replace"), stderr=response.error, seconds=0
    )


def _smoke() -> Smoke:
    document = codec.read_yaml((resources.SMOKE / "smoke.yaml").read_text(), source="smoke.yaml")["verify"]
    return Smoke(prompt=document["prompt"], answer=document["answer"])


def _unhealthy(service: str, why: str, deployment: Deployment, machine: Machine) -> UnhealthyError:
    module = runtime(deployment.runtime)
    done = machine.run(module.logs(deployment, service, follow=False, lines=LOG_LINES))
    lines = [line for line in done.stdout.splitlines() if line.strip()][-LOG_LINES:]
    return UnhealthyError(
        f"{service} {why}\n" + "\n".join(f"  | {line}" for line in lines),
        # Not `llm-appliance logs`: it does not know a model any more that was taken back.
        hint=shlex.join(module.logs(deployment, service, follow=False, lines=100).argv),
    )


def _say(response: Response) -> str:
    return response.error or f"HTTP {response.status}: {response.body[:300].decode(errors='replace')}"
