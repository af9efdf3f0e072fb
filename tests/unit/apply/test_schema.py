"""Documents of other versions: earlier ones are brought up to date and kept, newer ones are refused in words."""

from typing import Any

import pytest

from appliance import codec
from appliance.apply import schema
from appliance.apply.generation import Generations, written
from appliance.domain.changes import File, Record
from appliance.errors import SpecError
from tests.unit.recorded import RecordedMachine
from tests.unit.samples import LAYOUT, deployment

RECORD = Record(schema=1, generation=3, deployment=deployment(), files=written((File(path="/a", content=b""),)))
PATH = f"{LAYOUT.state}/record.json"


def on_disk(content: bytes) -> Generations:
    return Generations(LAYOUT, RecordedMachine(files={PATH: content}))


def of_today() -> bytes:
    return codec.dump_json(RECORD).encode()


def test_the_schema_is_told_by_the_first_words() -> None:
    assert schema.schema_of(of_today()) == schema.SCHEMA == 1
    assert schema.schema_of(b'{"schema": 12, "x": 1}') == 12
    assert schema.schema_of(b"{}") == schema.schema_of(b"garbage") == schema.SCHEMA


def test_a_record_of_a_newer_program_is_refused_with_the_way_out() -> None:
    with pytest.raises(SpecError, match="schema 2, written by a newer llm-appliance; this one reads up to 1") as caught:
        on_disk(of_today().replace(b'"schema": 1', b'"schema": 2', 1)).record()
    assert caught.value.hint == "bring llm-appliance up to date"


def test_an_earlier_record_is_read_and_kept_beside_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def second(data: dict[str, Any]) -> dict[str, Any]:
        return data | {"schema": 2, "generation": data["generation"] + 10}

    monkeypatch.setattr(schema, "SCHEMA", 2)
    monkeypatch.setattr(schema, "MIGRATIONS", {1: second})
    generations = on_disk(of_today())
    machine = generations._machine
    assert isinstance(machine, RecordedMachine)
    found = generations.record()
    assert found
    assert (found.schema, found.generation) == (2, 13)
    assert machine.effects == [], "reading writes nothing"
    generations.save(found)
    assert machine.files[f"{PATH}.schema-1"] == of_today()
    assert generations.record() == found
    generations.save(found)
    assert machine.written().count(f"{PATH}.schema-1") == 1, "and only once"


def test_a_schema_that_nobody_knows_the_way_from_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "SCHEMA", 3)
    with pytest.raises(SpecError, match="no way is known from schema 1 to 3"):
        on_disk(of_today()).record()


@pytest.mark.parametrize("content", [b"{", b'{"schema": 1', b"[]", b'{"schema": 0, "x"'])
def test_what_is_broken_is_said_to_be(content: bytes) -> None:
    with pytest.raises(SpecError, match=r"record\.json"):
        on_disk(content).record()
