"""`nvidia-smi topo -m`: how the GPUs reach each other."""

import re
from typing import Final

ARGUMENTS: Final = ("topo", "-m")
_GPU: Final = re.compile(r"GPU([0-9]{1,3})")
_LINK: Final = re.compile(r"X|NV[0-9]+|C2C|PIX|PXB|PSB|PHB|NODE|SYS|SOC")
"""The legend below the matrix; SOC is what old drivers call SYS."""
_STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")
"""The header is underlined even where nobody sees it."""


def parse(text: str) -> dict[int, tuple[str, ...]]:
    """Return the links of each GPU to every GPU by index, "" where nothing is told.

    The columns of GPUs come first, those of network cards and affinities follow and are left aside.
    """
    columns: list[int] = []
    links: dict[int, tuple[str, ...]] = {}
    for line in _STYLE.sub("", text).splitlines():
        words = line.split()
        heads = [_GPU.fullmatch(word) for word in words]
        if len([head for head in heads[:2] if head]) == 2 or (heads and heads[0] and line[0].isspace()):
            columns = [int(head[1]) for head in heads if head]
        elif heads and heads[0] and columns:
            links[int(heads[0][1])] = _row(columns, words[1:])
    return links


def _row(columns: list[int], words: list[str]) -> tuple[str, ...]:
    told = {column: word for column, word in zip(columns, words, strict=False) if _LINK.fullmatch(word)}
    return tuple(told.get(index, "") for index in range(max(columns) + 1))
