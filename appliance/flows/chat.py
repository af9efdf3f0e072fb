"""A conversation with one model, through the gateway, by the appliance's own socket."""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from appliance import verify
from appliance.errors import ApplianceError, UnhealthyError, UsageError
from appliance.flows.site import Site, installed, unknown_model
from appliance.system.stream import StreamError, events

TIMEOUT = 600
"""Seconds without a word: a long prompt on a slow machine takes its time."""
PATH = "/v1/chat/completions"

Message = dict[str, str]


@dataclass(kw_only=True)
class Conversation:
    """What was said so far; grows by a question and its answer, or by nothing when there was none."""

    model: str
    door: str
    command: str
    settings: dict[str, Any] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    """Tokens of the last answer, as the engine counts them."""

    def ask(self, question: str) -> Generator[str, None, None]:
        """Yield the answer as it comes; what has come is kept when the reader stops. Raises UnhealthyError."""
        said: list[str] = []
        asked: Message = {"role": "user", "content": question}
        payload = {
            "model": self.model, "messages": [*self.messages, asked], "stream": True,
            "stream_options": {"include_usage": True}, **self.settings,
        }  # fmt: skip
        try:
            for event in events(self.door, PATH, payload, timeout=TIMEOUT):
                self.usage = event.get("usage") or self.usage
                if piece := _piece(event):
                    said.append(piece)
                    yield piece
        except StreamError as error:
            raise _failed(self.model, error, self.command) from error
        finally:
            if said:
                self.messages += [asked, {"role": "assistant", "content": "".join(said)}]


def begin(site: Site, model: str, *, system: str = "", **settings: Any) -> Conversation:
    """Return a conversation in which nothing was said yet. Raises SpecError, UsageError."""
    deployment = installed(site).deployment
    require_chat(site, model)
    return Conversation(
        model=model, door=verify.door(deployment), command=site.command,
        settings={name: value for name, value in settings.items() if value is not None},
        messages=[{"role": "system", "content": system}] if system else [],
    )  # fmt: skip


def require_chat(site: Site, model: str) -> None:
    """Raise SpecError for an unknown model, UsageError for one that does not chat."""
    deployment = installed(site).deployment
    names = tuple(item.name for item in deployment.models)
    if model not in names:
        raise unknown_model(model, names)
    task = next((item.tuning.task for item in deployment.services if item.model == model), "chat")
    if task != "chat":
        raise UsageError(f"{model} does not chat: it is there to {task}", hint=f"{verify.url(deployment)}/{model}/v1")


def _piece(event: dict[str, Any]) -> str:
    """Return the text of an event; "" where it has none."""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        return str(delta.get("content") or "")
    return ""


def _failed(model: str, error: StreamError, command: str) -> ApplianceError:
    if error.status in (401, 403):
        return UnhealthyError("the gateway asks for a key", hint=f"sudo {command}")
    return UnhealthyError(f"{model} gives no answer: {error.message}", hint="llm-appliance status")
