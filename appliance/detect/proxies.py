"""Proxies that the environment names."""

import re
from collections.abc import Mapping
from typing import Final

NAMES: Final = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
"""Programs differ in which case they read, so both are told."""


def without_password(value: str) -> str:
    """Take `user:password@` out of an address; a password may hold `/` and `@` itself."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", lambda found: found[1] or "", value, flags=re.DOTALL)


def proxies(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return (name, value) of the proxy variables that are set."""
    names = (form for name in NAMES for form in (name, name.upper()))
    # An environment may hold bytes that are no text, which JSON cannot.
    values = ((name, environ.get(name, "").encode(errors="replace").decode()) for name in names)
    return tuple((name, without_password(value)) for name, value in values if value)
