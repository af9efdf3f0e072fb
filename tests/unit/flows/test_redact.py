"""Secrets are taken out of every text, whatever they look like; what an operator needs to read stays."""

import pytest

from appliance.flows.support.redact import MARK, Redactor

PLANTED = {
    "a key of ours": ("asked with sk-3hXq9Zr4WnT8vLmB2cYd6Kpa and refused", "sk-3hXq9Zr4WnT8vLmB2cYd6Kpa"),
    "a hub's token": ("token hf_AbCdEfGhIjKlMnOpQrStUvWxYz is gated", "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"),
    "a header in a log": ('"GET / HTTP/1.1" Authorization: Bearer Zm9vYmFyYmF6 200', "Zm9vYmFyYmF6"),
    "a header as JSON": ('{"x-api-key": "abc def123456"}', "abc def123456"),
    "a variable": ("Environment=WANDB_API_KEY=ab12cd34 PATH=/bin", "ab12cd34"),
    "a quoted variable": ('"HF_TOKEN=ab12cd34"', "ab12cd34"),
    "a password in YAML": ("  smtp-password: hunter2secret\n", "hunter2secret"),
    "JSON": ('{"client_secret":"qwertz99","port":1}', "qwertz99"),
    "a pair of JSON": ('["HF_TOKEN",\n  "ab12cd34"]', "ab12cd34"),
    "a proxy": ("https_proxy=http://ann:s3cr3t@proxy:3128", "ann:s3cr3t"),
    "an address with a token": ("GET https://host/file.gguf?token=abc123xyz&x=1", "abc123xyz"),
    "a private key": ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----\nafter", "MIIEow"),
    "half a private key": ("-----BEGIN PRIVATE KEY-----\nMIIEow", "MIIEow"),
    "a signed token": ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0xyz.abc-def", "eyJzdWIiOiIxIn0xyz"),
    "AWS": ("AKIA1234567890ABCDEF is not authorised", "AKIA1234567890ABCDEF"),
}
KEPT = (
    "max_tokens: 128", '"completion_tokens": 11', "max_num_batched_tokens=8192", "tokenizer: qwen", "--tokenizer /srv/x",
    "hub:\n  token-file: /etc/llm-appliance/hub.token", '"token_file": "/run/t"', '"key_file": "/etc/x.key"',
    "keepalive: 10", "monkey: banana", "http://127.0.0.1:8080/v1", "unix:/run/llm-appliance/a/engine.sock",
    '"sha256": "' + "a" * 64 + '"', "tokens per second 12.5", "CUDA out of memory. Tried to allocate 2.00 GiB",
    '"api_key": null', "HF_TOKEN=", "sk-",
)  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_what_looks_like_a_secret_is_taken_out(what: str) -> None:
    text, secret = PLANTED[what]
    redact = Redactor(())
    said = redact(text)
    assert secret not in said
    assert MARK in said
    assert redact.count >= 1
    assert redact(said) == said, "and once is enough"


def test_what_stands_around_stays() -> None:
    redact = Redactor(())
    assert redact("http://ann:pw12@proxy:3128/x") == f"http://{MARK}@proxy:3128/x"
    assert redact("HF_TOKEN=ab12cd34 NEXT=1") == f"HF_TOKEN={MARK} NEXT=1"
    assert redact("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\nafter").endswith("\nafter")


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor(())(text) == text


def test_a_known_secret_is_found_wherever_it_is_however_it_looks() -> None:
    redact = Redactor(("correct horse", "12", "a.b*c[d"))
    assert redact("say correct horse, 12 times: a.b*c[d!") == f"say {MARK}, 12 times: {MARK}!"
    assert redact.count == 2
