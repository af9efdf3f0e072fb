"""Files of ours that somebody edited: which they are, and how they differ from what was written."""

from appliance.apply.edits import edits
from appliance.apply.generation import Generations, written
from appliance.domain.changes import File, Record
from appliance.render.pages import render
from tests.unit.recorded import RecordedMachine
from tests.unit.samples import LAYOUT, deployment

UNIT = File(path="/etc/systemd/system/a.service", content=b"[Service]\nRestart=always\n")
SPEC = File(path="/etc/llm-appliance/models.d/a.yaml", content=b"source: /a.gguf\n")
RECORD = Record(schema=1, generation=3, deployment=deployment(), files=written((UNIT, SPEC)), confirmed=True)
HOME = f"{LAYOUT.state}/generations/3/root"


def found(**files: bytes) -> dict[str, tuple[bool, bool, str]]:
    machine = RecordedMachine(
        files={f"{HOME}{one.path}": one.content for one in (UNIT, SPEC)}
        | {one.path: files[name] for name, one in (("unit", UNIT), ("spec", SPEC)) if name in files}
    )
    done = {one.path: (one.yours, one.gone, one.diff) for one in edits(RECORD, Generations(LAYOUT, machine), machine)}
    assert machine.effects == [], "looking changes nothing"
    return done


def test_what_is_as_it_was_written_is_not_told() -> None:
    assert found(unit=UNIT.content, spec=SPEC.content) == {}


def test_an_edit_is_shown_as_a_difference_from_what_was_written() -> None:
    (one,) = found(unit=UNIT.content + b"Nice=5", spec=SPEC.content).items()
    path, (yours, gone, diff) = one
    assert (path, yours, gone) == (UNIT.path, False, False)
    assert diff.splitlines()[-1] == "+Nice=5"
    assert diff.endswith("\n"), "also where the last line has no end"


def test_an_operators_own_file_is_told_apart() -> None:
    assert found(unit=UNIT.content, spec=b"source: /b.gguf\n")[SPEC.path][0] is True


def test_one_that_was_removed_is_gone() -> None:
    assert found(spec=SPEC.content)[UNIT.path][1] is True


def test_files_within_the_generation_are_looked_at_where_they_lie() -> None:
    plan = deployment()
    files = tuple(file for file in render(plan).files if file.path == "nginx/nginx.conf")
    record = Record(schema=1, generation=3, deployment=plan, files=(), inside=written(files))
    path = f"{LAYOUT.state}/generations/3/nginx/nginx.conf"
    machine = RecordedMachine(files={path: files[0].content})
    assert edits(record, Generations(LAYOUT, machine), machine) == ()
    machine.files[path] += b"# mine\n"
    (one,) = edits(record, Generations(LAYOUT, machine), machine)
    assert (one.path, one.yours) == (path, False)
    assert one.diff.splitlines()[-1] == "+# mine"
    assert len([line for line in one.diff.splitlines() if line.startswith("+")]) == 2, "and nothing else differs"
