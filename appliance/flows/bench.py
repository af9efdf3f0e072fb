"""Measures a model through the gateway: more and more clients, each of which asks as soon as it has an answer."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from appliance import verify
from appliance.errors import UnhealthyError
from appliance.flows.chat import PATH, require_chat
from appliance.flows.site import Site, installed
from appliance.system.stream import StreamError, events_at_once

LONG: Final = ("vllm", "sglang", "llama-cpp", "lmdeploy")
"""Engines that go on past the end of an answer where they are asked to, so that all answers are equally long."""
WORDS: Final = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state",
    "family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week", "company", "system",
    "program", "question", "work", "government", "number", "night", "point", "home", "water",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked."""

    prompt: str = ""
    """"" = words of `prompt_words`, others in each request, so that no cache answers."""
    prompt_words: int = 100
    max_tokens: int = 128
    seconds: float = 10
    """Of each level: nobody asks anew after that; what was asked is waited for."""


@dataclass(kw_only=True)
class Sample:
    """One request."""

    began: float
    """Seconds of the machine's monotonic clock."""
    pieces: list[float] = field(default_factory=list)
    """When each piece of text came."""
    tokens: int = 0
    """Of the answer, as the engine counts them; the number of pieces where it does not."""
    prompt_tokens: int = 0
    ended: float = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What came of so many clients; times in seconds, None where nothing was measured."""

    concurrency: int
    requests: int
    """That were answered."""
    errors: int
    seconds: float
    requests_per_second: float
    tokens_per_second: float
    """Of all answers together."""
    ttft_p50: float | None
    ttft_p99: float | None
    inter_token_p50: float | None
    inter_token_p99: float | None
    prompt_tokens: float
    """Of one request, on average."""
    tokens: float
    """Of one answer, on average."""
    why: tuple[tuple[str, int], ...] = ()
    """(error, how often)."""


def sweep(site: Site, model: str, concurrency: tuple[int, ...], load: Load) -> Iterator[Level]:
    """Yield a level for each number of clients. Raises UnhealthyError when the very first question is not answered."""
    deployment = installed(site).deployment
    require_chat(site, model)
    engine = next((item.engine for item in deployment.services if item.model == model), "")
    door = verify.door(deployment)
    extra: dict[str, Any] = {"ignore_eos": True} if engine in LONG else {}
    warm = asyncio.run(_clients(door, model, 1, load, extra, once=True))[0]
    if warm.error:
        raise UnhealthyError(f"{model} gives no answer: {warm.error}", hint="llm-appliance status")
    for number in concurrency:
        yield level(number, asyncio.run(_clients(door, model, number, load, extra)))


def level(concurrency: int, samples: list[Sample]) -> Level:
    """Return what the samples of one level say."""
    good = [one for one in samples if not one.error]
    seconds = max(one.ended for one in samples) - min(one.began for one in samples)
    first = sorted(one.pieces[0] - one.began for one in good if one.pieces)
    between = sorted(
        after - before for one in good for before, after in zip(one.pieces, one.pieces[1:], strict=False)
    )  # fmt: skip
    count = max(1, len(good))
    return Level(
        concurrency=concurrency, requests=len(good), errors=len(samples) - len(good), seconds=round(seconds, 3),
        requests_per_second=round(len(good) / max(seconds, 1e-9), 3),
        tokens_per_second=round(sum(one.tokens for one in good) / max(seconds, 1e-9), 1),
        ttft_p50=percentile(first, 50), ttft_p99=percentile(first, 99),
        inter_token_p50=percentile(between, 50), inter_token_p99=percentile(between, 99),
        prompt_tokens=round(sum(one.prompt_tokens for one in good) / count, 1),
        tokens=round(sum(one.tokens for one in good) / count, 1),
        why=tuple(Counter(one.error for one in samples if one.error).most_common()),
    )  # fmt: skip


def percentile(ordered: list[float], share: int) -> float | None:
    """Return the nearest rank of values in order; None of none."""
    if not ordered:
        return None
    return round(ordered[max(0, -(-len(ordered) * share // 100) - 1)], 6)


async def _clients(
    door: str, model: str, number: int, load: Load, extra: dict[str, Any], *, once: bool = False
) -> list[Sample]:
    until = 0.0 if once else time.monotonic() + load.seconds
    samples: list[Sample] = []

    async def client(place: int) -> None:
        turn = 0
        while not turn or time.monotonic() < until:
            payload = {
                "model": model, "messages": [{"role": "user", "content": question(load, place, turn)}], "stream": True,
                "stream_options": {"include_usage": True}, "max_tokens": load.max_tokens, "temperature": 0, **extra,
            }  # fmt: skip
            samples.append(await _ask(door, payload))
            turn += 1
            if samples[-1].error:
                await asyncio.sleep(0.2)  # who is refused does not ask ten thousand times a second

    await asyncio.gather(*(client(place) for place in range(number)))
    return samples


async def _ask(door: str, payload: dict[str, Any]) -> Sample:
    sample = Sample(began=time.monotonic())
    try:
        async for event in events_at_once(door, PATH, payload):
            for choice in event.get("choices") or ():
                delta = choice.get("delta") or {}
                if delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
                    sample.pieces.append(time.monotonic())
            if usage := event.get("usage"):
                sample.tokens = int(usage.get("completion_tokens") or 0)
                sample.prompt_tokens = int(usage.get("prompt_tokens") or 0)
    except StreamError as error:
        sample.error = error.message
    sample.ended = time.monotonic()
    sample.tokens = sample.tokens or len(sample.pieces)
    if not sample.pieces and not sample.error:
        sample.error = "an answer without a word"
    return sample


def question(load: Load, place: int, turn: int) -> str:
    """Return what a client asks in its turn: always the same of the same client and turn, and never of another."""
    if load.prompt:
        return load.prompt
    seed = place * 7919 + turn * 104729
    words = [WORDS[(seed + step * (3 + seed % 5)) % len(WORDS)] for step in range(load.prompt_words)]
    return f"{place} {turn} " + " ".join(words)
