"""Plans and files only: no program is started. `--update-golden` writes what comes out now."""

import os

import pytest

from tests.unit.sealed import sealed

__all__ = ["sealed"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write deployment.json, files/ and commands.txt of every case anew; read the difference before keeping it",
    )


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether what comes out is to be kept; never in CI, where nobody would read it."""
    wanted = bool(request.config.getoption("--update-golden", default=False))
    if wanted and os.environ.get("CI"):
        pytest.fail("--update-golden is for a person who reads the difference, not for CI")
    return wanted
