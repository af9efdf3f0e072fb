"""Until when a certificate is valid, read from its DER alone: what knows all of them takes its time to be imported."""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from appliance.domain.finding import ERROR, WARNING

SOON: Final = 30 * 86400
"""Seconds before its end from which on a certificate is to be renewed."""
PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
SEQUENCE: Final = 0x30
UTC_TIME: Final = 0x17
"""With two digits of the year, those of 1950 to 2049 (RFC 5280, 4.1.2.5.1)."""

FIRST: Final = -62_135_596_800
LAST: Final = 253_402_300_799
"""Seconds of the years 1 to 9999."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """When a certificate is valid, in seconds since 1970."""

    begins: int
    ends: int


def validity(pem: bytes) -> Validity | None:
    """Read the first certificate of a PEM file; None where there is none that can be read."""
    found = PEM.search(pem)
    try:
        _, whole = next(_elements(binascii.a2b_base64(found[1] if found else b"")))
        _, signed = next(_elements(whole))
        # Of what is signed: algorithm, issuer, validity, subject, key.
        begins, ends = _elements([content for tag, content in _elements(signed) if tag == SEQUENCE][2])
        return Validity(begins=_seconds(*begins), ends=_seconds(*ends))
    except (ValueError, IndexError, StopIteration):
        return None


def trouble(found: Validity | None, now: float) -> tuple[str, str] | None:
    """Return severity and words when clients do not accept it now, or soon will not; None when all is well."""
    if found is None:
        return None
    if found.begins > now:
        return ERROR, f"the gateway's certificate is not valid before {day(found.begins)}"
    if found.ends <= now:
        return ERROR, f"the gateway's certificate ended on {day(found.ends)}: clients refuse it"
    if found.ends <= now + SOON:
        return WARNING, f"the gateway's certificate ends in {int((found.ends - now) // 86400)} days"
    return None


def day(seconds: int) -> str:
    """Write a day for people, in UTC; one that no calendar holds as the nearest that it does."""
    return f"{datetime.fromtimestamp(min(max(seconds, FIRST), LAST), UTC):%Y-%m-%d}"


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each DER element."""
    while data:
        tag, size, start = data[0], data[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[2:start])
        if start + size > len(data):
            raise ValueError
        yield tag, data[start : start + size]
        data = data[start + size :]


def _seconds(tag: int, content: bytes) -> int:
    text = content.decode("ascii")
    if tag == UTC_TIME:
        text = ("20" if text < "50" else "19") + text
    return int(datetime(*(int(part) for part in re.findall(r"^\d{4}|\d\d", text)), tzinfo=UTC).timestamp())  # type: ignore[misc, arg-type]
