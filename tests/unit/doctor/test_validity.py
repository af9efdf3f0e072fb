"""When a certificate is valid, held against what cryptography reads of the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from appliance import certificates
from appliance.doctor.validity import Validity, trouble, validity

NOW = 1_795_000_000
DAY = 86400


@pytest.mark.parametrize("now", [-600_000_000, NOW, 2_524_600_000, 4_102_444_800])
def test_it_is_what_cryptography_reads(now: int) -> None:
    """Also of years that are written with four digits, and of 1950 to 1970."""
    authority = certificates.authority("server", now)
    pem = certificates.signed(authority, ("llm.example",), now).certificate
    said = certificates.about(pem, "server.pem")
    assert validity(b"before it\n" + pem) == Validity(begins=said.begins, ends=said.ends)


@given(some.binary(max_size=200), some.integers(0, 700))
def test_what_cannot_be_read_has_none(noise: bytes, cut: int) -> None:
    assert validity(noise) is None
    whole = certificates.authority("server", NOW).certificate.splitlines(keepends=True)
    body = b"".join(whole[1:-1])[:cut]
    found = validity(whole[0] + body + b"\n" + whole[-1])
    assert found is None or len(body) > 100


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [
        (-1, 31, None),
        (-1, 12, ("warning", "the gateway's certificate ends in 12 days")),
        (-9, 0, ("error", "the gateway's certificate ended on 2026-11-18: clients refuse it")),
        (2, 99, ("error", "the gateway's certificate is not valid before 2026-11-20")),
    ],
)
def test_clients_look_at_the_clock(begins: int, ends: int, said: tuple[str, str] | None) -> None:
    assert trouble(Validity(begins=NOW + begins * DAY, ends=NOW + ends * DAY), NOW) == said
    assert trouble(None, NOW) is None
