"""Digests of files and models."""

import hashlib
from pathlib import Path

import pytest

from appliance.domain.weights import WeightFile
from appliance.errors import ArtifactError
from appliance.weights.digest import model_digest, sha256


def a_file(name: str, content: bytes = b"x") -> WeightFile:
    return WeightFile(name=name, path=f"/{name}", size=len(content), sha256=hashlib.sha256(content).hexdigest())


def test_a_file_with_progress(tmp_path: Path) -> None:
    content = b"0123456789" * 1_000_000
    path = tmp_path / "big"
    path.write_bytes(content)
    done: list[int] = []
    assert sha256(path, done.append) == hashlib.sha256(content).hexdigest()
    assert sum(done) == len(content)
    assert len(done) > 1


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256(str(tmp_path / "empty")) == hashlib.sha256().hexdigest()


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        sha256(tmp_path / "absent")


def test_the_order_and_place_of_files_do_not_count() -> None:
    a, b = a_file("a"), a_file("b", b"y")
    elsewhere = WeightFile(name="a", path="/elsewhere/a", size=1, sha256=a.sha256)
    assert model_digest((a, b)) == model_digest((b, elsewhere))
    assert model_digest((a, b)) == hashlib.sha256(f"a\0{a.sha256}\nb\0{b.sha256}\n".encode()).hexdigest()


def test_names_and_contents_count() -> None:
    digests = {model_digest((a_file(name, content),)) for name in ("a", "b") for content in (b"x", b"y")}
    assert len(digests) == 4


@pytest.mark.parametrize(
    "file", [WeightFile(name="a", path="/a", size=1), a_file("a\nb")], ids=["undigested", "newline"]
)
def test_what_has_no_digest_cannot_be_part_of_one(file: WeightFile) -> None:
    with pytest.raises(ValueError, match="cannot be part"):
        model_digest((file,))
