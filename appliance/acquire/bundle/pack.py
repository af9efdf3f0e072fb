"""Directories as they go into a bundle: engines and the gateway, as they lie on this machine."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from appliance.acquire.bundle.archive import Archive
from appliance.acquire.bundle.fills import Concatenation
from appliance.bundle import tree as trees
from appliance.bundle.tree import LARGE, PYTHON, Node, Tree
from appliance.errors import ArtifactError
from appliance.system.download import file_digest

LEFT_OUT: Final = frozenset({"__pycache__"})
"""Directories that the programs make themselves, other bytes each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory that was looked through."""

    root: Path
    nodes: tuple[Node, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each payload that it becomes, the tree at the end roughly."""
        small = sum(node.size for node in self.nodes if node.size < LARGE)
        names = sum(len(node.path) + len(node.link) + 160 for node in self.nodes)
        return (*(node.size for node in self.nodes if node.size >= LARGE), *((small,) if small else ()), names)

    @property
    def unpacked(self) -> int:
        """Bytes on the disk, whole blocks."""
        return sum(-(-node.size // 4096) * 4096 for node in self.nodes)


def look(root: Path) -> Directory:
    """Look through a directory. Raises ArtifactError for what a bundle cannot hold."""
    return Directory(root=root, nodes=tuple(sorted(_walk(root), key=lambda node: node.path)))


def look_at(path: Path) -> Directory:
    """Look through an adapter's directory, or at a file as the only one of its directory. Raises ArtifactError."""
    if path.is_dir():
        return look(path)
    if not path.is_file() or not trees.inside(path.name):
        raise ArtifactError(f"{path}: no file or directory that a bundle can hold")
    return Directory(root=path.parent, nodes=(_node(path.resolve(), path.name),))


def digest(directory: Directory) -> str:
    """Return the SHA-256 (hex) of all that is in a directory, names and modes too."""
    whole = hashlib.sha256()
    for node in directory.nodes:
        inside = node.link or file_digest(directory.root / node.path)
        whole.update(f"{node.path}\0{inside}\0{node.executable}\0".encode())
    return whole.hexdigest()


def add(archive: Archive, directory: Directory) -> str:
    """Put a directory into a bundle and return its tree's digest."""
    root = directory.root
    placed = {
        node.path: archive.file("file", root / node.path, node.size) for node in directory.nodes if node.size >= LARGE
    }
    small = [node for node in directory.nodes if not node.link and node.path not in placed]
    total = sum(node.size for node in small)
    fill = Concatenation(root / node.path for node in small)
    pack = archive.stream("pack", total, fill, name=str(root)) if total else ""
    nodes = tuple(replace(node, digest=placed.get(node.path, "")) for node in directory.nodes)
    return archive.add("tree", trees.dump(Tree(pack=pack, nodes=nodes)))


def _walk(root: Path) -> Iterator[Node]:
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in LEFT_OUT)
        for name in sorted((*files, *(one for one in names if Path(directory, one).is_symlink()))):
            path = Path(directory, name)
            relative = path.relative_to(root).as_posix()
            if not trees.inside(relative):
                raise ArtifactError(f"{path}: a name that a bundle cannot hold")
            yield _node(path, relative)


def _node(path: Path, relative: str) -> Node:
    if path.is_symlink():
        link = os.readlink(path)  # noqa: PTH115
        if link.startswith("/"):
            if not relative.startswith("bin/python"):
                raise ArtifactError(f"{path}: a link to {link}, out of its directory")
            link = PYTHON
        return Node(path=relative, link=link)
    status = path.stat()
    if not path.is_file():
        raise ArtifactError(f"{path}: neither a file nor a link")
    return Node(path=relative, size=status.st_size, executable=bool(status.st_mode & 0o100))
