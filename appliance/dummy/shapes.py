"""The shapes of OpenAI's API: what a request says and what an answer looks like."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
from dataclasses import dataclass

from appliance.dummy.http import Response, encode

DIMENSIONS = 8

Json = dict[str, object]


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, *, kind: str = "invalid_request_error", code: object = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"error": {"message": message, "type": kind, "param": None, "code": code}}

    @property
    def response(self) -> Response:
        """The error as an answer."""
        return Response(self.status, encode(self.body))


LOADING = ApiError(503, "Loading model", kind="unavailable_error", code=503)


@dataclass(frozen=True)
class Origin:
    """What every part of one answer repeats."""

    id: str
    created: int
    """Seconds since 1970."""
    model: str

    def frame(self, kind: str, choices: list[Json]) -> Json:
        """Return an object of the API that carries the choices."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A request for text, chat or not."""

    chat: bool
    origin: Origin
    prompts: tuple[str, ...]
    prompt_tokens: int
    max_tokens: int | None
    stream: bool
    include_usage: bool

    def usage(self, completion_tokens: int) -> Json:
        """Return token counts, where a token is a word."""
        return _usage(self.prompt_tokens, completion_tokens)

    def whole(self, texts: list[tuple[str, str]], completion_tokens: int) -> Json:
        """Return the answer in one piece, from the text and the finish reason of each choice."""
        choices = [self._choice(index, text, reason) for index, (text, reason) in enumerate(texts)]
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self.origin.frame(kind, choices), "usage": self.usage(completion_tokens)}

    def event(self, index: int, text: str, reason: str | None, *, first: bool = False) -> Json:
        """Return one event of a stream."""
        if self.chat:
            delta: Json = {"role": "assistant"} if first else {}
            if reason is None:
                delta["content"] = text
            choice: Json = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        else:
            choice = {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
        event = self.origin.frame(self._event_kind, [choice])
        return {**event, "usage": None} if self.include_usage else event

    def usage_event(self, completion_tokens: int) -> Json:
        """Return the event without choices that ends a stream for which usage was asked."""
        return {**self.origin.frame(self._event_kind, []), "usage": self.usage(completion_tokens)}

    @property
    def _event_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _choice(self, index: int, text: str, reason: str) -> Json:
        if not self.chat:
            return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
        message: Json = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def read_json(body: bytes, model: str) -> Json:
    """Return the body of a request to `model`. Raises ApiError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ApiError(400, "the body is not a JSON object")
    if value.get("model", model) != model:
        raise ApiError(404, f"the model {value['model']!r} does not exist", code="model_not_found")
    return value


def chat_task(body: Json, origin: Origin) -> Task:
    """Return what a chat request asks for. Raises ApiError."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise ApiError(400, "messages must be a list of objects with at least one entry")
    users = [_content(message) for message in messages if message.get("role") == "user"]
    return Task(
        chat=True,
        origin=origin,
        prompts=(users[-1] if users else "",),
        prompt_tokens=sum(len(tokens(_content(message))) for message in messages),
        max_tokens=_limit(body, "max_completion_tokens") or _limit(body, "max_tokens"),
        stream=body.get("stream") is True,
        include_usage=_include_usage(body),
    )


def completion_task(body: Json, origin: Origin) -> Task:
    """Return what a completion request asks for. Raises ApiError."""
    prompts = _texts(body.get("prompt"), "prompt")
    return Task(
        chat=False,
        origin=origin,
        prompts=prompts,
        prompt_tokens=sum(len(tokens(prompt)) for prompt in prompts),
        max_tokens=_limit(body, "max_tokens"),
        stream=body.get("stream") is True,
        include_usage=_include_usage(body),
    )


def embeddings(body: Json, model: str) -> Json:
    """Return vectors that depend on nothing but the text. Raises ApiError."""
    texts = _texts(body.get("input"), "input")
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector(text)) if packed else vector(text)}
        for index, text in enumerate(texts)
    ]
    count = sum(len(tokens(text)) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def vector(text: str) -> list[float]:
    """Return a vector of length one, made from the text's digest."""
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode("utf-8", "replace")).digest()[:DIMENSIONS]]
    length = math.sqrt(sum(value * value for value in raw))
    return [round(value / length, 6) for value in raw]


def models(model: str, created: int) -> Json:
    """Return the list of the one model."""
    one = {"id": model, "object": "model", "created": created, "owned_by": "dummy"}
    return {"object": "list", "data": [one]}


def tokens(text: str) -> list[str]:
    """Return the words with the white space before them; joined they are the text."""
    return re.findall(r"\s*\S+|\s+", text)


def _usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _limit(body: Json, name: str) -> int | None:
    limit = body.get(name)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ApiError(400, f"{name} must be a positive integer, not {limit!r}")
    return limit


def _include_usage(body: Json) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _content(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _texts(value: object, name: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ApiError(400, f"{name} must be a string or a list of strings")


def _packed(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
