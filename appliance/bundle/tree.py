"""A directory in a bundle: names and modes, large files as payloads of their own, small ones in one pack."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from appliance import codec
from appliance.errors import ArtifactError, SpecError

LARGE: Final = 1 << 20
"""Bytes from which a file is a payload of its own: what two engines, or two versions, have in common is there once."""
LARGEST: Final = 64 << 20
"""Bytes of a tree that is read at all: half a million files."""
PYTHON: Final = "@python"
"""Target of a link to the Python that the environment was made with: it becomes the target machine's."""
SEGMENT: Final = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One file or link; directories are those that files are in."""

    path: str
    """Relative, with slashes."""
    size: int = 0
    """Bytes."""
    executable: bool = False
    digest: str = ""
    """Payload that it is; "" = the next `size` bytes of the pack."""
    link: str = ""
    """Where it points to, relative to its own directory and inside the tree, or PYTHON; "" = it is a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A directory."""

    pack: str
    """Digest of the payload with its small files, one after the other; "" = there are none."""
    nodes: tuple[Node, ...]
    """Sorted by path."""


def load(content: bytes, *, source: str) -> Tree:
    """Read a tree. Raises ArtifactError when a name leaves it or is there twice."""
    try:
        tree = codec.load_json(Tree, content, source=source, limit=LARGEST)
    except SpecError as error:
        raise ArtifactError(error.message) from None
    for problem in problems(tree):
        raise ArtifactError(f"{source}: {problem}")
    return tree


def dump(tree: Tree) -> bytes:
    """Return the bytes of a tree."""
    return codec.dump_canonical(tree)


def problems(tree: Tree) -> Iterator[str]:
    """Yield what would write outside the directory, twice, or through a link."""
    seen: set[str] = set()
    for node in tree.nodes:
        if not inside(node.path):
            yield f"{node.path[:80]!r} leaves its directory"
        if node.path in seen:
            yield f"{node.path[:80]!r} is there twice"
        seen.add(node.path)
        if node.size < 0 or (node.link and (node.size or node.digest)):
            yield f"{node.path[:80]!r}: a size that cannot be"
        if node.link and node.link != PYTHON and not _stays(node):
            yield f"{node.path[:80]!r} links to {node.link[:80]!r}, outside its directory"
    links = {node.path for node in tree.nodes if node.link}
    files = seen
    for node in tree.nodes:
        above = node.path.split("/")
        for depth in range(1, len(above)):
            path = "/".join(above[:depth])
            if path in files:
                yield f"{node.path[:80]!r} lies in {path[:80]!r}, which is {'a link' if path in links else 'a file'}"
                return


def inside(path: str) -> bool:
    """Tell whether a relative path stays below where it starts, and is written in the one plain way."""
    return all(SEGMENT.fullmatch(part) and part not in (".", "..") for part in path.split("/"))


def _stays(node: Node) -> bool:
    depth = node.path.count("/")
    for part in node.link.split("/"):
        if part == "..":
            depth -= 1
        elif not SEGMENT.fullmatch(part) or part == ".":
            return False
        else:
            depth += 1
        if depth < 0:
            return False
    return True
