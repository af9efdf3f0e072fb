"""update-model: what is newer is shown file by file, only what differs is fetched, nothing newer changes nothing."""

from pathlib import Path
from typing import Any

import pytest

from tests.hub.conftest import GGUF
from tests.hub.server import Hub
from tests.hub.test_verbs import COMMIT, run

__all__ = ["run"]
NEXT = "beef" * 10


@pytest.fixture
def served(run: Any, hub: Hub, tmp_path: Path) -> Path:
    """A prefix that is configured to serve `m` from a commit, whose files are in the store."""
    etc = tmp_path / "prefix/etc/models.d"
    etc.mkdir(parents=True)
    run("pull", "hf:small/safe")
    (etc / "m.yaml").write_text(f"source: hf:small/safe@{COMMIT}\nengine: transformers\n")
    return etc / "m.yaml"


def other(hub: Hub, tmp_path: Path, name: str, repository: str = "small/safe") -> Path:
    """Put other bytes under a name of a repository, in a newer commit."""
    repo = hub.repositories[repository]
    path = tmp_path / f"other-{name}"
    path.write_bytes(repo.files[name].read_bytes().replace(b'"do_sample": false', b'"do_sample": true') + b"\n")
    repo.files = {**repo.files, name: path}
    repo.commit = NEXT
    return path


def test_what_differs_is_shown_and_nothing_is_changed_by_a_dry_run(
    run: Any, hub: Hub, served: Path, tmp_path: Path
) -> None:
    path = other(hub, tmp_path, "generation_config.json")
    before = served.read_bytes()
    done = run("update-model", "m", "--dry-run")["data"]
    (move,) = done["moves"]
    assert (move["old"], move["new"]) == (f"hf:small/safe@{COMMIT}", f"hf:small/safe@{NEXT}")
    assert (move["added"], move["removed"], move["changed"]) == ([], [], ["generation_config.json"])
    assert move["size"] == path.stat().st_size
    assert f"+source: hf:small/safe@{NEXT}" in done["diff"]
    assert served.read_bytes() == before
    assert done["deployment"]["models"][0]["source"] == f"hf:small/safe@{NEXT}"


def test_only_what_differs_is_fetched(run: Any, hub: Hub, served: Path, tmp_path: Path) -> None:
    other(hub, tmp_path, "generation_config.json")
    hub.served.clear()
    run("pull", "hf:small/safe")
    header = 256 << 10
    assert hub.served["model.safetensors"] <= header
    store = tmp_path / "prefix/state/store/models"
    first, second = (one / "model.safetensors" for one in store.iterdir())
    assert first.samefile(second)
    assert len({(one / "generation_config.json").read_bytes() for one in store.iterdir()}) == 2
    assert not (store.parent / "downloads").exists()


def test_nothing_newer_changes_nothing(run: Any, hub: Hub, served: Path) -> None:
    done = run("update-model", "m")["data"]
    assert (done["changed"], done["moves"][0]["differs"]) == (0, False)
    hub.repositories["small/safe"].commit = NEXT  # only what no engine reads is other, if anything
    done = run("update-model", "--all")["data"]
    assert (done["changed"], done["moves"][0]["new"]) == (0, f"hf:small/safe@{NEXT}")
    assert COMMIT in served.read_text()


def test_a_quantisation_stays_what_it_is(run: Any, hub: Hub, served: Path, tmp_path: Path) -> None:
    files = {f"M-{name}.gguf": GGUF for name in ("Q4_K_M", "Q8_0")}
    hub.add("small/many", files)
    run("pull", "hf:small/many:Q4_K_M")
    served.with_name("g.yaml").write_text(f"source: hf:small/many@{COMMIT}/M-Q4_K_M.gguf\n")
    other(hub, tmp_path, "M-Q4_K_M.gguf", "small/many")
    moves = {move["name"]: move for move in run("update-model", "--all", "--dry-run")["data"]["moves"]}
    assert moves["g"]["new"] == f"hf:small/many@{NEXT}/M-Q4_K_M.gguf"
    assert moves["g"]["changed"] == ["M-Q4_K_M.gguf"]
    assert not moves["m"]["differs"]


def test_a_tag_of_ollama_moves_by_its_digest(run: Any, hub: Hub, served: Path, tmp_path: Path) -> None:
    served.parent.with_name("appliance.yaml").write_text(f"hub: {{ollama: '{hub.url}'}}\n")
    first = hub.push("library/small:8b", {"model": GGUF, "system": b"Be brief."})
    run("pull", "ollama:small:8b")
    served.with_name("o.yaml").write_text(f"source: ollama:small:8b@sha256:{first}\n")
    second = hub.push("library/small:8b", {"model": GGUF, "system": b"Be long.", "template": b"{{ .Prompt }}"})
    (move,) = run("update-model", "o", "--dry-run")["data"]["moves"]
    assert move["new"] == f"ollama:small:8b@sha256:{second}"
    assert (move["added"], move["changed"]) == (["ollama.template"], ["ollama.system"])


def test_another_revision(run: Any, hub: Hub, served: Path, tmp_path: Path) -> None:
    other(hub, tmp_path, "generation_config.json")
    (move,) = run("update-model", "m", "--revision", NEXT, "--dry-run")["data"]["moves"]
    assert move["new"].endswith(NEXT)
    said = run("update-model", "m", "--revision", "v9", code=5)["errors"][0]["message"]
    assert "knows no revision 'v9'" in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "which model?"),
        (("m", "--all"), 2, "exclude each other"),
        (("--all", "--revision", "v1"), 2, "for one model"),
        (("mm",), 3, "no model is called 'mm'"),
        (("local",), 2, "local cannot be moved: it comes from no hub"),
        (("web",), 2, "its digest is in its source"),
    ],
)
def test_what_cannot_be_moved_is_refused(run: Any, served: Path, words: tuple[str, ...], code: int, said: str) -> None:
    served.with_name("local.yaml").write_text(f"source: {GGUF}\n")
    served.with_name("web.yaml").write_text(f"source: https://example.org/a.gguf#sha256={'0' * 64}\n")
    assert said in run("update-model", *words, code=code)["errors"][0]["message"]
