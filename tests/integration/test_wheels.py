"""Environments from ready wheels: uv resolves them against small indexes on disk, and installs what it resolved."""

import base64
import hashlib
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import report
from appliance.acquire import wheels
from appliance.acquire.source import Source
from appliance.domain.deployment import Deployment
from appliance.domain.release import Artifact
from appliance.errors import ArtifactError
from appliance.system.machine import RealMachine
from tests.unit import samples


def put(index: Path, name: str, version: str, *, requires: tuple[str, ...] = ()) -> str:
    """Add a wheel with one module to an index and return the wheel's SHA-256."""
    page = index / name
    page.mkdir(parents=True, exist_ok=True)
    wheel = page / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\ndef say():\n    print(VERSION)\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {line}\n" for line in requires),
        f"{about}/entry_points.txt": f"[console_scripts]\n{name}-version = {name}:say\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }

    def line(path: str, text: str) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        return f"{path},sha256={digest},{len(text)}\n"

    files[f"{about}/RECORD"] = "".join(line(*one) for one in files.items()) + f"{about}/RECORD,,\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    links = (
        f'<a href="{one.name}#sha256={hashlib.sha256(one.read_bytes()).hexdigest()}">{one.name}</a>'
        for one in sorted(page.iterdir())
        if one.suffix == ".whl"
    )
    (page / "index.html").write_text("<!DOCTYPE html><html><body>" + "".join(links) + "</body></html>")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.fixture
def indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The general index, and the one with builds for a certain CUDA."""
    general, special = tmp_path / "general", tmp_path / "special"
    for name in ("UV_INDEX", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("UV_DEFAULT_INDEX", general.as_uri())
    put(general, "engine", "1.0", requires=("torch==2.13.0", "small"))
    put(general, "torch", "2.13.0")
    put(general, "small", "3.0")
    return general, special


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    where = replace(samples.LAYOUT, state=str(tmp_path / "state"), cache=str(tmp_path / "cache"))
    return replace(samples.deployment(), layout=where)


ARTIFACT = Artifact(name="engine", kind="wheels", ref="engine==1.0", digest="d" * 64)


def make(artifact: Artifact, deployment: Deployment, *, offline: bool = False) -> Path:
    wheels.environment(artifact, deployment, RealMachine(), Source(offline=offline), report.progress())
    return Path(deployment.layout.state, "engines", f"engine-{artifact.digest[:16]}")


def installed(target: Path, module: str) -> str:
    argv = (str(target / "bin" / "python"), "-c", f"import {module}; print({module}.VERSION)")
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_all_of_it_is_resolved_pinned_hashed_and_recorded(indexes: tuple[Path, Path], deployment: Deployment) -> None:
    target = make(ARTIFACT, deployment)
    assert [installed(target, name) for name in ("engine", "torch", "small")] == ["1.0", "2.13.0", "3.0"]
    recorded = (target / "requirements.txt").read_text()
    assert "torch==2.13.0" in recorded
    assert recorded.count("--hash=sha256:") == 3
    assert not list(target.parent.glob(".*"))


def test_the_torch_that_is_pinned_comes_from_its_own_index(indexes: tuple[Path, Path], deployment: Deployment) -> None:
    digest = put(indexes[1], "torch", "2.13.0+cu129")
    put(indexes[1], "small", "1.0")  # such indexes hold old copies of what others need
    special = replace(ARTIFACT, indexes=(indexes[1].as_uri(),), pins=("torch==2.13.0+cu129",))
    target = make(special, deployment)
    assert installed(target, "torch") == "2.13.0+cu129"
    assert installed(target, "small") == "3.0"
    assert digest in (target / "requirements.txt").read_text()


def test_kernels_that_were_compiled_beforehand_come_along_with_their_hashes(
    indexes: tuple[Path, Path], deployment: Deployment
) -> None:
    digest = put(indexes[1], "kernels", "1.0+cu130")
    wanting = replace(ARTIFACT, extras=("kernels==1.0+cu130",), extras_indexes=(indexes[1].as_uri(),))
    target = make(wanting, deployment)
    assert [installed(target, name) for name in ("engine", "kernels")] == ["1.0", "1.0+cu130"]
    assert digest in (target / "requirements.txt").read_text()


def test_without_them_it_is_made_all_the_same_and_says_so(
    indexes: tuple[Path, Path], deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    wanting = replace(ARTIFACT, extras=("kernels==1.0+cu130",), extras_indexes=((indexes[1] / "gone").as_uri(),))
    target = make(wanting, deployment)
    assert installed(target, "engine") == "1.0"
    assert "kernels" not in (target / "requirements.txt").read_text()
    assert "without kernels, so the first start takes some minutes longer" in capsys.readouterr().err


def test_a_wheel_can_be_named_by_its_address(indexes: tuple[Path, Path], deployment: Deployment) -> None:
    put(indexes[1], "engine", "1.0+cu129", requires=("small",))
    url = (indexes[1] / "engine" / "engine-1.0+cu129-py3-none-any.whl").as_uri()
    target = make(replace(ARTIFACT, ref=f"engine @ {url}"), deployment)
    assert installed(target, "engine") == "1.0+cu129"


def test_its_commands_start_where_it_lies(indexes: tuple[Path, Path], deployment: Deployment) -> None:
    """It was filled under another name."""
    target = make(ARTIFACT, deployment)
    done = subprocess.run((target / "bin" / "engine-version",), capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "1.0"


def test_what_packages_ask_for_wrongly_is_overridden(indexes: tuple[Path, Path], deployment: Deployment) -> None:
    put(indexes[0], "engine", "1.1", requires=("torch==2.13.0+cpu", "vision", "small"))
    wrong = replace(ARTIFACT, ref="engine==1.1", pins=("torch==2.13.0",))
    with pytest.raises(ArtifactError, match=r"engine==1\.1 cannot be installed"):
        make(wrong, deployment)
    right = replace(wrong, overrides=("torch==2.13.0", 'vision; sys_platform == "never"'), digest="e" * 64)
    target = make(right, deployment)
    assert [installed(target, name) for name in ("engine", "torch")] == ["1.1", "2.13.0"]
    assert "vision" not in (target / "requirements.txt").read_text()


def test_it_is_found_under_the_name_that_its_program_asks_for(
    indexes: tuple[Path, Path], deployment: Deployment
) -> None:
    target = make(replace(ARTIFACT, provides=("famous==1.0+cpu",)), deployment)
    code = "from importlib.metadata import version; print(version('famous'), version('engine'))"
    argv = (str(target / "bin" / "python"), "-c", code)
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split() == ["1.0+cpu", "1.0"]


def test_one_that_is_there_is_left_alone(indexes: tuple[Path, Path], deployment: Deployment) -> None:
    target = make(ARTIFACT, deployment)
    before = target.stat().st_mtime_ns
    assert make(ARTIFACT, deployment, offline=True).stat().st_mtime_ns == before


def test_what_was_resolved_once_holds_for_the_next_try(indexes: tuple[Path, Path], deployment: Deployment) -> None:
    first = make(ARTIFACT, deployment)
    put(indexes[0], "small", "4.0")
    elsewhere = replace(deployment, layout=replace(deployment.layout, state=deployment.layout.state + "-2"))
    second = make(ARTIFACT, elsewhere)
    assert installed(first, "small") == installed(second, "small") == "3.0"


def test_a_file_that_is_not_what_was_resolved_is_refused(indexes: tuple[Path, Path], deployment: Deployment) -> None:
    make(ARTIFACT, deployment)
    (indexes[0] / "small" / "small-3.0-py3-none-any.whl").unlink()
    put(indexes[0], "small", "3.0", requires=("engine",))
    elsewhere = replace(deployment, layout=replace(deployment.layout, state=deployment.layout.state + "-2"))
    shutil.rmtree(Path(deployment.layout.cache, "uv"))
    with pytest.raises(ArtifactError, match=r"engine==1\.0 cannot be installed"):
        make(ARTIFACT, elsewhere)
    assert not list(Path(elsewhere.layout.state, "engines").glob(".*"))


def test_what_does_not_fit_together_is_told_and_leaves_nothing(
    indexes: tuple[Path, Path], deployment: Deployment
) -> None:
    with pytest.raises(ArtifactError, match=r"engine==1\.0 cannot be installed") as caught:
        make(replace(ARTIFACT, pins=("torch==2.12.0",)), deployment)
    assert "torch==2.12.0" in caught.value.message
    assert not list(Path(deployment.layout.state, "engines").glob("*"))


def test_a_source_package_is_never_built_in_passing(indexes: tuple[Path, Path], deployment: Deployment) -> None:
    (indexes[0] / "small" / "small-3.0-py3-none-any.whl").unlink()
    page = indexes[0] / "small"
    (page / "small-3.0.tar.gz").write_bytes(b"")
    (page / "index.html").write_text('<html><body><a href="small-3.0.tar.gz">small-3.0.tar.gz</a></body></html>')
    with pytest.raises(ArtifactError, match="small"):
        make(ARTIFACT, deployment)


def test_a_wheelhouse_is_enough_without_network(
    indexes: tuple[Path, Path], deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = tmp_path / "wheelhouse"
    house.mkdir()
    for wheel in indexes[0].glob("*/*.whl"):
        shutil.copy(wheel, house)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://no.such.index.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", str(house))
    target = make(ARTIFACT, deployment, offline=True)
    assert [installed(target, name) for name in ("engine", "torch", "small")] == ["1.0", "2.13.0", "3.0"]
    assert (target / "requirements.txt").read_text().count("--hash=sha256:") == 3


def test_what_the_wheelhouse_lacks_is_told(
    indexes: tuple[Path, Path], deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wheelhouse").mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheelhouse"))
    with pytest.raises(ArtifactError, match="engine"):
        make(ARTIFACT, deployment, offline=True)


def test_without_network_nothing_is_made(indexes: tuple[Path, Path], deployment: Deployment) -> None:
    with pytest.raises(ArtifactError, match="--offline forbids"):
        make(ARTIFACT, deployment, offline=True)
