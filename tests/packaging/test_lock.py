"""installers/requirements.txt says the same as uv.lock: names, versions, digests, and nothing is missing."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT = "llm-appliance"
LOCK: list[dict[str, Any]] = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
PACKAGES = {package["name"]: package for package in LOCK}


def required() -> dict[str, tuple[str, frozenset[str]]]:
    """Return what the requirements file says: name -> version, digests."""
    text = (ROOT / "installers/requirements.txt").read_text().replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    found = {}
    for line in lines:
        match = re.match(r"([a-z0-9._-]+)==([^\s;]+)", line)
        assert match, line
        found[match[1]] = (match[2], frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", line)))
    return found


def closure() -> set[str]:
    """Return the names of all that the project and its build group need, whatever the platform."""
    project = PACKAGES[PROJECT]
    open_ends = [*project["dependencies"], *project["dev-dependencies"]["build"]]
    seen: set[tuple[str, str]] = set()
    while open_ends:
        edge = open_ends.pop()
        for extra in ("", *edge.get("extra", ())):
            if (edge["name"], extra) in seen:
                continue
            seen.add((edge["name"], extra))
            package = PACKAGES[edge["name"]]
            open_ends += package.get("optional-dependencies", {})[extra] if extra else package.get("dependencies", [])
    return {name for name, _ in seen}


def digests(package: dict[str, Any]) -> frozenset[str]:
    sources = [package["sdist"]] if "sdist" in package else []
    return frozenset(str(one["hash"]) for one in (*sources, *package.get("wheels", [])))


def test_each_name_is_locked_once() -> None:
    assert len(PACKAGES) == len(LOCK)


def test_nothing_is_missing_and_nothing_is_left_over() -> None:
    assert set(required()) == closure()


def test_versions_and_digests_are_those_of_the_lock() -> None:
    for name, (version, hashes) in required().items():
        assert version == PACKAGES[name]["version"], name
        assert hashes, name
        assert hashes == digests(PACKAGES[name]), name


def test_the_lock_is_for_these_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in project["project"]["dependencies"]}
    assert names == {one["name"] for one in PACKAGES[PROJECT]["dependencies"]}
    for group in ("build", "lint", "test"):
        lines = project["dependency-groups"][group]
        names = {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in lines}
        assert names == {one["name"] for one in PACKAGES[PROJECT]["dev-dependencies"][group]}
