"""Waits until every replica is healthy, then asks each model for one real completion through the gateway."""

import io
import os
import shlex
import time
import wave
from dataclasses import dataclass
from typing import Any, Final

from appliance import codec, resources
from appliance.domain.changes import Call, Command, Completed, ServiceState
from appliance.domain.deployment import Deployment
from appliance.domain.spec import SMOKE
from appliance.errors import CommandError, UnhealthyError
from appliance.runtimes import runtime
from appliance.system.http import Response, call
from appliance.system.machine import TIMED_OUT, Machine

PAUSE = 0.05
"""Seconds between two looks; a small model is up within a second."""
GATEWAY_TIMEOUT = 20
"""Seconds for nginx to answer."""
BETWEEN: Final = {404: 3, 503: GATEWAY_TIMEOUT}
"""Status -> seconds that it may be said for after a change: each worker of nginx rereads its routes by itself."""
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


def url(deployment: Deployment) -> str:
    """Return the gateway's address as clients on this machine type it."""
    return f"{'https' if deployment.gateway.tls else 'http'}://{address(deployment)}"


def door(deployment: Deployment) -> str:
    """Return where we ask ourselves: inside, where no key is needed, or like any client where we may not come in."""
    inside = deployment.inside
    return f"unix:{inside}" if os.access(inside, os.W_OK) else address(deployment)


def wait(deployment: Deployment, machine: Machine) -> None:
    """Return when gateway and all replicas are up. Raises UnhealthyError with the log lines that matter."""
    began = time.monotonic()
    here = tuple(service for service in deployment.services if not service.remote)
    limits = {service.name: service.start_timeout for service in here}
    while True:
        response = call(door(deployment), "/health", timeout=5)
        if response.status == 200 and (outside := call(address(deployment), "/health", timeout=5)).json() is None:
            response = outside  # it lives, and clients do not reach it, but nobody or somebody else
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
            raise unhealthy(
                "gateway", f"does not answer on {address(deployment)}: {_say(response)}", deployment, machine
            )
        if failed:
            raise unhealthy(failed[0].name, f"failed: {failed[0].detail}", deployment, machine)
        if late:
            raise unhealthy(late[0], f"not healthy after {waited:.0f} s", deployment, machine)
        time.sleep(PAUSE if waited < 5 else 0.5)


def revive(deployment: Deployment, machine: Machine) -> None:
    """Give what had failed before a fresh start: what was missing may be there now, and no unit of it differs."""
    failed = tuple(state.name for state in states(deployment, machine) if state.state == "failed")
    for command in runtime(deployment.runtime).revive(deployment, failed) if failed else ():
        machine.run(command)


def completion(deployment: Deployment, model: str, machine: Machine, *, timeout: float = 300) -> Check:
    """Ask one model through the gateway. Raises UnhealthyError when the answer is none, or not the known one."""
    task = next((item.tuning.task for item in deployment.services if item.model == model), "chat")
    if task != "chat":
        return _other(deployment, model, machine, task, timeout)
    source = next(item.source for item in deployment.models if item.name == model)
    ours = not any(item.remote for item in deployment.services if item.model == model)
    known = _smoke() if source == SMOKE else None
    prompt = known.prompt if known else "Say hello."
    payload: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    if ours:
        # Providers' models differ in which limits they take.
        payload |= {"temperature": 0, "max_tokens": 64 if known else 8}
    began = time.monotonic()
    response = _ask(deployment, "/v1/chat/completions", payload=payload, timeout=timeout)
    seconds = time.monotonic() - began
    try:
        text = str(response.json()["choices"][0]["message"]["content"] or "")
    except (TypeError, KeyError, IndexError):
        raise _speechless(model, f"gives no completion: {_say(response)}", deployment, machine) from None
    if known and text.strip() != known.answer:
        why = f"answers {text.strip()!r} where {known.answer!r} is known to be right"
        raise _speechless(model, why, deployment, machine)
    return Check(model=model, answer=text, seconds=round(seconds, 3), exact=known is not None)


ASKED: Final[dict[str, tuple[str, dict[str, object], str]]] = {
    "embed": ("/v1/embeddings", {"input": "Hello."}, "data"),
    "rerank": ("/v1/rerank", {"query": "Hello?", "documents": ["Hello.", "Good night."]}, "results"),
    "transcribe": ("/v1/audio/transcriptions", {}, "text"),
}
"""Task -> path, what is asked, and the key of the answer that holds something."""


def _other(deployment: Deployment, model: str, machine: Machine, task: str, timeout: float) -> Check:
    """Ask a model that does not chat for what it is there for."""
    path, payload, key = ASKED[task]
    began = time.monotonic()
    if task == "transcribe":
        kind, body = _form(model, _silence())
        response = _ask(deployment, path, body=body, kind=kind, timeout=timeout)
    else:
        response = _ask(deployment, path, payload={"model": model, **payload}, timeout=timeout)
    found = (response.json() or {}).get(key) if response.status == 200 else None
    # Nothing is said in silence, and that is an answer.
    if not found and not (task == "transcribe" and found == ""):
        raise _speechless(model, f"gives no answer to {path}: {_say(response)}", deployment, machine)
    said = f"{len(found)} {key} from {path}" if task != "transcribe" else f"{found!r} in a second of silence"
    return Check(model=model, answer=said, seconds=round(time.monotonic() - began, 3), exact=False)


def _silence() -> bytes:
    """Return a second of silence as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(bytes(2 * 16000))
    return file.getvalue()


def _form(model: str, sound: bytes) -> tuple[str, bytes]:
    """Return content type and body of a form with a file and a model's name."""
    edge = "llm-appliance-form"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="silence.wav"\r\n'
    field = f'\r\n--{edge}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n--{edge}--\r\n'
    body = head.encode() + b"Content-Type: audio/wav\r\n\r\n" + sound + field.encode()
    return f"multipart/form-data; boundary={edge}", body


def _ask(deployment: Deployment, path: str, **what: Any) -> Response:
    """Ask through the gateway, once more while a worker of it does not know the model yet, or says it is starting."""
    began = time.monotonic()
    while True:
        response = call(door(deployment), path, **what)
        if time.monotonic() - began > BETWEEN.get(response.status, 0):
            return response
        time.sleep(PAUSE)


def _speechless(model: str, why: str, deployment: Deployment, machine: Machine) -> UnhealthyError:
    """Return the error for a model that does not answer as it should: with its log, where that is ours."""
    service = next(item for item in deployment.services if item.model == model)
    if not service.remote:
        return unhealthy(service.name, why, deployment, machine)
    hint = f"is {service.remote.model} the provider's name for it, and the key right? --model, --api-key-file"
    return UnhealthyError(f"{model} at {service.remote.url} {why}", hint=hint)


def states(deployment: Deployment, machine: Machine) -> tuple[ServiceState, ...]:
    """Ask the runtime what state each service is in. Raises CommandError when it does not answer at all."""
    module = runtime(deployment.runtime)
    question = module.status(deployment)
    if isinstance(question, Command):
        done = machine.run(question)
        if done.code == TIMED_OUT:
            # Not "stopped": they may well run, and answer.
            raise CommandError(
                f"{question.argv[0]} does not answer: {done.stderr}", hint=f"{question.argv[0]} --version"
            )
        return module.read_status(deployment, done)
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


def unhealthy(service: str, why: str, deployment: Deployment, machine: Machine) -> UnhealthyError:
    """Return the error for a service that does not answer, with the end of its log."""
    module = runtime(deployment.runtime)
    # Line by line, so that output and errors stay in their order.
    boxed = bool(deployment.gateway.image)
    count = 3 * LOG_LINES if boxed else LOG_LINES
    done = machine.run(module.logs(deployment, (service,), follow=False, lines=count), on_line=lambda _line: None)
    lines = [line for line in done.stdout.splitlines() if line.strip()][-count:]
    return UnhealthyError(
        f"{service} {why}\n" + "\n".join(f"  | {line}" for line in lines),
        # Not `llm-appliance logs`: it knows no model that was taken back; and with a container goes its log.
        hint="" if boxed else shlex.join(module.logs(deployment, (service,), follow=False, lines=100).argv),
    )


def _say(response: Response) -> str:
    return response.error or f"HTTP {response.status}: {response.body[:300].decode(errors='replace')}"
