"""The wheel holds all that a server needs, and finds it there without a checkout."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
DATA = ("templates", "images", "installers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Build one from the checkout, without a network."""
    target = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(target), versions=["standard"])
    with zipfile.ZipFile(path) as opened:
        yield opened


def files(directory: str) -> set[str]:
    found = (path for path in (ROOT / directory).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}


@pytest.mark.parametrize("directory", DATA)
def test_every_file_of_a_data_directory_is_in_it(wheel: zipfile.ZipFile, directory: str) -> None:
    names = set(wheel.namelist())
    assert files(directory)
    # A dot file that keeps an empty directory in the repository is no use to a server.
    wanted = {name for name in files(directory) if not Path(name).name.startswith(".")}
    assert {f"appliance/_data/{name}" for name in wanted} <= names


@pytest.mark.parametrize("directory", DATA)
def test_the_bytes_are_those_of_the_checkout(wheel: zipfile.ZipFile, directory: str) -> None:
    for name in wheel.namelist():
        if name.startswith(f"appliance/_data/{directory}/"):
            assert wheel.read(name) == (ROOT / name.removeprefix("appliance/_data/")).read_bytes()


def test_the_package_is_in_it_with_its_data(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert files("appliance") - names == set()
    for name in ("appliance/catalog/engines.yaml", "appliance/smoke/smoke.gguf", "appliance/smoke/smoke.yaml"):
        assert name in names


def test_nothing_else_is_in_it(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist() if ".dist-info" not in name} == {"appliance"}
    assert not [name for name in wheel.namelist() if name.endswith(".pyc")]


def test_the_command_is_declared(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "llm-appliance = appliance.__main__:main" in wheel.read(name).decode()


def test_an_unpacked_wheel_finds_its_own_files(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    script = "from appliance import resources; print(resources.data('templates')); print(resources.SMOKE)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    templates, smoke = done.stdout.split()
    assert Path(templates) == tmp_path / "appliance/_data/templates"
    assert Path(templates, "nginx/nginx.conf.j2").is_file()
    assert Path(smoke, "smoke.gguf").is_file()
