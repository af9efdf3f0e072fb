"""Small bundles for tests: a plan, a directory, two files of weights, signed, in one file, in parts, or as a directory."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from appliance import report
from appliance.acquire.bundle import Archive, Reader, open_bundle, pack, slot
from appliance.bundle import cargo, keys
from appliance.bundle.index import CHUNK, SCHEMA, Component, Index, Target
from appliance.bundle.keys import Key
from appliance.domain.deployment import Model
from appliance.domain.release import Artifact
from appliance.domain.spec import ModelSpec
from appliance.domain.weights import WeightFile, Weights
from appliance.weights.digest import model_digest

SECRET, PUBLIC, KEY = keys.generate()
"""Whom the tests trust."""
OTHER_SECRET, _, OTHER = keys.generate()
TARGET = Target(os="debian", os_version="12", arch="x86_64", glibc="2.36", python="3.11")
ENGINE = Artifact(name="engine", kind="build", ref="engine==1", digest="e" * 64)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a small bundle is made of."""

    name: str = "site"
    serial: int = 0
    weights: tuple[int, ...] = (70_001, 300_000)
    """Bytes of each file."""
    split: int = 0
    secret: bytes = SECRET
    """b"" = it is not signed."""
    base: frozenset[str] = frozenset()
    target: Target = TARGET
    seed: int = 1


def content(seed: int, size: int) -> bytes:
    """Bytes that look random and are the same each time."""
    found = b"".join(hashlib.sha256(f"{seed} {n}".encode()).digest() for n in range(min(size, 1 << 16) // 32 + 1))
    return (found * (size // len(found) + 1))[:size]


def tree(home: Path) -> Path:
    """A directory such as an engine's: a program, a large library, small files, links."""
    root = home / "engine"
    (root / "bin").mkdir(parents=True, exist_ok=True)
    (root / "lib/empty").mkdir(parents=True, exist_ok=True)
    (root / "bin/engine").write_bytes(b"#!/bin/sh\necho engine\n")
    (root / "bin/engine").chmod(0o755)
    (root / "lib/large.so").write_bytes(content(7, (1 << 20) + 5))
    (root / "lib/nothing").write_bytes(b"")
    (root / "lib/notes.txt").write_bytes(content(8, 3_000))
    for link, target in (("lib/large.so.1", "large.so"), ("bin/self", "../bin/engine")):
        if not (root / link).is_symlink():
            (root / link).symlink_to(target)
    return root


def model(home: Path, recipe: Recipe) -> Model:
    """A model of the recipe's files, which are written."""
    files = []
    for number, size in enumerate(recipe.weights):
        path = home / f"weights-{recipe.seed}-{number}.gguf"
        path.write_bytes(content(recipe.seed * 100 + number, size))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(WeightFile(name=f"part-{number}.gguf", path=f"/srv/{path.name}", size=size, sha256=digest))
    weights = Weights(format="gguf", architecture="qwen3", files=tuple(files))
    return Model(name="tiny", source="/srv/tiny.gguf", weights=weights, digest=model_digest(tuple(files)))


def write(target: Path, recipe: Recipe = Recipe(), *, until: int = 1 << 62) -> tuple[Path, ...]:
    """Write a bundle and return its files; a kill is played after `until` payloads."""
    target.parent.mkdir(parents=True, exist_ok=True)
    home = target.parent / ".inputs"
    home.mkdir(exist_ok=True)
    return write_of(target, recipe, home, model(home, recipe), until=until)


def write_of(target: Path, recipe: Recipe, home: Path, tiny: Model, *, until: int = 1 << 62) -> tuple[Path, ...]:
    """Write a bundle of an engine and the model whose files are in `home`."""
    directory = pack.look(tree(home))
    plan = cargo.dump(
        cargo.Cargo(specs=(ModelSpec(name="tiny", source=tiny.source),), models=(tiny,), artifacts=(ENGINE,))
    )
    sizes = (len(plan), *directory.sizes, *(file.size for file in tiny.weights.files))
    bar = report.Plain(open(os.devnull, "w")).bar("", 0)
    room = slot(sizes, 3, CHUNK)
    with Archive(
        target, slot=room, mark=f"{recipe}", split=recipe.split, chunk=CHUNK, base=recipe.base, bar=bar
    ) as archive:
        _stop_after(archive, until)
        digest = archive.add("plan", plan)
        parts = [Component(kind="document", name="plan", key=digest, payloads=(digest,), files=("plan.json",))]
        engine = pack.add(archive, directory)
        parts.append(
            Component(kind="engine", name="engine", key=ENGINE.digest, payloads=(engine,), unpacked=directory.unpacked)
        )
        found = tuple(
            archive.file("weights", home / Path(file.path).name, file.size, known=file.sha256)
            for file in tiny.weights.files
        )
        names = tuple(file.name for file in tiny.weights.files)
        parts.append(
            Component(
                kind="model", name="tiny", key=tiny.digest, payloads=found, files=names, unpacked=tiny.weights.size
            )
        )

        def index(payloads: Any, left: Any, size: int) -> Index:
            return Index(
                schema=SCHEMA, name=recipe.name, serial=recipe.serial, appliance="0.1.0", target=recipe.target, size=size,
                payloads=payloads, components=tuple(parts), base=left,
            )  # fmt: skip

        def sign(text: bytes) -> bytes:
            return keys.sign(text, recipe.secret, "", source="test.key")[0]

        archive.finish(index, sign if recipe.secret else None)
        return archive.files


class Killed(BaseException):
    """Ends a run as a kill does: nothing is cleaned up."""


def _stop_after(archive: Archive, payloads: int) -> None:
    stream = archive.stream

    def counted(*args: Any, **words: Any) -> str:
        nonlocal payloads
        if payloads <= 0:
            raise Killed
        payloads -= 1
        digest = stream(*args, **words)
        archive.settle()
        return digest

    archive.stream = counted  # type: ignore[method-assign]


def opened(path: Path, *places: Path, trusted: tuple[Key, ...] = (KEY,), allow_unsigned: bool = False) -> Reader:
    return open_bundle(path, places=places, trusted=trusted, allow_unsigned=allow_unsigned)


def check(path: Path, *places: Path, allow_unsigned: bool = False) -> int:
    """Verify a bundle whole."""
    with opened(path, *places, allow_unsigned=allow_unsigned) as reader:
        return reader.verify(report.Plain(open(os.devnull, "w")))


__all__ = [
    "KEY",
    "OTHER",
    "OTHER_SECRET",
    "PUBLIC",
    "SECRET",
    "Recipe",
    "check",
    "content",
    "opened",
    "replace",
    "write",
]
