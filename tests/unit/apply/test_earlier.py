"""What an earlier version of the program wrote down is still read: an upgrade that could not would lose what runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from appliance import codec, specfile
from appliance.apply.generation import written
from appliance.domain.changes import File, Record
from appliance.errors import SpecError
from appliance.plan import plan
from appliance.render.pages import render
from tests.unit.samples import CATALOG, GPU_CATALOG, HOST, LAYOUT, PYTHON, deployment, gpu, gpu_host, item

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


def test_what_we_wrote_is_read_the_same_by_the_quick_way() -> None:
    """Without the reader that takes longer to make than to use; that one still says what is wrong."""
    content = EARLIER.read_bytes()
    assert codec.load_own(Record, content, source="x") == record()
    wide = Record(
        schema=1, generation=2, deployment=deployment(item("a", gpus=2), item("b", replicas=2), host=gpu_host(*map(gpu, range(4))), catalog=GPU_CATALOG),
        files=written((File(path="/a", content=b"x"),)), users=("u",), confirmed=True, fallback=1,
    )  # fmt: skip
    again = codec.load_own(Record, codec.dump_json(wide).encode(), source="x")
    assert again == wide == codec.load_json(Record, codec.dump_json(wide), source="x")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"generation": ', b'"generation": "x', "record.json: "),
        (b'"schema": 1', b'"schema": 1, "odd": 1', "odd: unknown key"),
        (b'"users": [', b'"users": [1,', "users"),
        (b'"confirmed"', b'"konfirmed"', "konfirmed"),
    ],
)
def test_what_is_wrong_in_it_is_said_all_the_same(old: bytes, new: bytes, said: str) -> None:
    content = codec.dump_json(record()).encode()
    assert old in content
    with pytest.raises(SpecError, match=said):
        codec.load_own(Record, content.replace(old, new, 1), source="record.json")
