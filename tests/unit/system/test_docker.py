"""What is told to Docker and heard from it, without a daemon: names, progress of layers, a build's context."""

import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from appliance.errors import ArtifactError
from appliance.system.docker import _hint, _Layers, _pack, _refuse, split


@pytest.mark.parametrize(
    ("ref", "parts"),
    [
        ("debian", ("debian", "latest")),
        ("debian:12-slim", ("debian", "12-slim")),
        ("registry.example:5000/a/b", ("registry.example:5000/a/b", "latest")),
        ("registry.example:5000/a/b:c", ("registry.example:5000/a/b", "c")),
        ("a/b:c@sha256:00", ("a/b", "sha256:00")),
    ],
)
def test_names(ref: str, parts: tuple[str, str]) -> None:
    assert split(ref) == parts


def test_bytes_of_all_layers_add_up_and_none_is_counted_twice() -> None:
    heard: list[tuple[int, int]] = []
    layers = _Layers(lambda more, total: heard.append((more, total)))
    for layer, current, total in (("a", 10, 100), ("b", 5, 50), ("a", 100, 100), ("b", 50, 50), ("a", 100, 100)):
        layers.hear({"status": "Downloading", "id": layer, "progressDetail": {"current": current, "total": total}})
    layers.hear({"status": "Extracting", "id": "a", "progressDetail": {"current": 7, "total": 100}})
    layers.hear({"status": "Pull complete", "id": "a"})
    assert sum(more for more, _ in heard) == 150
    assert heard[-1][1] == 150


def test_the_same_files_give_the_same_context_with_what_is_put_beside_them(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "Dockerfile").write_text("FROM x\n")
    built = tmp_path / "llama-server"
    built.write_text("program")
    built.chmod(0o700)
    streams = []
    for _ in range(2):
        stream = BytesIO()
        _pack(stream, recipe, {"prebuilt/llama-server": built})
        streams.append(stream.getvalue())
        built.touch()
    assert streams[0] == streams[1]
    with tarfile.open(fileobj=BytesIO(streams[0])) as archive:
        assert {(one.name, one.mode, one.uid) for one in archive} == {
            ("Dockerfile", 0o644, 0),
            ("prebuilt/llama-server", 0o755, 0),
        }


@pytest.mark.parametrize(
    ("error", "word"),
    [
        ("pull access denied for x", "docker login"),
        ("manifest unknown", "name and tag"),
        ("dial tcp: lookup registry-1.docker.io: no such host", "images.registry"),
        ("something else", ""),
    ],
)
def test_each_failure_has_its_way_out(error: str, word: str) -> None:
    assert word in _hint(error)
    assert bool(_hint(error)) == bool(word)


@pytest.mark.parametrize(
    "event",
    [
        {"error": "no space left on device", "errorDetail": {"message": "no space left on device"}},
        {"cause": "no space left on device", "message": "no space left on device", "response": 500},
    ],
    ids=["docker", "podman"],
)
def test_what_a_daemon_could_not_do_is_told_in_its_own_words(event: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="it cannot be loaded: no space left on device"):
        _refuse(event, "it cannot be loaded")
    _refuse({"stream": "Loaded image: a:1"}, "it cannot be loaded")
