"""Proxies: where they are, never who may use them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.detect.proxies import proxies, without_password


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://ada:secret@proxy:3128/", "http://proxy:3128/"),
        ("ada:secret@proxy:3128", "proxy:3128"),
        ("http://ada@proxy", "http://proxy"),
        ("http://ada:p/a@ss@proxy:3128", "http://proxy:3128"),
        ("socks5h://a:b\nc@proxy", "socks5h://proxy"),
        ("localhost,127.0.0.1,.example.org", "localhost,127.0.0.1,.example.org"),
    ],
)
def test_names_and_passwords_are_taken_out(value: str, told: str) -> None:
    assert without_password(value) == told


def test_both_cases_are_told_and_what_is_empty_is_not_set() -> None:
    environ = {"https_proxy": "http://a", "HTTPS_PROXY": "http://b", "NO_PROXY": "x", "http_proxy": "", "HOME": "/root"}
    assert proxies(environ) == (("https_proxy", "http://a"), ("HTTPS_PROXY", "http://b"), ("NO_PROXY", "x"))


def test_bytes_that_are_no_text_can_be_told() -> None:
    assert proxies({"http_proxy": "http://\udcff"}) == (("http_proxy", "http://?"),)


@given(user=st.text(), host=st.from_regex(r"[a-z0-9.]{1,20}(:[0-9]{1,5})?", fullmatch=True))
def test_no_password_gets_through(user: str, host: str) -> None:
    assert without_password(f"http://{user}@{host}") == f"http://{host}"
