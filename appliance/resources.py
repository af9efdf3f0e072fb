"""Finds templates/, images/, installers/ and the smoke model, in a checkout and in an installed wheel."""

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parent
_INSTALLED: Final = _PACKAGE / "_data"
SMOKE: Final = _PACKAGE / "smoke"
"""Directory of the built-in model: smoke.yaml, smoke.gguf, safetensors/."""


def data(name: str) -> Path:
    """Return the path of a top-level data directory or file (`templates/nginx/nginx.conf.j2`)."""
    base = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent
    return base / name
