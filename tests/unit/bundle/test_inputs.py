"""What lies under a bundle's name and is none: each is refused in words, whatever it begins with."""

import gzip
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import ArtifactError
from tests.unit.bundle import small


def tarred(*names: str, content: bytes = b"{}") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("bundle.json", "{}")
    return stream.getvalue()


def behind(whole: bytes) -> bytes:
    """Another file first, then all of a bundle."""
    return tarred("first.txt")[:1024] + whole


OTHER: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"not found\n",
    "zeros": lambda _: bytes(10240),
    "page": lambda _: b"<!DOCTYPE html><html>Sign in to download</html>" * 50,
    "gzip": gzip.compress,
    "zip": lambda _: zipped(),
    "tar without an index": lambda _: tarred("oci-layout", "index.json"),
    "tar with an empty index": lambda _: tarred("bundle.json", content=b""),
    "index behind another file": behind,
    "index of nothing": lambda _: tarred("bundle.json"),
    "index nested without end": lambda _: tarred("bundle.json", content=b"[" * 100_000),
    "pickle": lambda _: b"\x80\x02}q\x00." * 500,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    (path,) = small.write(tmp_path_factory.mktemp("whole") / "site.llmb")
    return path.read_bytes()


@pytest.mark.parametrize("kind", OTHER)
def test_something_else_in_the_place_of_a_bundle_is_refused(whole: bytes, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "site.llmb"
    path.write_bytes(OTHER[kind](whole))
    with pytest.raises(ArtifactError) as caught:
        small.check(path)
    assert "site.llmb" in caught.value.message
    assert sorted(tmp_path.iterdir()) == [path], "nothing was written"
    shutil.rmtree(tmp_path)
