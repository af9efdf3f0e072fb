"""What an earlier version of the program wrote down is still read: an upgrade that could not would lose what runs."""

from dataclasses import replace
from pathlib import Path

from appliance import codec, specfile
from appliance.domain.changes import Record
from appliance.plan import plan
from appliance.render.pages import render
from tests.unit.samples import CATALOG, HOST, LAYOUT, PYTHON

EARLIER = Path(__file__).with_name("earlier_record.json")


def record() -> Record:
    return codec.load_json(Record, EARLIER.read_bytes(), source=EARLIER.name)


def test_a_record_of_an_earlier_version_is_read() -> None:
    found = record()
    assert [service.name for service in found.deployment.services] == ["smoke"]
    assert specfile.check(found.deployment.spec) == found.deployment.spec


def test_what_it_says_is_rendered() -> None:
    assert render(record().deployment).files


def test_a_plan_goes_on_from_it_and_keeps_what_runs() -> None:
    earlier = record().deployment
    then = plan(earlier.spec, earlier.models, HOST, LAYOUT, CATALOG, python=PYTHON, before=earlier)
    (before,), (after,) = earlier.services, then.services
    assert after == replace(before, home=after.home)
    assert after.home == f"{LAYOUT.cache}/smoke"
