"""The dummy engine's shapes and its reading of HTTP, without a socket."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any, cast

import pytest

from appliance.dummy import shapes
from appliance.dummy.__main__ import parse
from appliance.dummy.http import BadRequestError, Request, chunk, encode, read_request
from appliance.dummy.shapes import ApiError, Origin, Task

ORIGIN = Origin("chatcmpl-1", 1_700_000_000, "m")


def chat(**more: Any) -> Task:
    return shapes.chat_task({"messages": [{"role": "user", "content": "a b"}], **more}, ORIGIN)


class Silent:
    """Takes the place of a StreamWriter; keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def read(data: bytes) -> tuple[Request | None, bytes]:
    async def run() -> tuple[Request | None, bytes]:
        reader, writer = asyncio.StreamReader(limit=64 * 1024), Silent()
        reader.feed_data(data)
        reader.feed_eof()
        return await read_request(reader, cast("asyncio.StreamWriter", writer)), writer.written

    return asyncio.run(run())


@pytest.mark.parametrize("text", ["", "a", "a b", "  a\n\nb  ", "äö ü\u2003x", "\n"])
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(shapes.tokens(text)) == text


def test_a_word_is_a_token() -> None:
    assert shapes.tokens("The quick  fox") == ["The", " quick", "  fox"]


def test_a_chat_answer_in_one_piece() -> None:
    assert chat().whole([("hello", "stop")], 1) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
    }


def test_a_completion_answers_each_prompt() -> None:
    task = shapes.completion_task({"prompt": ["a", "b c"]}, ORIGIN)
    answer = cast("Any", task.whole([("x", "stop"), ("y", "length")], 2))
    assert [(one["index"], one["text"], one["finish_reason"]) for one in answer["choices"]] == [
        (0, "x", "stop"),
        (1, "y", "length"),
    ]
    assert (answer["object"], answer["usage"]["prompt_tokens"]) == ("text_completion", 3)


def test_the_events_of_a_stream() -> None:
    task = chat(stream=True)
    events: list[Any] = [task.event(0, "a", None, first=True), task.event(0, "b", None), task.event(0, "", "stop")]
    assert [event["choices"][0]["delta"] for event in events] == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, "stop"]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert all("usage" not in event for event in events)


def test_usage_in_a_stream_only_when_asked_for() -> None:
    task = chat(stream=True, stream_options={"include_usage": True})
    assert task.event(0, "a", None)["usage"] is None
    last = task.usage_event(1)
    assert (last["choices"], last["usage"]) == ([], task.usage(1))


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_limit_of_tokens_is_read(name: str) -> None:
    assert chat(**{name: 7}).max_tokens == 7
    for wrong in (0, -1, 1.5, "7", True):
        with pytest.raises(ApiError, match=name):
            chat(**{name: wrong})


def test_the_last_user_message_is_the_prompt() -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "first"},
        {"role": "user", "content": [{"type": "text", "text": "se"}, {"type": "text", "text": "cond"}]},
        {"role": "assistant", "content": None},
    ]
    task = shapes.chat_task({"messages": messages}, ORIGIN)
    assert (task.prompts, task.prompt_tokens) == (("second",), 4)


@pytest.mark.parametrize("messages", [None, [], "hi", ["hi"], {}])
def test_messages_must_be_a_list_of_objects(messages: object) -> None:
    with pytest.raises(ApiError, match="messages"):
        shapes.chat_task({"messages": messages}, ORIGIN)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"nul", b"[" * 100_000, b"\xff\xfe"])
def test_a_body_that_is_no_json_object(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        shapes.read_json(body, "m")
    assert caught.value.status == 400
    assert caught.value.body["error"] == {
        "message": str(caught.value),
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def test_another_model_is_not_found() -> None:
    assert shapes.read_json(b'{"model":"m"}', "m") == {"model": "m"}
    assert shapes.read_json(b"{}", "m") == {}
    with pytest.raises(ApiError) as caught:
        shapes.read_json(b'{"model":"other"}', "m")
    assert (caught.value.status, cast("Any", caught.value.body)["error"]["code"]) == (404, "model_not_found")


def test_embeddings_depend_on_the_text_alone() -> None:
    plain = cast("Any", shapes.embeddings({"input": ["a", "b", "a"]}, "m"))["data"]
    assert plain[0]["embedding"] == plain[2]["embedding"] != plain[1]["embedding"]
    assert abs(sum(value**2 for value in plain[0]["embedding"]) - 1) < 1e-4
    packed = cast("Any", shapes.embeddings({"input": "a", "encoding_format": "base64"}, "m"))["data"][0]["embedding"]
    assert struct.unpack("<8f", base64.b64decode(packed)) == pytest.approx(plain[0]["embedding"])
    with pytest.raises(ApiError, match="input"):
        shapes.embeddings({"input": 5}, "m")


def test_a_request_is_read() -> None:
    request, written = read(b"POST /v1/x?a=b HTTP/1.1\r\nHost: e\r\nX-A:  v \r\nContent-Length: 3\r\n\r\nabcdef")
    assert request == Request("POST", "/v1/x", {"host": "e", "x-a": "v", "content-length": "3"}, b"abc")
    assert (request.keep_alive, written) == (True, b"")


def test_a_chunked_body_is_read() -> None:
    body = chunk(b"ab") + chunk(b"c" * 300) + b"0\r\nTrailer: x\r\n\r\n"
    request, _ = read(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + body)
    assert request
    assert (request.body, request.keep_alive) == (b"ab" + b"c" * 300, False)


def test_a_client_that_waits_for_permission_gets_it() -> None:
    request, written = read(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na")
    assert (request and request.body, written) == (b"a", b"HTTP/1.1 100 Continue\r\n\r\n")


def test_a_closed_connection_is_no_request() -> None:
    assert read(b"") == (None, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /",
        b"GET /\r\n\r\n",
        b"GET / FTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nspace : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_a_request_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(BadRequestError):
        read(data)


def test_json_is_written_as_utf8() -> None:
    assert json.loads(encode({"a": "ä€"})) == {"a": "ä€"}
    assert b"\\u" not in encode({"a": "ä€"})


def test_the_switches_become_options() -> None:
    options = parse(["--host", "unix:/x", "--model", "m", "--die-after", "2", "--echo", "--token-delay", "0.5"])
    assert (options.host, options.die_after, options.echo, options.token_delay) == ("unix:/x", 2, True, 0.5)
    assert (options.fail_every, options.grace) == (0, 30.0)


@pytest.mark.parametrize(
    "words", [[], ["--die-after", "0"], ["--token-delay", "-1"], ["--token-delay", "nan"], ["--x"]]
)
def test_wrong_switches_end_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--host", "unix:/x", *words] if not words else ["--host", "unix:/x", "--model", "m", *words])
    assert caught.value.code == 2
