"""Gives the tests fresh servers to install on."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from tests.integration.lab import Lab, Server, dockerd, missing_ability, remove_leftovers, require_packages


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--lab-keep",
        action="store_true",
        dest="lab_keep",
        help="leave the servers running for a look at them; the next run removes them",
    )


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    """A machine that can boot servers."""
    reason = missing_ability()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    require_packages()
    dockerd()
    remove_leftovers()
    return Lab(keep=request.config.getoption("lab_keep", default=False))


@pytest.fixture
def server(lab: Lab) -> Iterator[Server]:
    """A fresh server, for one test."""
    with lab.boot() as fresh:
        yield fresh


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows what the servers of a failed test have to say."""
    report = yield
    if report.failed and report.when == "call":
        given = getattr(item, "funcargs", {})
        for value in given.values():
            if isinstance(value, Server):
                report.sections.append((f"server {value.container}", value.logs()))
    return report
