"""Images of this machine's own Docker: into a bundle, away from Docker, and back from the bundle, with and without base."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.acquire.bundle import images
from appliance.acquire.bundle.images import Box
from appliance.bundle.image import chains, known
from appliance.domain.release import Artifact
from appliance.errors import ArtifactError
from appliance.system.docker import Daemon
from tests.integration.lab import Lab
from tests.unit.bundle import small
from tests.unit.bundle.test_images import QUIET, sha, write

BASE, TOP = (f"bundle-test-{name}-{os.getpid()}:1" for name in ("base", "top"))


def docker(*words: str, data: bytes = b"") -> str:
    done = subprocess.run(("docker", *words), input=data, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, f"docker {' '.join(words)}\n{done.stderr.decode()}"
    return done.stdout.decode().strip()


def drop(*refs: str) -> None:
    subprocess.run(("docker", "rmi", "--force", *refs), capture_output=True, timeout=120, check=False)


@pytest.fixture
def boxes(lab: Lab, tmp_path: Path) -> Iterator[tuple[Box, ...]]:
    """Two images, one on top of the other, of a few hundred kilobytes that no other image here has."""
    context = tmp_path / "context"
    context.mkdir()
    for number, name in enumerate(("below", "above")):
        (context / name).write_bytes(os.urandom(300_000 + number))
    tarball = subprocess.run(("tar", "-C", str(context), "-c", "below"), capture_output=True, check=True).stdout
    docker("import", "-", BASE, data=tarball)
    (context / "Dockerfile").write_text(f"FROM {BASE}\nCOPY above /above\nENV WHO=above\n")
    docker("build", "--quiet", "--tag", TOP, str(context))
    found = tuple(
        images.look(Artifact(name=name, kind="image", ref=ref, digest=sha(ref.encode())), "1")
        for name, ref in (("gateway", BASE), ("engine", TOP))
    )
    yield found
    drop(TOP, BASE)


def carried(boxes: tuple[Box, ...], target: Path, base: frozenset[str] = frozenset()) -> Path:
    with Daemon().saved(tuple(one.artifact.ref for one in boxes), "the images cannot be read") as content:
        return write(target, content, boxes, base)


def test_an_image_comes_back_as_it_was(boxes: tuple[Box, ...], tmp_path: Path) -> None:
    below, above = boxes
    assert len(above.image.layers) == 2
    bundle = carried(boxes, tmp_path / "site.llmb")
    small.check(bundle)
    with small.opened(bundle) as reader:
        assert [one.image for one in reader.index.components] == [True, True]
        assert len([one for one in reader.index.payloads if one.kind == "image"]) == 4  # a layer is there once
        drop(TOP, BASE)
        for one, part in zip(boxes, reader.index.components, strict=True):
            assert Daemon().image(one.artifact.ref) is None
            images.load(reader, part, one.artifact.ref, QUIET)
            assert Daemon().image(one.artifact.ref) == replace(one.image, tags=(one.artifact.ref,))


def test_without_the_layers_that_docker_has_it_is_loaded_and_without_docker_having_them_it_is_not(
    boxes: tuple[Box, ...], tmp_path: Path
) -> None:
    below, above = boxes
    left = images.left_out((above,), known([below.image.layers]))
    assert left == frozenset(below.image.layers)
    bundle = carried((above,), tmp_path / "next.llmb", left)
    with small.opened(bundle) as reader:
        (part,) = reader.index.components
        drop(TOP)
        assert images.absent((part,), left) == frozenset()
        images.load(reader, part, TOP, QUIET)
        assert Daemon().image(TOP) == above.image
        drop(TOP, BASE)
        assert not set(chains(above.image.layers)) & known(Daemon().stacks())
        assert images.absent((part,), left) == left
        with pytest.raises(ArtifactError, match="is not in this bundle"):
            images.load(reader, part, TOP, QUIET)
        assert Daemon().image(TOP) is None


def test_docker_has_nothing_of_a_damaged_one(boxes: tuple[Box, ...], tmp_path: Path) -> None:
    below, above = boxes
    bundle = carried(boxes, tmp_path / "site.llmb")
    drop(TOP, BASE)
    with small.opened(bundle) as reader:
        payload = reader.payload(above.image.layers[1])
        with bundle.open("r+b") as stream:
            stream.seek(payload.offset + payload.size - 3_000)
            stream.write(b"x")
        with pytest.raises(ArtifactError, match=r"layer-2\.tar of engine .* is damaged in bytes"):
            images.load(reader, reader.index.components[1], TOP, QUIET)
    assert Daemon().image(TOP) is None
    assert not set(chains(above.image.layers)) & known(Daemon().stacks())
