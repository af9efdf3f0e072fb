"""The clients that people use, through a real nginx with keys: to a real llama-server, to the dummy engine, to recorders.

Where an engine cannot do something (a tool call, Ollama's routes), a recorder stands in for it and says what one would.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel, SecretStr

from tests.integration.gateway_rig import REPOSITORY, Engine, Gateway, Recorder, gateway, missing_ability, until
from tests.integration.lab.machine import cache
from tests.integration.product import SMOKE

KEY = "sk-clients-25d55ad283aa400af464c76d713c07ad"
PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
REAL, DUMMY, TOLD, LLAMA = "smoke", "fox", "told", "llama3.2"
"""A real llama-server, the dummy engine, a recorder, and one that stands in for Ollama."""
PATHS = {
    path: path
    for path in (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/rerank",
        "/v1/audio/transcriptions",
    )  # fmt: skip
}
OLLAMA = {path: path for path in ("/api/chat", "/api/generate", "/api/embed", "/v1/chat/completions")}
LITELLM = "litellm==1.106.0"
"""Its huggingface-hub is an older one than ours, so it lives in an environment of its own."""
OPENAPI = Path(__file__).with_name("gateway_openapi.yaml")
SAYS = [{"role": "user", "content": PROMPT}]


def built() -> list[Path]:
    return sorted(cache().glob("built-*/built/*/llama-server"), key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="module")
def llama_server(request: pytest.FixtureRequest) -> Path:
    """The program that an installation builds; if no test has had it built yet, one is made for that."""
    if not built():
        request.getfixturevalue("quickstart")
    return built()[-1]


class LlamaServer(Engine):
    """llama.cpp's own server with the built-in model, as an engine of the rig."""

    program: Path

    def start(self, *_: str) -> None:
        weights = REPOSITORY / "appliance" / "smoke" / "smoke.gguf"
        command = (
            str(self.program), "--model", str(weights), "--alias", self.model, "--host", str(self.socket), "--ctx-size",
            "4096", "--parallel", "2", "--threads", "1", "--jinja", "--no-webui", "--offline", "--embeddings",
            "--pooling", "mean",
        )  # fmt: skip
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, umask=0, stdout=quiet, stderr=quiet)
        until(lambda: self.socket.exists() and self.get("/health").status_code == 200, timeout=60, what="llama-server")


@pytest.fixture(scope="module")
def one(llama_server: Path) -> Iterator[Gateway]:
    reason = missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    LlamaServer.program = llama_server
    with gateway(workers=2) as served:
        keys = served.prefix / "keys.json"
        keys.write_text(
            json.dumps(
                {"version": 1, "keys": [{"name": "clients", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]}
            )
        )
        served.document["keys"] = str(keys)
        real = LlamaServer(REAL, REAL, served.directory / "llama.sock", ())
        served.engines.append(real)
        served.route(REAL, real, paths=PATHS)
        served.route(DUMMY, served.engine(DUMMY, "--echo"), paths=PATHS)
        served.route(TOLD, served.recorder(TOLD), paths=PATHS)
        served.route(LLAMA, served.recorder(LLAMA), paths=OLLAMA)
        # What a description of routes is tried on: it serves all of them.
        served.route("all", served.recorder("all"), paths={**PATHS, **OLLAMA})
        served.start()
        states = dict.fromkeys((REAL, DUMMY, TOLD, LLAMA, "all"), "up")
        until(
            lambda: httpx.get(f"{served.url}/health", headers={"x-api-key": KEY}).json().get("models") == states,
            what="all models up",
        )
        yield served


def recorder(one: Gateway, name: str) -> Recorder:
    found = next(engine for engine in one.engines if isinstance(engine, Recorder) and engine.name == name)
    found.forget()
    return found


@pytest.fixture
def told(one: Gateway) -> Recorder:
    return recorder(one, TOLD)


@pytest.fixture
def client(one: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{one.url}/v1", api_key=KEY, max_retries=0) as found:
        yield found


# The openai client.


def test_openai_chats_and_streams_with_a_real_engine(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(model=REAL, messages=[{"role": "user", "content": PROMPT}], temperature=0)
    assert done.choices[0].message.content == ANSWER
    stream = client.chat.completions.create(
        model=REAL, messages=[{"role": "user", "content": PROMPT}], temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert chunks[-1].usage is not None
    assert done.usage is not None
    assert chunks[-1].usage.completion_tokens == done.usage.completion_tokens


class Verdict(BaseModel):
    """What a structured answer is to look like."""

    ok: bool


def test_openai_gets_a_structured_answer_from_a_real_engine(client: openai.OpenAI) -> None:
    done = client.chat.completions.parse(
        model=REAL, messages=[{"role": "user", "content": PROMPT}], temperature=0, max_tokens=200,
        response_format=Verdict,
    )  # fmt: skip
    assert isinstance(done.choices[0].message.parsed, Verdict)


LIGHT: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "light",
        "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    },
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "light", "arguments": '{"on": true}'}}


def completion(message: dict[str, Any], reason: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    return json.dumps(
        {"id": "c", "object": "chat.completion", "created": 1, "model": TOLD, "choices": [choice]}
    ).encode()


def test_openai_calls_a_tool(client: openai.OpenAI, told: Recorder) -> None:
    told.reply = completion({"content": None, "tool_calls": [CALL]}, "tool_calls")
    done = client.chat.completions.create(
        model=TOLD, messages=[{"role": "user", "content": "light!"}], tools=[LIGHT], tool_choice="required"
    )
    [seen] = told.seen
    assert json.loads(seen.body)["tools"] == [LIGHT]
    [call] = done.choices[0].message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert (call.function.name, call.function.arguments) == ("light", '{"on": true}')


def test_openai_streams_a_tool_call(client: openai.OpenAI, told: Recorder) -> None:
    pieces = (
        {"index": 0, **CALL, "function": {"name": "light", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"on":'}},
        {"index": 0, "function": {"arguments": " true}"}},
    )
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": TOLD}
    events = [
        {**frame, "choices": [{"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}]}
        for piece in pieces
    ]
    told.pieces = (*(f"data: {json.dumps(event)}\n\n".encode() for event in events), b"data: [DONE]\n\n")
    stream = client.chat.completions.create(
        model=TOLD, messages=[{"role": "user", "content": "light!"}], tools=[LIGHT], stream=True
    )
    calls = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    assert "".join(call.function.arguments or "" for call in calls if call.function) == '{"on": true}'


@pytest.mark.parametrize("model", [REAL, DUMMY])
def test_openai_embeds(client: openai.OpenAI, model: str) -> None:
    """The client asks for base64 and decodes it."""
    found = client.embeddings.create(model=model, input=["one", "two words"])
    assert len(found.data) == 2
    assert all(len(one.embedding) == len(found.data[0].embedding) > 4 for one in found.data)


def test_openai_uses_the_responses_of_a_real_engine(client: openai.OpenAI) -> None:
    assert client.responses.create(model=REAL, input=PROMPT, temperature=0).output_text == ANSWER
    # Not the helper `responses.stream`: this engine's events lack numbers that it counts on.
    events = client.responses.create(model=REAL, input=PROMPT, temperature=0, stream=True)
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == ANSWER


def test_a_model_without_responses_says_so(client: openai.OpenAI, one: Gateway) -> None:
    with pytest.raises(openai.NotFoundError, match="does not serve /v1/responses"):
        client.responses.create(model=LLAMA, input="x")


def test_openai_is_refused_what_is_not_served_with_a_clear_error(client: openai.OpenAI) -> None:
    for ask in (
        lambda: client.files.create(file=b"{}", purpose="batch"), client.files.list,
        lambda: client.fine_tuning.jobs.list(),
        lambda: client.batches.create(completion_window="24h", endpoint="/v1/chat/completions", input_file_id="f"),
        lambda: client.models.delete(REAL),
    ):  # fmt: skip
        with pytest.raises((openai.NotFoundError, openai.APIStatusError), match=r"no such route|use GET") as caught:
            ask()
        assert caught.value.status_code in (404, 405)


def test_openai_raises_its_own_errors(one: Gateway, client: openai.OpenAI, told: Recorder) -> None:
    with pytest.raises(openai.AuthenticationError, match="not valid"):
        client.with_options(api_key="sk-wrong").models.list()
    with pytest.raises(openai.NotFoundError, match="did you mean 'smoke'"):
        client.chat.completions.create(model="smok", messages=[])
    with pytest.raises(openai.BadRequestError, match="model"):
        client.post("/chat/completions", cast_to=object, body={"messages": []})
    told.status, told.reply = (
        429,
        b'{"error": {"message": "slow down", "type": "rate_limit", "param": null, "code": null}}',
    )
    with pytest.raises(openai.RateLimitError, match="slow down"):
        client.chat.completions.create(model=TOLD, messages=[])


def test_anthropics_way_to_ask_a_real_engine(one: Gateway) -> None:
    """Its client needs no more than this: the key in x-api-key, and /v1/messages."""
    body = {"model": REAL, "max_tokens": 50, "temperature": 0, "messages": SAYS}
    said = httpx.post(
        f"{one.url}/v1/messages", json=body, headers={"x-api-key": KEY, "anthropic-version": "2023-06-01"}, timeout=60
    )
    assert said.json()["content"][0]["text"] == ANSWER


# langchain-openai.


def langchain(one: Gateway, model: str) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{one.url}/v1", api_key=SecretStr(KEY), model=model, temperature=0, max_retries=0)


def test_langchain_chats_streams_and_gets_a_structured_answer(one: Gateway) -> None:
    model = langchain(one, REAL)
    assert model.invoke(PROMPT).content == ANSWER
    assert "".join(str(chunk.content) for chunk in model.stream(PROMPT)) == ANSWER
    found = model.with_structured_output(Verdict, method="json_schema").invoke(PROMPT)
    assert isinstance(found, Verdict)


def test_langchain_calls_a_tool(one: Gateway, told: Recorder) -> None:
    told.reply = completion({"content": "", "tool_calls": [CALL]}, "tool_calls")
    said = langchain(one, TOLD).bind_tools([dict(LIGHT)]).invoke("light!")
    assert [(call["name"], call["args"]) for call in said.tool_calls] == [("light", {"on": True})]


def test_langchain_embeds(one: Gateway) -> None:
    embeddings = OpenAIEmbeddings(
        base_url=f"{one.url}/v1", api_key=SecretStr(KEY), model=DUMMY, check_embedding_ctx_length=False
    )
    assert len(embeddings.embed_documents(["one", "two"])) == 2


# LiteLLM as a client.

LITELLM_SCRIPT = """
import json, sys, litellm
base, key, real, dummy, prompt = sys.argv[1:]
ask = dict(model=f"openai/{real}", api_base=base, api_key=key, messages=[{"role": "user", "content": prompt}], temperature=0, num_retries=0)
said = {"chat": litellm.completion(**ask).choices[0].message.content}
said["stream"] = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**ask, stream=True))
said["vectors"] = len(litellm.embedding(model=f"openai/{dummy}", api_base=base, api_key=key, input=["a", "b"]).data)
for name, change in {"model": {"model": "openai/nobody"}, "key": {"api_key": "sk-wrong"}}.items():
    try:
        litellm.completion(**{**ask, **change})
    except Exception as error:
        said[name] = type(error).__name__
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def litellm() -> str:
    """A Python that has LiteLLM."""
    home = Path(os.environ.get("LLM_APPLIANCE_VENVS") or "/tmp") / LITELLM.replace("==", "-")
    if not (home / "complete").exists():
        subprocess.run((sys.executable, "-m", "venv", "--clear", str(home)), check=True, timeout=120)
        pip = (str(home / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", LITELLM)
        subprocess.run(pip, check=True, timeout=600)
        (home / "complete").touch()
    return str(home / "bin/python")


def test_litellm_chats_streams_embeds_and_raises_its_own_errors(one: Gateway, litellm: str) -> None:
    words = (litellm, "-c", LITELLM_SCRIPT, f"{one.url}/v1", KEY, REAL, DUMMY, PROMPT)
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "NO_PROXY": "*", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {
        "chat": ANSWER,
        "stream": ANSWER,
        "vectors": 2,
        "model": "NotFoundError",
        "key": "AuthenticationError",
    }


# Ollama's own client, to a recorder that says what Ollama says.


@pytest.fixture
def llama(one: Gateway) -> ollama.Client:
    return ollama.Client(host=one.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False)


def ndjson(*texts: str) -> tuple[bytes, ...]:
    parts = [{"model": LLAMA, "message": {"role": "assistant", "content": text}, "done": False} for text in texts]
    return tuple(
        json.dumps(part).encode() + b"\n"
        for part in [*parts, {"model": LLAMA, "message": {"role": "assistant", "content": ""}, "done": True}]
    )


def test_ollamas_client_chats_streams_generates_and_embeds(one: Gateway, llama: ollama.Client) -> None:
    engine = recorder(one, LLAMA)
    engine.reply = json.dumps(
        {"model": LLAMA, "message": {"role": "assistant", "content": "Hello"}, "done": True}
    ).encode()
    assert llama.chat(model=LLAMA, messages=SAYS).message.content == "Hello"
    engine.pieces = ndjson("Hel", "lo")
    assert (
        "".join(part.message.content or "" for part in llama.chat(model=LLAMA, messages=SAYS, stream=True)) == "Hello"
    )
    engine.pieces, engine.reply = (), json.dumps({"model": LLAMA, "response": "text", "done": True}).encode()
    assert llama.generate(model=LLAMA, prompt="x").response == "text"
    engine.reply = json.dumps({"model": LLAMA, "embeddings": [[0.5, 1.0]]}).encode()
    assert llama.embed(model=LLAMA, input="x").embeddings == [[0.5, 1.0]]
    assert [seen.path for seen in engine.seen] == ["/api/chat", "/api/chat", "/api/generate", "/api/embed"]
    assert {tuple(seen.header("authorization")) for seen in engine.seen} == {()}


def test_ollamas_client_sees_the_models_that_its_routes_reach(llama: ollama.Client) -> None:
    assert {found.model for found in llama.list().models} == {LLAMA, "all"}


def test_ollamas_client_may_change_nothing(one: Gateway, llama: ollama.Client) -> None:
    engine = recorder(one, LLAMA)
    for ask in (
        lambda: llama.pull(LLAMA), lambda: llama.push(LLAMA), lambda: llama.delete(LLAMA),
        lambda: llama.copy(LLAMA, "other"), lambda: llama.create(model="other", from_=LLAMA), lambda: llama.show(LLAMA),
        llama.ps,
    ):  # fmt: skip
        with pytest.raises(ollama.ResponseError, match="no such route") as caught:
            ask()
        assert caught.value.status_code == 404
    assert engine.seen == []


# Requests derived from a description of the routes.


OF_THE_ENGINE = "negative_data_rejection,positive_data_acceptance"
"""Checks that are not for us: whether an engine takes odd values is its own business."""


@pytest.mark.parametrize(
    ("models", "more"),
    [
        ("fox, all", ("--mode", "all", "--exclude-checks", OF_THE_ENGINE)),
        # This engine shapes its errors in its own way, answers much that is wrong with 500, and has no use for some routes.
        (REAL, ("--mode", "positive", "--exclude-checks", f"{OF_THE_ENGINE},response_schema_conformance", "--include-path-regex", "chat|completions|models|embeddings")),
    ],
    ids=["dummy", "llama-server"],
)  # fmt: skip
def test_schemathesis_finds_nothing_against_the_description(
    one: Gateway, tmp_path: Path, models: str, more: tuple[str, ...]
) -> None:
    """Every route, with and without a key, with other methods, with data that fits; the dummy gets what does not, too."""
    page = tmp_path / "openapi.yaml"
    page.write_text(OPENAPI.read_text().replace("enum: [fox, all]", f"enum: [{models}]"))
    command = (
        str(Path(sys.executable).with_name("schemathesis")), "run", str(page), "--url", one.url,
        "--header", f"Authorization: Bearer {KEY}", "--phases", "examples,coverage,fuzzing", "--max-examples", "25",
        "--seed", "6", "--workers", "1", "--no-color", *more,
    )  # fmt: skip
    env = {**os.environ, "NO_PROXY": "*"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=env)
    print("\n".join(line for line in done.stdout.splitlines() if "generated" in line))
    assert done.returncode == 0, done.stdout[-6000:]
    assert "lua" not in one.errors()
