"""A grammar of requests that should not be: seeded, so that each number is always the same bytes.

A request is made well, then spoiled in one to three ways. What hides in its body as a second request carries a mark in
its head, so whoever receives one can say whether it should have.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

SMUGGLED = b"smuggled!"
"""Somewhere in a second request that hides in a first one: no engine may see it in a head."""

HEADERS = (
    "Host", "Accept", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection", "Authorization", "Cookie",
    "Expect",
    "X-Forwarded-For", "X-Forwarded-Host", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "Upgrade", "TE",
    "X-Accel-Redirect", "Range", "Content-Encoding", "Via", "Forwarded", "Trailer", "Keep-Alive", "X-Request-Id",
)  # fmt: skip
PATHS = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/models", "/p/v1/chat/completions",
    "/v1/models/m", "/health", "/metrics", "/v1/responses", "/v1/messages", "/v1/audio/transcriptions", "/v1/images/edits",
    "/api/chat", "/api/pull", "/api/delete", "/tokenize", "/v1/load_lora_adapter", "/server_info", "/v1/files",
    "/", "/gateway/page", "/gateway/stat", "/gateway/engines", "/gateway/engines/m/metrics",
)  # fmt: skip
BODY = b'{"messages": [{"role": "user", "content": "hello"}], "model": "m"}'
NASTY = (
    "\x00", "%00", "%0d%0a", "\t", " ", "..", "%2e%2e", "%2f", "//", "\\", "%5c", ";", "%ff", "%c0%ae", "\x7f", "é",
    "%25",
)  # fmt: skip


@dataclass
class Request:
    """A request that is not bytes yet."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes
    key: str | None
    """The valid key that it carries, if any."""
    spoiled: list[str] = field(default_factory=list)
    """The ways in which it was spoiled, by name."""
    newline: str = "\r\n"
    length: bool = True
    """Whether Content-Length is written."""
    after: bytes = b""
    """What follows on the same connection."""

    def bytes(self) -> bytes:
        """Write it."""
        headers = list(self.headers)
        if self.length:
            headers.append(("Content-Length", str(len(self.body))))
        lines = [" ".join(word for word in (self.method, self.target, self.version) if word)]
        lines += [f"{name}: {value}" if not name.startswith("\n") else f"{name[1:]}{value}" for name, value in headers]
        head = self.newline.join([*lines, "", ""])
        return head.encode("latin-1", "replace") + self.body + self.after


Way = Callable[[random.Random, Request], None]


def well_made(dice: random.Random, key: str | None) -> Request:
    """Return a request that a client might send."""
    request = Request(
        "POST", dice.choice((*PATHS[:4], "/p/v1/chat/completions", "/r/v1/chat/completions")), "HTTP/1.1",
        [("Host", "gateway"), ("Content-Type", "application/json")], b"", key,
    )  # fmt: skip
    if key:
        request.headers.append(authorization(dice, key))
    request.body = BODY
    return request


def authorization(dice: random.Random, key: str) -> tuple[str, str]:
    """Return one of the headers in which a key may come."""
    return dice.choice((("Authorization", f"Bearer {key}"), ("x-api-key", key), ("api-key", key)))


# The ways to spoil one.


def other_path(dice: random.Random, request: Request) -> None:
    request.target = dice.choice(PATHS)


def dotted_path(dice: random.Random, request: Request) -> None:
    at = dice.randrange(len(request.target) + 1)
    request.target = (
        request.target[:at]
        + dice.choice(("/../", "/./", "/%2e%2e/", "//", "/..;/", "/.%2e/", "%2f", "/x/../"))
        + request.target[at:]
    )


def nasty_path(dice: random.Random, request: Request) -> None:
    at = dice.randrange(len(request.target) + 1)
    request.target = request.target[:at] + dice.choice(NASTY) + request.target[at:]


def encoded_path(dice: random.Random, request: Request) -> None:
    request.target = "".join(
        f"%{ord(char):02x}" if dice.random() < 0.3 and char != "/" else char for char in request.target
    )


def absolute_form(dice: random.Random, request: Request) -> None:
    host = dice.choice(("gateway", "evil", "engine", "127.0.0.1:1", "user:pass@host", "[::1]", ""))
    request.target = dice.choice(("http://", "https://", "HTTP://", "ftp://", "http:/", "//")) + host + request.target


def authority_form(dice: random.Random, request: Request) -> None:
    request.method, request.target = dice.choice(
        (("CONNECT", "engine:80"), ("OPTIONS", "*"), ("POST", "*"), ("CONNECT", request.target))
    )


def query(dice: random.Random, request: Request) -> None:
    request.target += dice.choice(
        ("?", "?model=x", "?a=%00", "#f", "?/../../health", "?" + "a" * 9000, "?key=sk-x&x=" + SMUGGLED.decode())
    )


def long_path(dice: random.Random, request: Request) -> None:
    request.target = "/" + dice.choice(("a", "../", "%61", "/")) * dice.choice((300, 3000, 12000)) + request.target


def method(dice: random.Random, request: Request) -> None:
    request.method = dice.choice((
        "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "post", "P\x00ST", "", "X" * 5000,
        "POST\t", "PRI",
    ))  # fmt: skip


def version(dice: random.Random, request: Request) -> None:
    request.version = dice.choice(
        ("HTTP/0.9", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/9.9", "http/1.1", "HTTP/1.1 x", "", "HTTP/", "XTTP/1.1")
    )


def http_0_9(_: random.Random, request: Request) -> None:
    request.version, request.headers, request.length = "", [], False


def host(dice: random.Random, request: Request) -> None:
    value = dice.choice((
        "evil", "a?x=", "a/b", "a#b", "a\\b", "x" * 8000, "", "engine", "127.0.0.1", "a b", "a\x00b", "[::1", "m@n",
        "a:99999", "-", "é",
    ))  # fmt: skip
    request.headers = [(name, value if name == "Host" else old) for name, old in request.headers]


def host_twice(dice: random.Random, request: Request) -> None:
    request.headers.insert(dice.randrange(len(request.headers) + 1), ("Host", dice.choice(("evil", "gateway", ""))))


def no_host(_: random.Random, request: Request) -> None:
    request.headers = [(name, value) for name, value in request.headers if name != "Host"]


def stray_header(dice: random.Random, request: Request) -> None:
    name = dice.choice(HEADERS)
    value = dice.choice((
        "", "x", "/v1/models", "close", "chunked", "DELETE", "websocket", "gzip", "0", "-1", "127.0.0.1", "a" * 5000,
        "\x00", "é", "100-continue",
    ))  # fmt: skip
    if not (request.key and name == "Authorization"):
        request.headers.append((name, value))


def odd_header_name(dice: random.Random, request: Request) -> None:
    name = dice.choice((
        "", " Host", "Host ", "Ho\x00st", "Content_Length", "X" * 9000, "\tX", "Content-Length\t", "(x)",
        "Transfer_Encoding", "é", "\n: ", "X-Request-Id",
    ))  # fmt: skip
    request.headers.append((name, dice.choice(("5", "chunked", "x", SMUGGLED.decode()))))


def folded_header(dice: random.Random, request: Request) -> None:
    request.headers.append((
        dice.choice(("X-A", "Transfer-Encoding", "Authorization2", "Content-Type")),
        dice.choice(("a\r\n b", "\r\n chunked", "a\r\n\tb", "\n x")),
    ))  # fmt: skip


def many_headers(dice: random.Random, request: Request) -> None:
    count = dice.choice((150, 1000, 10000))
    request.headers += [(f"X-{number}", "1") for number in range(count)]


def huge_header(dice: random.Random, request: Request) -> None:
    request.headers.append(("X-Huge", "h" * dice.choice((7000, 9000, 40000, 100000))))


def bare_newline(dice: random.Random, request: Request) -> None:
    request.newline = dice.choice(("\n", "\r", "\n\r", "\r\r\n", "\r\n "))


def length_lies(dice: random.Random, request: Request) -> None:
    request.length = False
    size = len(request.body)
    value = dice.choice((
        size + 1, size - 1, 0, -1, 2**31, 2**63, 2**64 + size, f"+{size}", f" {size}", f"0x{size:x}", f"{size}, {size}",
        f"{size} {size}", f"{size};", "", "a", f"{size}e0",
    ))  # fmt: skip
    request.headers.append(("Content-Length", str(value)))


def two_lengths(dice: random.Random, request: Request) -> None:
    request.headers.append(("Content-Length", str(dice.choice((0, 1, len(request.body), len(request.body) + 5)))))


def length_and_chunks(dice: random.Random, request: Request) -> None:
    hidden = hidden_request(dice)
    coding = dice.choice((
        "chunked", "Chunked", " chunked", "chunked\t", "x, chunked", "chunked, chunked", "chunked, identity",
        "xchunked", "\x0bchunked", "chunked;q=1", "identity",
    ))  # fmt: skip
    request.headers.append(
        (dice.choice(("Transfer-Encoding", "transfer-encoding", "Transfer-Encoding ", "Transfer-Encoding\t")), coding)
    )
    request.body = dice.choice(
        (chunked(request.body), b"0\r\n\r\n" + hidden, chunked(request.body) + hidden, request.body)
    )
    if dice.random() < 0.5:
        request.headers.append(
            ("Content-Length", str(dice.choice((4, 6, len(request.body), len(request.body) - len(hidden)))))
        )
        request.length = False


def broken_chunks(dice: random.Random, request: Request) -> None:
    request.length = False
    request.headers.append(("Transfer-Encoding", "chunked"))
    size = len(request.body)
    request.body = dice.choice((
        b"%x\r\n" % (size + 5) + request.body, b"%x;a=b\r\n" % size + request.body + b"\r\n0\r\n", b"ffffffffffffffffff\r\n" + request.body,
        b"-1\r\n" + request.body, b"\r\n" + request.body, b"%x\n" % size + request.body + b"\n0\n\n", b"0x%x\r\n" % size + request.body + b"\r\n0\r\n\r\n",
        b"%x\r\n" % size + request.body + b"0\r\n\r\n", chunked(request.body)[:-2] + b"X-Trailer: smuggled!\r\n\r\n", b"%x %x\r\n" % (size, size) + request.body,
        b"".join(b"1\r\n%c\r\n" % char for char in request.body) + b"0\r\n\r\n", b"%x;" % size + b"e" * 20000 + b"\r\n" + request.body + b"\r\n0\r\n\r\n",
    ))  # fmt: skip


def chunked(data: bytes) -> bytes:
    """Write a body as one chunk and the last one."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


def hidden_request(dice: random.Random) -> bytes:
    """Return a request without a key that should stay a part of another one's body."""
    path = dice.choice((b"/v1/chat/completions", b"/api/delete", b"/v1/models"))
    return b"POST %b?%b HTTP/1.1\r\nHost: %b\r\nX-%b: 1\r\nContent-Length: %d\r\n\r\n%b" % (
        path, SMUGGLED, SMUGGLED, SMUGGLED, len(BODY), BODY,
    )  # fmt: skip


def pipelined(dice: random.Random, request: Request) -> None:
    """More on the same connection; what follows without a key must be refused by itself."""
    request.after += dice.choice((
        hidden_request(dice), b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\x00" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ))  # fmt: skip


def upgrade(dice: random.Random, request: Request) -> None:
    request.headers += [
        (
            "Connection",
            dice.choice(
                ("Upgrade", "Upgrade, HTTP2-Settings", "close, Host", "keep-alive, Authorization", "X-Request-Id")
            ),
        )
    ]
    request.headers += [
        ("Upgrade", dice.choice(("websocket", "h2c", "TLS/1.0", "x"))),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
    ]


def content_type(dice: random.Random, request: Request) -> None:
    value = dice.choice((
        "text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=",
        "application/json; charset=utf-16", "a" * 3000, "multipart/form-data; boundary=" + "b" * 300, "\x00",
    ))  # fmt: skip
    request.headers = [(name, value if name == "Content-Type" else old) for name, old in request.headers]


def form(dice: random.Random, request: Request) -> None:
    """A form as uploads of audio have it, broken somewhere."""
    request.target = dice.choice(("/v1/audio/transcriptions", "/v1/images/edits", "/p/v1/audio/transcriptions"))
    edge = dice.choice((b"edge", b"----e", b"e" * 70, b'"e'))
    kind = f"multipart/form-data; boundary={edge.decode()}" + dice.choice(
        ("", "", "; boundary=other", '; boundary="e"', ";x")
    )
    request.headers = [(name, kind if name == "Content-Type" else old) for name, old in request.headers]
    parts = [
        b'Content-Disposition: form-data; name="model"\r\n\r\nm', b'Content-Disposition: form-data; name="model"\r\n\r\nother',
        b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n--' + edge[:3] + b"edg", b"", b"\r\n\r\n", b"Content-Disposition: form-data; name=model\r\n\r\nm",
        b'content-disposition: form-data; NAME="model"; name="x"\r\n\r\nm', b'Content-Disposition: form-data; name="mod\x00el"\r\n\r\nm',
    ]  # fmt: skip
    chosen = dice.sample(parts, dice.randrange(1, 5))
    ends = (b"--\r\n", b"\r\n", b"", b"-", b"--" * 50)
    request.body = (
        b"".join(b"--" + edge + dice.choice((b"\r\n", b"\n", b"")) + part + b"\r\n" for part in chosen)
        + b"--"
        + edge
        + dice.choice(ends)
    )


def two_models(dice: random.Random, request: Request) -> None:
    key = dice.choice(('"model"', '"mod\\u0065l"', '"\\u006dodel"', '"Model"', '"model\\u0000"', '"model "'))
    value = dice.choice(('"other"', "null", "5", "[]", '"m"'))
    request.body = request.body[:-1] + f", {key}: {value}}}".encode()


def odd_model(dice: random.Random, request: Request) -> None:
    value = dice.choice((
        b"null", b"5", b"[]", b"{}", b'""', b'"m\\u0000"', b'"../m"', b'"' + b"m" * 5000 + b'"', b'"\xff"',
        b'"\\ud800"', b'"m\n"', b"true", b'"M"', b'"m', b"'m'", b'"m\\"',
    ))  # fmt: skip
    request.body = request.body.replace(b'"m"', value)


def deep_body(dice: random.Random, request: Request) -> None:
    depth, (opens, closes) = (
        dice.choice((50, 1001, 20000)),
        dice.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[", b""), (b'[{"model":', b"}]"))),
    )
    request.body = request.body[:-1] + b', "deep": ' + opens * depth + b"1" + closes * depth + b"}"


def broken_json(dice: random.Random, request: Request) -> None:
    text = request.body or b"{}"
    cut = dice.randrange(len(text))
    request.body = dice.choice((
        text[:cut], text + b"}", text[1:], b"\xef\xbb\xbf" + text, text.replace(b":", b"=", 1), b"[" + text + b"]",
        b"\x00" + text, text + text, text.replace(b" ", b"\x00"), text.replace(b"user", b"\xff\xfe\xc0"),
        text[:-1] + b", }", b"/*" + text, text.decode("latin-1").encode("utf-16"), text.replace(b'"', b"'"),
    ))  # fmt: skip


def flipped(dice: random.Random, request: Request) -> None:
    data = bytearray(request.body or b"{}")
    for _ in range(dice.randrange(1, 6)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    request.body = bytes(data)


def no_body(dice: random.Random, request: Request) -> None:
    request.body, request.length = b"", dice.random() < 0.5


WAYS: tuple[Way, ...] = (
    other_path, dotted_path, nasty_path, encoded_path, absolute_form, authority_form, query, long_path, method, version, http_0_9, host, host_twice, no_host,
    stray_header, stray_header, odd_header_name, folded_header, many_headers, huge_header, bare_newline, length_lies, two_lengths, length_and_chunks, length_and_chunks,
    broken_chunks, pipelined, upgrade, content_type, form, two_models, odd_model, deep_body, broken_json, flipped, no_body,
)  # fmt: skip


def malformed(number: int, seed: int, key: str | None) -> Request:
    """Return the request of this number, with or without a key."""
    dice = random.Random(f"{seed}:{number}")
    request = well_made(dice, key)
    for way in dice.sample(WAYS, dice.choice((1, 1, 2, 3))):
        way(dice, request)
        request.spoiled.append(way.__name__)
    return request
