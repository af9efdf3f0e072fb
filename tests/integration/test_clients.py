"""The clients that people use, against the real appliance: nothing tells them that it is not OpenAI's own service.

They run beside the server, not in it, so its gateway listens on every address (`--listen 0.0.0.0:8080 --insecure`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from langchain_openai import ChatOpenAI
from langchain_openai import OpenAI as CompletionOpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from pydantic import SecretStr

from tests.integration import product
from tests.integration.conftest import Quickstart
from tests.integration.lab import Lab, Server
from tests.integration.product import SMOKE

PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
KEY = "none-is-asked-for"


@pytest.fixture(scope="module")
def server(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """An appliance that can be reached from here."""
    assert quickstart.code == 0, quickstart.output
    with product.installed(lab, quickstart.image, "clients") as server:
        server.run("llm-appliance", "install", "--listen", "0.0.0.0:8080", "--insecure")
        yield server


@pytest.fixture(scope="module")
def base(server: Server) -> str:
    return f"http://{server.address}:8080"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of this machine stands between it and its servers."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def client(base: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{base}/v1", api_key=KEY, max_retries=0)


@pytest.fixture
def model_client(base: str) -> openai.OpenAI:
    """For the endpoint that serves this one model only."""
    return openai.OpenAI(base_url=f"{base}/smoke/v1", api_key=KEY, max_retries=0)


def say(text: str) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": text}]


def chat(client: openai.OpenAI, prompt: str, *, model: str = "smoke") -> str | None:
    done = client.chat.completions.create(model=model, messages=say(prompt), temperature=0)
    return done.choices[0].message.content


def streamed(client: openai.OpenAI, prompt: str) -> list[str]:
    stream = client.chat.completions.create(model="smoke", messages=say(prompt), temperature=0, stream=True)
    return [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]


# curl, in the server, as README shows it.


@pytest.mark.parametrize("path", ["/v1", "/smoke/v1"])
def test_curl_gets_a_chat_answer(server: Server, path: str) -> None:
    assert product.chat(server, PROMPT, path=path) == ANSWER


def test_curl_gets_a_completion(server: Server) -> None:
    known = SMOKE["completion"]
    body = json.dumps({"model": "smoke", "prompt": known["prompt"], "temperature": 0, "max_tokens": 14})
    said = json.loads(server.run("curl", "-fsS", f"{product.BASE}/v1/completions", "-d", body).stdout)
    assert said["choices"][0]["text"] == known["answer"]


def test_curl_sees_a_stream_of_events(server: Server) -> None:
    body = json.dumps({"model": "smoke", "messages": say(PROMPT), "temperature": 0, "stream": True})
    said = server.run("curl", "-fsSN", f"{product.BASE}/v1/chat/completions", "-d", body).stdout
    events = [line.removeprefix("data: ") for line in said.splitlines() if line]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas) == ANSWER


# The openai client.


def test_openai_chats(client: openai.OpenAI, model_client: openai.OpenAI) -> None:
    assert chat(client, PROMPT) == ANSWER
    assert chat(model_client, PROMPT) == ANSWER
    assert chat(client, SMOKE["story"]["prompt"]) == SMOKE["story"]["answer"]


def test_openai_streams_word_by_word(client: openai.OpenAI, model_client: openai.OpenAI) -> None:
    for one in (client, model_client):
        pieces = streamed(one, PROMPT)
        assert "".join(pieces) == ANSWER
        assert len([piece for piece in pieces if piece]) > 5


def test_openai_completes_text(client: openai.OpenAI) -> None:
    known = SMOKE["completion"]
    done = client.completions.create(model="smoke", prompt=known["prompt"], temperature=0, max_tokens=14)
    assert done.choices[0].text == known["answer"]
    stream = client.completions.create(model="smoke", prompt=known["prompt"], temperature=0, max_tokens=14, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == known["answer"]


def test_openai_is_told_the_usage(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(model="smoke", messages=say(PROMPT), temperature=0)
    assert done.usage is not None
    # The end of the answer is a token too.
    assert done.usage.completion_tokens == SMOKE["verify"]["answer_tokens"] + 1
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    stream = list(
        client.chat.completions.create(
            model="smoke", messages=say(PROMPT), temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    assert stream[-1].usage is not None
    assert stream[-1].usage.completion_tokens == done.usage.completion_tokens


def test_openai_stops_at_the_limit(client: openai.OpenAI) -> None:
    endless = SMOKE["endless"]
    done = client.chat.completions.create(model="smoke", messages=say(endless["prompt"]), temperature=0, max_tokens=50)
    assert done.choices[0].finish_reason == "length"
    assert (done.choices[0].message.content or "").startswith(endless["answer_starts"])


def test_openai_lists_the_models(client: openai.OpenAI, model_client: openai.OpenAI) -> None:
    for one in (client, model_client):
        assert [model.id for model in one.models.list()] == ["smoke"]
        assert one.models.retrieve("smoke").owned_by == "llm-appliance"


def test_openai_raises_not_found_with_the_near_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'smok' does not exist; did you mean 'smoke'"):
        chat(client, PROMPT, model="smok")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_openai_raises_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.post("/chat/completions", cast_to=object, body={"model": 5})


def test_eight_streams_at_once_get_a_whole_answer_each(client: openai.OpenAI) -> None:
    known = SMOKE["long"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: "".join(streamed(client, known["prompt"])), range(8)))
    assert answers == [known["answer"]] * 8


# langchain-openai.


def test_langchain_chats(base: str) -> None:
    model = ChatOpenAI(base_url=f"{base}/v1", api_key=SecretStr(KEY), model="smoke", temperature=0, max_retries=0)
    assert model.invoke(PROMPT).content == ANSWER
    assert "".join(str(chunk.content) for chunk in model.stream(PROMPT)) == ANSWER
    assert [message.content for message in model.batch([PROMPT] * 4)] == [ANSWER] * 4
    system = SMOKE["verify"]["system"]
    assert model.invoke([("system", system), ("user", PROMPT)]).content == ANSWER


def test_langchain_completes_text_on_the_models_own_endpoint(base: str) -> None:
    model = CompletionOpenAI(
        base_url=f"{base}/smoke/v1", api_key=SecretStr(KEY), model="smoke", temperature=0, max_tokens=14
    )
    assert model.invoke(SMOKE["completion"]["prompt"]) == SMOKE["completion"]["answer"]
