"""README's pictures: there, small, and of the page as it is shipped."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "tests" / "pictures"
MOST = 600_000
"""Bytes of all of them."""


def test_every_picture_that_readme_shows_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    shown = {*re.findall(r'src="([^"]+)"', text), *re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)}
    assert shown
    assert [name for name in shown if not (ROOT / name).is_file()] == []
    made = {f"tests/pictures/{path.name}" for path in PICTURES.iterdir() if path.suffix in {".png", ".svg"}}
    assert made - shown == set()


def test_they_are_small_and_ask_nobody() -> None:
    files = [path for path in PICTURES.iterdir() if path.suffix in {".png", ".svg"}]
    assert sum(path.stat().st_size for path in files) < MOST
    for path in files:
        if path.suffix == ".svg":
            text = path.read_text()
            assert not re.search(r"url\(\s*[\"']?http|href=|<script|<image", text), path
