"""The shipped catalog is whole and sound, and another one is read strictly."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import codec
from appliance.catalog import DIRECTORY, catalog, load, lock, requirements
from appliance.domain.release import Release
from appliance.domain.version import version
from appliance.engines import engines
from appliance.errors import ExitCode, SpecError, UsageError
from appliance.plan import drivers, fitness
from tests.unit.plan.machines import CARDS, boxed, machine

ROWS = catalog().releases
FLOORS = {"11": "450.80.02", "12": "525.60.13", "13": "580"}
"""CUDA major -> lowest driver that runs its compiled code (the toolkits' release notes, table of minor versions)."""
DEFAULT = {
    "2.8": "12.8", "2.9": "12.8", "2.10": "12.8", "2.11": "13.0", "2.12": "13.0", "2.13": "13.0", "2.14": "13.0",
    "2.15": "13.2",
}  # fmt: skip
"""torch -> CUDA of the build that PyPI has (wheel metadata)."""
KNOWN = {
    "5.0", "5.2", "6.0", "6.1", "7.0", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1",
}  # fmt: skip


def name(row: Release) -> str:
    return f"{row.engine}-{row.version}-{row.accelerator}-{'-'.join(row.arch)}"


each = pytest.mark.parametrize("row", ROWS, ids=map(name, ROWS))
wheels = pytest.mark.parametrize(
    "row", [row for row in ROWS if row.torch], ids=[name(row) for row in ROWS if row.torch]
)


class TestRows:
    @each
    def test_it_says_where_its_facts_come_from(self, row: Release) -> None:
        assert len(row.source) > 10
        assert not re.search(r"/work|/tmp|#\d", row.source)

    @each
    def test_there_is_an_engine_for_it_and_a_way_to_run_it(self, row: Release) -> None:
        assert row.engine in engines()
        assert row.artifacts or row.engine in ("dummy", "remote")
        assert any(fitness.ways(row, runtime) for runtime in ("systemd", "compose")) or row.engine in (
            "dummy",
            "remote",
        )

    @each
    def test_its_machines_are_known(self, row: Release) -> None:
        assert set(row.arch) <= {"x86_64", "aarch64"}
        assert row.api == "cpu" or row.api in fitness.VENDORS

    @each
    def test_its_gpu_code_is_plausible(self, row: Release) -> None:
        if row.api != "cuda":
            assert all(code.startswith("gfx") for code in row.capabilities)
            return
        assert {code.removesuffix("a") for code in row.capabilities} <= KNOWN
        assert set(row.portable) <= KNOWN
        assert list(row.capabilities) == sorted(row.capabilities, key=version)
        toolkit = row.api_version if "." in row.api_version else f"{row.api_version}.9"
        first = fitness.FIRST_TOOLKIT
        assert all(version(first.get(code.removesuffix("a"), "")) <= version(toolkit) for code in row.capabilities)
        if version(toolkit) >= (13,):
            assert version(row.capabilities[0]) >= (7, 5), "CUDA 13 compiles for nothing older"

    @each
    def test_its_driver_floor_is_that_of_its_cuda(self, row: Release) -> None:
        own = {"ollama": "550"}  # its own documentation asks for more than its CUDA does
        floor = own.get(row.engine) or FLOORS.get(row.api_version.partition(".")[0])
        assert row.driver == (floor if row.api == "cuda" else "")

    @each
    def test_native_python_says_which_c_library_it_needs(self, row: Release) -> None:
        native = {one.kind for one in row.artifacts} - {"image", "program"}
        compiled_here = native == {"build"} or (row.api == "cpu" and not row.torch)
        assert bool(row.glibc) is (bool(native) and not compiled_here)

    @each
    def test_a_digest_is_there_for_what_is_one_file_of_known_bytes(self, row: Release) -> None:
        for one in row.artifacts:
            if one.kind == "build":
                assert re.fullmatch("[0-9a-f]{64}", one.source_sha256)

    @wheels
    def test_its_torch_is_for_its_own_accelerator(self, row: Release) -> None:
        """A bare installation would take another one beside it, which fails on the drivers that the row allows."""
        release, _, build = row.torch.partition("+")
        (artifact,) = (one for one in row.artifacts if one.kind == "wheels")
        pinned = [pin for pin in artifact.pins if pin.startswith("torch==")]
        if row.api != "cuda":
            assert build in (row.api, row.accelerator)
            return
        major = row.api_version.partition(".")[0]
        assert re.fullmatch(rf"cu{major}\d", build)
        if artifact.indexes:
            assert artifact.indexes == (f"https://download.pytorch.org/whl/{build}",)
            assert pinned == [f"torch=={row.torch}"]
        else:
            assert DEFAULT[".".join(release.split(".")[:2])] == row.api_version
            assert pinned in ([], [f"torch=={release}"])

    @wheels
    def test_its_torch_runs_on_the_lowest_driver(self, row: Release) -> None:
        if row.api == "cuda":
            major = row.torch.partition("+cu")[2][:2]
            assert version(FLOORS[major]) <= version(row.driver)
            assert version(drivers.api_of(row.driver))[0] >= int(major)

    @each
    def test_a_lock_belongs_to_one_way_of_pinning(self, row: Release) -> None:
        for one in row.artifacts:
            same = {other.pins for other_row in ROWS for other in other_row.artifacts if lock(other) == lock(one)}
            assert lock(one) is None or len(same) == 1


class TestOrder:
    def test_the_parts_are_named_in_the_order_of_preference(self) -> None:
        text = (DIRECTORY / "engines.yaml").read_text()
        assert "order of preference" in text
        parts = yaml.safe_load(text)["parts"]
        assert {path.stem for path in (DIRECTORY / "engines").glob("*.yaml")} == set(parts)
        on_gpus = list(dict.fromkeys(row.engine for row in ROWS if row.api != "cpu" and not row.asked))
        assert on_gpus == ["vllm", "sglang", "lmdeploy", "llama-cpp", "llama-cpp-python", "transformers"]
        assert parts == [*on_gpus, "cpu", *dict.fromkeys(row.engine for row in ROWS if row.asked)]

    def test_the_cpu_comes_after_every_gpu(self) -> None:
        cpu = [row.api == "cpu" for row in ROWS if not row.asked]
        assert cpu == sorted(cpu)

    def test_newer_cuda_before_older_and_newer_releases_before_older(self) -> None:
        for engine in {row.engine for row in ROWS}:
            rows = [row for row in ROWS if row.engine == engine and row.api == "cuda"]
            ways = {"wheels", "image"}
            for way in ways:
                same = [version(row.version) for row in rows if way in {one.kind for one in row.artifacts}]
                assert same == sorted(same, reverse=True), (engine, way)

    def test_each_release_for_nvidia_serves_a_machine_that_nothing_before_it_does(self) -> None:
        """All others would be there for show; the one release before the newest is, and says so."""
        idle = {name(row) for row in ROWS if row.api == "cuda"} - {
            name(row) for host, runtime in _hosts() for engine in {row.engine for row in ROWS}
            if (row := _first(engine, host, runtime))
        }  # fmt: skip
        assert idle == {"vllm-0.32.0-cuda13.0-x86_64"}


def _first(engine: str, host: Any, runtime: str) -> Release | None:
    rows = (row for row in ROWS if row.engine == engine and row.api == "cuda")
    return next((row for row in rows if fitness.fit(row, host, runtime=runtime).groups), None)


def _hosts() -> list[tuple[Any, str]]:
    return [
        (boxed(machine(card, driver=driver, arch=arch, glibc=glibc, python=python, cuda_toolkit=toolkit)), runtime)
        for card in CARDS
        for driver in ("450.80.02", "525.60.13", "570.26", "580.65.06")
        for arch in ("x86_64", "aarch64")
        for glibc in ("2.29", "2.31", "2.39")
        for python in ("3.10", "3.12")
        for toolkit in ("", "12.9", "13.0")
        for runtime in ("systemd", "compose")
    ]


class TestAnotherCatalog:
    @pytest.fixture
    def document(self) -> dict[str, Any]:
        data: dict[str, Any] = codec.to_data(replace(catalog(), releases=ROWS[:2]))
        return data

    def read(self, tmp_path: Path, document: Any) -> Any:
        path = tmp_path / "newer.yaml"
        path.write_text(yaml.safe_dump(document))
        return load(str(path))

    def test_it_replaces_the_shipped_one_whole(self, tmp_path: Path, document: dict[str, Any]) -> None:
        assert self.read(tmp_path, document).releases == ROWS[:2]
        assert load() is load(None) is catalog()

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"none\.yaml: No such file"):
            load(str(tmp_path / "none.yaml"))

    def test_a_file_that_is_no_text_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"\xff\xfe")
        with pytest.raises(SpecError, match="not UTF-8"):
            load(str(tmp_path / "x"))

    @pytest.mark.parametrize("schema", [2, 0, "1", None])
    def test_another_schema_is_refused_before_anything_else(
        self, tmp_path: Path, document: dict[str, Any], schema: object
    ) -> None:
        with pytest.raises(SpecError, match=re.escape(f"schema: {schema!r}; this version reads schema 1")) as caught:
            self.read(tmp_path, {**document, "schema": schema, "new_key": 1})
        assert caught.value.code == ExitCode.SPEC
        assert ("up to date" in caught.value.hint) is (schema == 2)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"driver": "new"}, "releases.0 (vllm 0.33.0 cuda13.0): driver: 'new' is not a version"),
            ({"glibc": "two"}, "glibc: 'two' is not a version"),
            ({"python": ["", "4.x"]}, "python: '4.x' is not a version"),
            ({"capabilities": ["90"]}, "capabilities: '90' is none"),
            ({"arch": []}, "engine, version, accelerator and arch must be said"),
            ({"colour": "red"}, "releases.0.colour: unknown key"),
            ({"version": "0.33.0", "engine": 7}, "releases.0.engine: "),
            ({"arch": ["aarch64"]}, "releases.1 (vllm 0.33.0 cuda13.0): the same as releases.0"),
        ],
    )
    def test_a_row_that_is_wrong_is_named_with_what_is_wrong(
        self, tmp_path: Path, document: dict[str, Any], change: dict[str, Any], said: str
    ) -> None:
        document["releases"][0] |= change
        with pytest.raises(SpecError, match=re.escape(said)):
            self.read(tmp_path, document)

    def test_a_kind_of_artifact_that_nobody_makes_is_refused(self, tmp_path: Path, document: dict[str, Any]) -> None:
        document["releases"][0]["artifacts"][0]["kind"] = "snap"
        with pytest.raises(SpecError, match="kind 'snap' is none of build, wheels, image"):
            self.read(tmp_path, document)

    def test_an_empty_one_is_refused(self, tmp_path: Path, document: dict[str, Any]) -> None:
        with pytest.raises(SpecError, match="releases: there is none"):
            self.read(tmp_path, {**document, "releases": []})


class TestLocks:
    LOCKS = sorted((DIRECTORY / "requirements").glob("*.txt"))

    @pytest.mark.parametrize("path", LOCKS, ids=[path.stem for path in LOCKS])
    def test_it_is_small_has_a_digest_for_each_and_names_no_host(self, path: Path) -> None:
        text = path.read_text()
        assert path.stat().st_size < 400_000
        assert "://" not in text
        assert "--index" not in text
        blocks = re.split(r"\n(?=[a-z0-9])", text.split("\n", 2)[2])
        assert all(re.match(r"[a-z0-9._-]+==\S+", block) and "--hash=sha256:" in block for block in blocks)

    def test_one_belongs_to_a_row_or_to_the_building(self) -> None:
        used = {path for row in ROWS for one in row.artifacts if (path := lock(one))}
        assert set(self.LOCKS) - used == {DIRECTORY / "requirements" / "build-tools.txt"}

    def test_an_environment_with_other_indexes_has_none(self) -> None:
        artifact = next(one for row in ROWS for one in row.artifacts if one.ref == "llama-cpp-python[server]==0.3.36")
        assert artifact.indexes
        assert requirements(artifact) == ""
        assert "llama-cpp-python==0.3.36" in requirements(replace(artifact, indexes=(), pins=()))
