"""Gives the tests fresh servers to install on."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import pytest

from tests.integration import product
from tests.integration.lab import (
    FileState,
    Lab,
    Server,
    dockerd,
    missing_ability,
    remove_leftovers,
    require_packages,
)


def remove_image(image: str) -> None:
    subprocess.run(("docker", "rmi", "--force", image), check=False, capture_output=True, timeout=120)


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


@dataclass(frozen=True)
class Quickstart:
    """What README's first command did on a fresh server, and that server's disk afterwards."""

    output: str
    code: int
    seconds: float
    before: dict[str, FileState]
    image: str
    from_nothing: bool


@pytest.fixture(scope="session")
def quickstart(lab: Lab) -> Iterator[Quickstart]:
    """README's first command on a fresh server; the engine is built there when no earlier run has built the same."""
    image = f"llm-appliance-lab-installed:{os.getpid()}"
    with lab.boot("quickstart") as server:
        product.put_checkout(server)
        before = server.files()
        seeded = product.seed(server)
        print("\nquick start:", "the engine was built by an earlier run" if seeded else "from nothing", flush=True)
        began = time.monotonic()
        process = product.install(server)
        code = process.wait(timeout=2400)
        seconds = time.monotonic() - began
        print(process.output, f"\nquick start: {seconds:.0f} s", flush=True)
        if code == 0 and not seeded:
            product.keep_build(server)
        server.save(image)
    yield Quickstart(process.output, code, seconds, before, image, not seeded)
    remove_image(image)


@pytest.fixture
def appliance(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """A server on which the appliance is installed and answers, for one test."""
    assert quickstart.code == 0, quickstart.output
    with product.installed(lab, quickstart.image) as server:
        yield server


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
