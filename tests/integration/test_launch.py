"""The program that watches over a service made of several programs: real processes, dummy engines."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from appliance.domain.service import Program
from appliance.system.http import call

ROOT = Path(__file__).parents[2]
LAUNCH = (sys.executable, "-m", "appliance.system.launch")


class Launched:
    """A launcher with its page; what it says goes to a file."""

    def __init__(self, directory: Path, *programs: Program, digest: str = "") -> None:
        self.said = directory / "said"
        page = directory / "page.json"
        page.write_text(json.dumps([asdict(program) for program in programs]))
        digest = digest or hashlib.sha256(page.read_bytes()).hexdigest()
        with self.said.open("wb") as stream:
            self.process = subprocess.Popen(
                (*LAUNCH, str(page), digest), cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def text(self) -> str:
        return self.said.read_text()

    def children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def until(self, condition: Any, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def up(self) -> None:
        self.until(lambda: "all programs run" in self.text)


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Any]:
    found: list[Launched] = []

    def start(*programs: Program, digest: str = "") -> Launched:
        found.append(Launched(tmp_path, *programs, digest=digest))
        return found[-1]

    yield start
    for one in found:
        one.process.kill()
        one.process.wait()


def gone(pids: list[int]) -> bool:
    return not any(
        Path(f"/proc/{pid}/exe").exists() and b"dummy" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids
    )


def dummy(port: str, *more: str, ready: str = "/health") -> Program:
    address = f"127.0.0.1:{{port:{port}}}"
    argv = ("{python}", "-m", "appliance.dummy", "--host", address, "--model", "m", *more)
    return Program(argv=argv, ready=address + ready if ready else "")


def python(code: str, *words: str, once: bool = True) -> Program:
    return Program(argv=("{python}", "-c", code, *words), once=once)


def test_programs_start_in_their_order_and_know_each_others_ports(launched: Any, tmp_path: Path) -> None:
    ask = (
        "import sys, urllib.request as r; print('answer', r.urlopen(f'http://{sys.argv[1]}/health').status, flush=True)"
    )
    one = launched(
        dummy("first", "--start-delay", "1"),
        python(ask, "127.0.0.1:{port:first}"),
        dummy("second"),
        python("import os, sys; open(sys.argv[1], 'w').write(sys.argv[2])", str(tmp_path / "port"), "{port:second}"),
    )
    one.up()
    assert one.text.splitlines() == ["answer 200", "launch: all programs run"], "the delay was waited for"
    assert call(f"127.0.0.1:{(tmp_path / 'port').read_text()}", "/health").status == 200
    assert len(one.children()) == 2


def test_a_stop_ends_all_and_is_no_failure(launched: Any) -> None:
    one = launched(dummy("first"), dummy("second"))
    one.up()
    pids = one.children()
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(15) == 0
    assert gone(pids)


def test_a_stop_that_reaches_the_programs_first_is_no_failure_either(launched: Any) -> None:
    one = launched(dummy("first"), dummy("second"))
    one.up()
    for pid in (*one.children(), one.process.pid):
        os.kill(pid, signal.SIGTERM)
    assert one.process.wait(15) == 0


def test_a_stop_while_something_is_waited_for_is_obeyed(launched: Any) -> None:
    one = launched(dummy("first", "--start-delay", "600"), dummy("second"))
    one.until(one.children)
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(15) == 0


@pytest.mark.parametrize("number", [0, 1])
def test_when_one_dies_all_end(launched: Any, number: int) -> None:
    one = launched(dummy("first"), dummy("second"))
    one.up()
    pids = one.children()
    os.kill(pids[number], signal.SIGKILL)
    assert one.process.wait(15) == 1
    assert gone(pids)
    assert "-m appliance.dummy ended with -9" in one.text


def test_one_that_does_not_listen_is_killed(launched: Any) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    one = launched(python(deaf, once=False), dummy("first"))
    one.until(lambda: "deaf" in one.text and "all programs" in one.text)
    began = time.monotonic()
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(15) == 0
    assert 9 < time.monotonic() - began < 13


def test_what_a_program_started_ends_with_it(launched: Any, tmp_path: Path) -> None:
    forks = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(p.pid, flush=True); sys.exit(3)"
    one = launched(python(forks, once=False))
    assert one.process.wait(15) == 3
    grandchild = int(next(line for line in one.text.splitlines() if line.isdigit()))
    one.until(lambda: not Path(f"/proc/{grandchild}/exe").exists())


def test_a_killed_launcher_leaves_nothing_behind(launched: Any) -> None:
    one = launched(dummy("first"), dummy("second"))
    one.up()
    pids = one.children()
    one.process.kill()
    one.process.wait()
    one.until(lambda: gone(pids))


def test_a_setup_that_fails_ends_the_service(launched: Any) -> None:
    one = launched(dummy("first"), python("import sys; sys.exit('no such model')"), dummy("second"))
    assert one.process.wait(15) == 1
    assert "no such model" in one.text
    assert "ended with 1" in one.text
    assert "all programs run" not in one.text


def test_a_program_that_is_not_there_is_named(launched: Any) -> None:
    one = launched(Program(argv=("/no/such/program", "serve")))
    assert one.process.wait(15) != 0
    assert "/no/such/program" in one.text


def test_another_page_than_the_service_was_made_for_is_not_run(launched: Any) -> None:
    one = launched(dummy("first"), digest="0" * 64)
    assert one.process.wait(15) == 1
    assert "is not the page that this service was made for" in one.text
