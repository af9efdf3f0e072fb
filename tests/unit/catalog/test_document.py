"""The whole catalog as one document: out and in again unchanged, checked as a whole, kept in place of the packaged one."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import codec
from appliance.catalog import document, load, models
from appliance.catalog.models import shelf
from appliance.catalog.models.names import find, names
from appliance.errors import ExitCode, SpecError

OWN = document.packaged()
TEXT = document.yaml(OWN)


@pytest.fixture(scope="module")
def data() -> Any:
    return yaml.safe_load(TEXT)


def keep(state: Path, kept: document.Document) -> str:
    document.place(str(state)).write_text(codec.dump_json(kept))
    return str(state)


def test_what_is_written_is_read_back_and_written_the_same_again() -> None:
    again = document.parse(TEXT, source="catalog.yaml")
    assert again == OWN
    assert document.yaml(again) == TEXT
    assert again.models == shelf()
    assert again.engines == load()
    assert document.parse(codec.dump_json(again), source="catalog.json") == OWN


def test_every_reader_takes_the_kept_one(tmp_path: Path) -> None:
    family = replace(OWN.families[0], family="novel", models=(replace(OWN.families[0].models[0], id="novel-9b"),))
    state = keep(tmp_path, replace(OWN, releases=OWN.releases[:1], families=(family,)))
    assert load(state=state).releases == OWN.releases[:1]
    assert names(models.load(state=state))[0] == "novel"
    found = find("novel-9b", models.load(state=state))
    assert found
    assert found.entries[0].family == "novel"
    assert load(state=str(tmp_path / "other")) == load()
    assert find("novel-9b") is None


def test_a_file_with_engines_only_leaves_the_models(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "engines.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in data.items() if key != "families"}))
    assert models.load(str(path)) == shelf()
    assert load(str(path)) == load()


def test_a_kept_one_that_cannot_be_read_says_what_helps(tmp_path: Path) -> None:
    state = keep(tmp_path, OWN)
    document.place(state).write_text('{"schema": 1, "made": ')
    for read in (load, models.load):
        with pytest.raises(
            SpecError, match=r"the updated catalog cannot be read: .*catalog\.json: Invalid JSON"
        ) as found:
            read(state=state)
        assert found.value.hint == "llm-appliance catalog update --undo"


def wrong(data: Any, path: str, value: object) -> str:
    """Return the document with one value changed, `families.0.family` style."""
    copied = yaml.safe_load(TEXT)
    *way, last = path.split(".")
    place = copied
    for key in way:
        place = place[int(key)] if key.isdigit() else place[key]
    place[int(last) if last.isdigit() else last] = value
    return yaml.safe_dump(copied)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("schema", 2, "schema: 2; this version reads schema 1"),
        ("made", "last week", "made: 'last week' is no date"),
        ("novelty", 1, "novelty: unknown key"),
        ("releases.0.driver", "new", "releases.0 (vllm 0.33.0 cuda13.0): driver: 'new' is not a version"),
        ("releases.0.artifacts.0.kind", "snap", "artifacts: kind 'snap' is none of"),
        (
            "families.1.models.0.kind",
            "painter",
            "families.1 (deepseek-r1): models.0 (deepseek-r1): kind: 'painter' is none of",
        ),
        ("families.0.models.0.variants.0.hf", "nothing", "variants.0: 'nothing' is no OWNER/REPOSITORY"),
        ("families.0.models.0.id", "qwen3-8b", "families: qwen3-8b names both qwen3-8b and qwen3-8b"),
        ("families.0.models.0.family", "bge", "family: is said at the top of the file"),
    ],
)
def test_the_first_thing_that_is_wrong_is_told_with_its_place(data: Any, path: str, value: object, said: str) -> None:
    with pytest.raises(SpecError, match=re.escape(said)) as found:
        document.parse(wrong(data, path, value), source="new.yaml")
    assert found.value.message.startswith("new.yaml: ")
    assert found.value.code == ExitCode.SPEC
    assert ("up to date" in found.value.hint) is (path == "schema")


def test_what_is_new_gone_and_different_is_named() -> None:
    bge, *rest = OWN.families
    new = replace(
        OWN,
        releases=(replace(OWN.releases[0], version="0.99.0"), *OWN.releases[1:]),
        families=(replace(bge, models=(replace(bge.models[0], context=1), *bge.models[1:])), *rest[1:]),
        gateway_packages=("nginx",),
    )
    found = document.difference(OWN, new)
    assert [name.split(" (")[0] for name in found.added["engines"]] == ["vllm 0.99.0"]
    assert [name.split(" (")[0] for name in found.removed["engines"]] == ["vllm 0.33.0"]
    assert found.changed == {"engines": (), "models": (bge.models[0].id,), "packages": ()}
    assert found.removed["models"] == (f"family {rest[0].family}", *(one.id for one in rest[0].models))
    assert found.removed["packages"] == ("libnginx-mod-http-lua (gateway)", "lua-cjson (gateway)")
    assert document.difference(OWN, OWN) == document.Difference(
        added=dict.fromkeys(found.added, ()),
        removed=dict.fromkeys(found.added, ()),
        changed=dict.fromkeys(found.added, ()),
    )
