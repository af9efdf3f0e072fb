"""Lines of a stream: which are events, which are errors, and what an answer that is no stream says."""

import pytest

from appliance.system.stream import StreamError, _event, _request, _status, _told


def test_an_event_is_the_json_behind_data() -> None:
    assert _event(b'data: {"choices": []}\n') == {"choices": []}
    assert [_event(line) for line in (b"\n", b": ping\n", b"data: [DONE]\n", b"event: x\n")] == [None] * 4


def test_an_error_within_a_stream_is_said() -> None:
    with pytest.raises(StreamError, match="broke off"):
        _event(b'data: {"error": {"message": "broke off", "code": "stream_broken"}}\n')
    with pytest.raises(StreamError, match="no JSON"):
        _event(b"data: {half\n")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "too long"}}', "too long"), (b'{"error": "plain"}', "plain"),
        (b"<html>502</html>", "HTTP 502: <html>502</html>"), (b"[1]", "HTTP 502: [1]"), (b"", "HTTP 502:"),
    ],
)  # fmt: skip
def test_what_an_answer_without_a_stream_says(body: bytes, said: str) -> None:
    assert _told(body, 502) == said


def test_no_answer_is_told_apart_from_a_strange_one() -> None:
    assert _status(b"HTTP/1.1 200 OK\r\n") == 200
    with pytest.raises(StreamError, match="no answer came"):
        _status(b"")
    with pytest.raises(StreamError, match="is no answer"):
        _status(b"SSH-2.0-x\r\n")


def test_a_question_is_sent_whole_in_ascii() -> None:
    head, _, body = _request("/v1/x", {"q": "Grüße \udc80"}).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x HTTP/1.0\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
