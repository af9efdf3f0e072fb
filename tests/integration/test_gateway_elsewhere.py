"""The gateway's tests once more, on the nginx and the Lua of other distributions: LLM_APPLIANCE_SLOW=1, and root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.distributions import SUITES, VARIABLE
from tests.integration.gateway_rig import ELSEWHERE, REPOSITORY

TESTS = ("", "_bodies", "_keys", "_locks", "_metrics", "_outside", "_remote", "_routing")


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    if os.environ.get("LLM_APPLIANCE_SLOW") != "1" or ELSEWHERE:
        pytest.skip("other distributions' nginx only where LLM_APPLIANCE_SLOW=1 says so")
    lacking = [name for name in ("apt-get", "dpkg-deb", "curl", "unshare") if not shutil.which(name)]
    reason = f"no {lacking[0]} here" if lacking else "" if os.geteuid() == 0 else "it takes root to lock nginx in"
    if reason:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.parametrize("release", sorted(SUITES))
def test_the_gateway_does_the_same_on_other_distributions(release: str) -> None:
    files = [str(Path(__file__).with_name(f"test_gateway{name}.py")) for name in TESTS]
    done = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", *files),
        check=False, timeout=900, capture_output=True, text=True, cwd=REPOSITORY, env={**os.environ, VARIABLE: release},
    )  # fmt: skip
    print(f"{release}: {done.stdout.splitlines()[-1] if done.stdout else done.stderr}")
    assert done.returncode == 0, done.stdout[-4000:]
