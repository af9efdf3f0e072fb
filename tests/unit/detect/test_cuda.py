"""The CUDA compiler: on the path, else in /usr/local/cuda, else the newest beside it."""

import pytest

from appliance.detect import cuda
from tests.unit.recorded import Answer, Argv, RecordedMachine

SAID = "Cuda compilation tools, release {}, V{}.88\n"


def nvcc(version: str) -> Answer:
    return Answer(stdout=SAID.format(version, version))


def test_none() -> None:
    machine = RecordedMachine()
    assert cuda.toolkit(machine) == ""
    assert machine.ran() == []


def test_the_one_on_the_path_is_the_one_that_builds() -> None:
    machine = RecordedMachine(
        programs={"nvcc": "/usr/bin/nvcc"},
        files={"/usr/local/cuda/bin/nvcc": b""},
        answers={("/usr/bin/nvcc",): nvcc("11.2"), ("/usr/local/cuda/bin/nvcc",): nvcc("12.8")},
    )
    assert cuda.toolkit(machine) == "11.2"


def test_the_default_then_the_newest() -> None:
    files = {f"/usr/local/cuda-{version}/bin/nvcc": b"" for version in ("12.8", "12.10", "11.8")}
    answers: dict[Argv, Answer] = {
        (f"/usr/local/cuda-{version}/bin/nvcc",): nvcc(version) for version in ("12.8", "12.10", "11.8")
    }
    assert cuda.toolkit(RecordedMachine(files=files, answers=answers)) == "12.10"
    default = {**files, "/usr/local/cuda/bin/nvcc": b""}
    assert (
        cuda.toolkit(RecordedMachine(files=default, answers={**answers, ("/usr/local/cuda/bin/nvcc",): nvcc("11.8")}))
        == "11.8"
    )


def test_a_compiler_that_does_not_answer_is_told_by_its_list() -> None:
    files = {
        "/usr/local/cuda/bin/nvcc": b"",
        "/usr/local/cuda/version.json": b'{"cuda": {"version": "12.8.1"}, "cuda_nvcc": {"version": "12.8.93"}}',
    }
    assert (
        cuda.toolkit(RecordedMachine(files=files, answers={("/usr/local/cuda/bin/nvcc",): Answer(code=124)})) == "12.8"
    )


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"cuda": {"version": "12.8"}}', '{"cuda_nvcc": 1}', '{"cuda_nvcc": {"version": 1}}']
)
def test_libraries_without_a_compiler_are_no_toolkit(content: str) -> None:
    assert cuda.parse_version_json(content) == ""
