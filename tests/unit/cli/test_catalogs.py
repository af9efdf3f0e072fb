"""`catalog update`, `export` and `show`: one file replaces what comes along, for every verb of that prefix."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance import codec
from appliance.catalog import document
from appliance.cli.app import app
from appliance.errors import ApplianceError, ExitCode
from tests.unit.plan.machines import machine

OWN = document.packaged()
BGE = OWN.families[0]
NEW = replace(
    OWN,
    made="2027-02-03",
    releases=(replace(OWN.releases[0], version="0.99.0", driver="600"), *OWN.releases),
    families=(
        replace(
            BGE, family="novel", aliases=(), models=(replace(BGE.models[0], id="novel-1b", aliases=(), ollama=""),)
        ),
        *OWN.families,
    ),
)


class Place:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.host = home / "host.json"
        self.host.write_text(codec.dump_json(machine("H100", driver="570.0")))
        self.new = home / "new.yaml"
        self.new.write_text(document.yaml(NEW))
        self.kept = home / "prefix/state/catalog.json"

    def run(self, *words: str) -> dict[str, Any]:
        result = CliRunner().invoke(
            app, ["catalog", *words, "--json", "--prefix", str(self.home / "prefix")], standalone_mode=False
        )
        if result.exception:
            raise result.exception
        data: dict[str, Any] = json.loads(result.stdout)["data"]
        return data

    def refused(self, *words: str) -> ApplianceError:
        with pytest.raises(ApplianceError) as found:
            self.run(*words)
        return found.value


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_packaged_one_says_its_date(here: Place) -> None:
    told = here.run("show")
    assert (told["origin"], told["made"], told["path"]) == ("packaged", OWN.made, "")
    assert told["releases"] == len(OWN.releases)


def test_newer_engines_and_models_are_known_after_an_update(here: Place) -> None:
    done = here.run("update", str(here.new))
    assert done["changed"]
    assert done["difference"]["added"]["models"] == ["family novel", "novel-1b"]
    assert [name.split(" (")[0] for name in done["difference"]["added"]["engines"]] == ["vllm 0.99.0"]
    assert not any(done["difference"]["removed"].values())
    told = here.run("show")
    assert (told["origin"], told["made"], told["path"]) == ("updated", "2027-02-03", str(here.kept))
    rows = here.run("list", "--host", str(here.host))["releases"]
    assert (rows[0]["version"], rows[0]["why_not"]) == ("0.99.0", "needs driver >= 600, found 570.0")
    assert [one["id"] for one in here.run("search", "novel", "--host", str(here.host))["models"]] == ["novel-1b"]
    assert here.run("show", "novel-1b", "--host", str(here.host))["models"][0]["family"] == "novel"
    assert not here.run("update", str(here.new))["changed"]


def test_undo_goes_back_to_the_packaged_one(here: Place) -> None:
    here.run("update", str(here.new))
    done = here.run("update", "--undo")
    assert done["difference"]["removed"]["models"] == ["family novel", "novel-1b"]
    assert not here.kept.exists()
    assert here.run("show")["origin"] == "packaged"
    assert not here.run("update", "--undo")["changed"]


def test_a_dry_run_tells_and_keeps_nothing(here: Place) -> None:
    assert here.run("update", str(here.new), "--dry-run")["difference"]["added"]["models"] == [
        "family novel",
        "novel-1b",
    ]
    assert not here.kept.parent.exists()


def test_what_is_exported_can_be_kept(here: Place) -> None:
    here.run("update", str(here.new))
    path = here.home / "out.yaml"
    here.run("export", "-o", str(path))
    assert document.parse(path.read_text(), source="out.yaml") == NEW
    assert here.run("export")["document"] == path.read_text()
    assert not here.run("update", str(path))["changed"]


def test_one_that_is_wrong_changes_nothing(here: Place) -> None:
    here.run("update", str(here.new))
    before = here.kept.read_bytes()
    here.new.write_text(document.yaml(NEW).replace("driver: '600'", "driver: soon"))
    error = here.refused("update", str(here.new))
    assert error.code == ExitCode.SPEC
    assert "releases.0 (vllm 0.99.0 cuda13.0): driver: 'soon' is not a version" in error.message
    assert here.kept.read_bytes() == before


def test_one_that_cannot_be_read_any_more_is_told_by_every_reader_and_can_be_taken_back(here: Place) -> None:
    here.run("update", str(here.new))
    here.kept.write_bytes(here.kept.read_bytes()[:1000])
    for words in (("show",), ("list", "--host", str(here.host)), ("search", "--host", str(here.host)), ("export",)):
        error = here.refused(*words)
        assert "the updated catalog cannot be read" in error.message
        assert error.hint == "llm-appliance catalog update --undo"
    assert here.run("update", "--undo")["changed"]
    assert here.run("show")["origin"] == "packaged"


@pytest.mark.parametrize("words", [(), ("FILE", "--undo"), ("--undo", "--dry-run")])
def test_words_that_contradict_each_other_are_refused(here: Place, words: tuple[str, ...]) -> None:
    assert here.refused("update", *words).code == ExitCode.USAGE


def test_an_address_needs_its_digest(here: Place) -> None:
    error = here.refused("update", "https://example.org/catalog.yaml")
    assert "comes without a digest" in error.message
    assert "#sha256=HEX" in error.hint
