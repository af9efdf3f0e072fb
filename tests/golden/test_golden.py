"""Spec + host + models -> plan, files and commands, byte for byte. One directory = one test.

Given: appliance.yaml, models.d/, host.json, models.json (facts from the weights' headers), layout.json; catalog.yaml
beside the cases, so that a new engine release changes none of them. Expected: deployment.json, commands.txt, and in
files/ every file that is rendered; those that are copied from templates/ as they are stand in files.txt only.
"""

import shutil
from pathlib import Path

import pytest

from appliance import codec, gateway, resources, specfile
from appliance.catalog import Catalog
from appliance.domain.changes import Changeset, File
from appliance.domain.deployment import Deployment, Model
from appliance.domain.host import Host
from appliance.domain.layout import Layout
from appliance.plan import plan
from appliance.render.pages import render
from appliance.runtimes import runtime

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/host.json"))
PYTHON = "/opt/llm-appliance/bin/python"


def changeset(case: Path) -> Changeset:
    """Return what the case comes to."""
    layout = codec.load_json(Layout, (case / "layout.json").read_bytes(), source="layout.json")
    names = ["appliance.yaml", *sorted(f"models.d/{path.name}" for path in (case / "models.d").iterdir())]
    spec_files = {f"{layout.etc}/{name}": (case / name).read_bytes() for name in names}
    spec = specfile.load(spec_files, layout)
    host = codec.load_json(Host, (case / "host.json").read_bytes(), source="host.json")
    models = codec.load_json(tuple[Model, ...], (case / "models.json").read_bytes(), source="models.json")
    catalog = codec.load_yaml(Catalog, (HERE / "catalog.yaml").read_text(), source="catalog.yaml")
    deployment = plan(spec, models, host, layout, catalog, python=PYTHON)
    return render(deployment, specfile.files(spec, spec_files, layout))


def commands(changes: Changeset) -> str:
    """Return every command of the case: the checks, and what makes the files run when all of them are new."""
    deployment = changes.deployment
    module = runtime(deployment.runtime)
    everything = frozenset(file.path for file in changes.files)
    generation = f"{deployment.layout.state}/generations/1"
    parts = {
        "check": (*gateway.check(deployment, generation), *module.check(deployment, generation)),
        "activate": module.activate(deployment, everything),
        "activate, nothing changed": module.activate(deployment, frozenset()),
        "stop": module.stop(deployment, ""),
    }
    lines = []
    for title, found in parts.items():
        lines.append(f"# {title}")
        for command in found:
            account = f"as {command.user}:{command.group} " if command.user else ""
            lines.append(account + codec.dump_json(command.argv, indent=None).rstrip())
    return "\n".join(lines) + "\n"


def expected(changes: Changeset) -> dict[str, bytes]:
    """Return what must lie in the case's directory, by name."""
    copied = {path.read_bytes() for path in resources.data("templates").rglob("*") if path.is_file()}
    listing = "".join(f"{file.mode:04o} {file.path}\n" for file in changes.files)
    return {
        "deployment.json": codec.dump_json(changes.deployment).encode(),
        "commands.txt": commands(changes).encode(),
        "files.txt": listing.encode(),
        **{name(file): file.content for file in changes.files if file.content not in copied and rendered(file)},
    }


def rendered(file: File) -> bool:
    """Tell whether it is made from the plan: the plan itself and the operator's files stand beside files/ already."""
    return file.path != "deployment.json" and "/models.d/" not in file.path and "/appliance.yaml" not in file.path


def name(file: File) -> str:
    return f"files/root{file.path}" if file.path.startswith("/") else f"files/{file.path}"


def there(case: Path) -> dict[str, bytes]:
    """Return what lies in the case's directory now."""
    single = [case / name for name in ("deployment.json", "commands.txt", "files.txt")]
    found = [path for path in (*single, *(case / "files").rglob("*")) if path.is_file()]
    return {path.relative_to(case).as_posix(): path.read_bytes() for path in found}


def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_a_case_comes_out_as_it_is_kept(case: Path, update: bool) -> None:
    wanted = expected(changeset(case))
    if update:
        shutil.rmtree(case / "files", ignore_errors=True)
        for path, content in wanted.items():
            (case / path).parent.mkdir(parents=True, exist_ok=True)
            (case / path).write_bytes(content)
    kept = there(case)
    assert sorted(kept) == sorted(wanted)
    for path, content in wanted.items():
        assert kept[path].decode() == content.decode(), f"{case.name}/{path}; --update-golden keeps it"


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_the_operators_files_keep_every_byte(case: Path) -> None:
    changes = changeset(case)
    etc = changes.deployment.layout.etc
    for file in changes.files:
        if file.path.startswith(f"{etc}/"):
            assert file.content == (case / file.path.removeprefix(f"{etc}/")).read_bytes()


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_a_case_knows_nothing_of_this_machine(case: Path) -> None:
    here = str(Path(resources.__file__).parents[1]).encode()
    for path, content in expected(changeset(case)).items():
        assert here not in content, path


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_the_kept_plan_is_read_and_gives_the_same_files(case: Path) -> None:
    changes = changeset(case)
    plan = codec.load_json(Deployment, (case / "deployment.json").read_bytes(), source="deployment.json")
    ours = tuple(file for file in changes.files if file.path.startswith(f"{plan.layout.etc}/"))
    assert render(plan, ours) == changes


def test_the_order_of_files_and_their_bytes_are_the_same_each_time() -> None:
    assert changeset(CASES[0]) == changeset(CASES[0])
