"""A plain `status` is asked over and over: it is the same as the one that the parser leads to, and takes half the time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from appliance.__main__ import main
try:
    main()
finally:
    print(sorted({"typer", "pydantic", "cryptography"} & set(sys.modules)))
"""


def run(prefix: Path, *words: str) -> tuple[int, str, str, str]:
    """Return exit code, stdout, stderr, and what was imported of what takes long."""
    env = {**os.environ, "LLM_APPLIANCE_PREFIX": str(prefix), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        (sys.executable, "-c", RUN, *words), capture_output=True, text=True, timeout=60, check=False, env=env
    )
    *said, imported = done.stdout.splitlines()
    return done.returncode, "\n".join(said), done.stderr, imported


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_plain_status_is_answered_without_the_parser(tmp_path: Path, words: tuple[str, ...]) -> None:
    code, said, errors, imported = run(tmp_path, "status", *words)
    assert code == 4
    assert "nothing is installed here" in said + errors
    assert imported == "[]"
    parsed = run(tmp_path, "status", *words, "--prefix", str(tmp_path))
    assert parsed[:3] == (code, said, errors)
    assert "typer" in parsed[3]
