"""Versions as numbers that can be compared."""

import re
from functools import lru_cache


@lru_cache(maxsize=1024)  # a plan compares the same few versions hundreds of times
def version(text: str) -> tuple[int, ...]:
    """Return (550, 54, 15) for `550.54.15`, (0, 9, 2) for `0.9.2.post1`, () for what does not begin with a number."""
    found = re.match(r"\d+(?:\.\d+)*", text, re.ASCII)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
