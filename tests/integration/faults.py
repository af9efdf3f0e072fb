"""What the tests of faults share: how a run is killed, that all goes on answering, that nothing is lost or left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.campaign.losses import told
from tests.integration.conftest import Quickstart
from tests.integration.lab import Completed, FileState, Lab, Server, difference

STATE = "/var/lib/llm-appliance"
RECORD = f"{STATE}/record.json"
PYTHON = "/opt/llm-appliance/venv/bin/python"
SECOND = "/srv/second.gguf"
ADD = ("llm-appliance", "add-model", "second", SECOND)
INSTALL = ("llm-appliance", "install")
BASE = "http://127.0.0.1:8080"
# Kills from inside the server, and ahead of all else that wants a processor there: a signal sent from outside, or by
# somebody who has to wait for his turn, would come several steps too late.
KILLER = r"""
import os, signal, subprocess, sys, threading, time
step, delay, number = sys.argv[1], float(sys.argv[2]), int(getattr(signal, "SIG" + sys.argv[3]))
os.nice(-20)
run = subprocess.Popen(
    ("nice", "-n", "30", *sys.argv[4:]),
    stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, text=True,
)
def kill():
    time.sleep(delay)
    if run.poll() is None:
        os.killpg(run.pid, number)
if not step:
    threading.Thread(target=kill).start()
for line in run.stderr:
    print(line, end="", flush=True)
    if step and line.partition("] ")[2].rstrip().partition(":")[0] == step:
        kill()
print("ended with", run.wait())
"""
# Everything that a killed run may have begun under a name of its own.
DRAFTS = (
    f"find {STATE} /etc/llm-appliance /etc/systemd/system /etc/logrotate.d /usr/local/share /var/cache/llm-appliance "
    "'(' -name '*.new' -o -name '*.part' -o -name '.*.tar' ')'"
)
# Asks the first model again and again until told to stop; says what went wrong.
ASKER = rf"""
asked=0
while [ ! -e /tmp/asked ]; do
    curl -fsS -m 20 {BASE}/smoke/v1/completions -d '{{"prompt": "Hi", "max_tokens": 1}}' >/tmp/answer 2>&1 ||
        echo "failed: $(cat /tmp/answer)"
    asked=$((asked + 1))
    sleep 0.1
done
echo "asked $asked"
"""


@contextmanager
def booted(lab: Lab, quickstart: Quickstart, name: str, *, network: bool = True) -> Iterator[Server]:
    """A server on which the appliance is installed, and nothing is left to be changed."""
    assert quickstart.code == 0, quickstart.output
    with lab.boot(name, network=network, image=quickstart.image) as server:
        # A saved image keeps whole seconds only, so the weights look as if they had been touched.
        server.run(*INSTALL, "--offline", timeout=120)
        yield server


def kill(server: Server, step: str, argv: tuple[str, ...], *, delay: float = 0, signal: str = "KILL") -> str:
    """Run a command and kill it `delay` seconds after its line of that step, or after its start for ""."""
    server.write("/root/kill.py", KILLER)
    return server.run(PYTHON, "/root/kill.py", step, str(delay), signal, *argv, timeout=120).stdout


def pid(server: Server, service: str = "model@smoke") -> str:
    return server.run("systemctl", "show", "-P", "MainPID", f"llm-appliance-{service}.service").stdout.strip()


def second(server: Server) -> None:
    """Put the files of another model there: the built-in one with another description in it."""
    server.sh(
        "mkdir -p /srv && sed 's/A tiny chat model that shows/A tiny chat model that SHOWS/' "
        f"/opt/llm-appliance/venv/lib/python3*/site-packages/appliance/smoke/smoke.gguf >{SECOND}"
    )


def record(server: Server) -> dict[str, object]:
    found = json.loads(server.read(RECORD))
    assert isinstance(found, dict)
    return found


def converges(server: Server, argv: tuple[str, ...], *names: str) -> None:
    """The same command once more ends well, all models answer, and nothing half done is left."""
    done = server.run(*argv, check=False, timeout=180)
    assert done.code == 0, done.stdout + done.stderr
    checked = server.run("llm-appliance", "verify", timeout=60).stdout
    assert [line.partition(":")[0] for line in checked.splitlines()] == [*names]
    assert "changed=0" in server.run(*INSTALL, timeout=60).stdout
    assert server.sh(DRAFTS, check=False).stdout == ""
    now = record(server)
    assert now["confirmed"] is True
    assert server.run("readlink", f"{STATE}/current").stdout.strip() == f"generations/{now['generation']}"
    assert server.run("systemctl", "--failed", "--plain", "--no-legend").stdout == ""


@contextmanager
def answering(server: Server) -> Iterator[None]:
    """The first model answers all the time that the block takes, from the same process."""
    before = pid(server)
    asker = server.popen("bash", "-c", ASKER)
    yield
    server.run("touch", "/tmp/asked")
    asker.wait(timeout=30)
    server.run("rm", "/tmp/asked")
    *failed, last = asker.output.splitlines()
    told("requests", len(failed), int(last.removeprefix("asked ")))
    assert failed == []
    assert pid(server) == before


def answers(server: Server, model: str = "smoke") -> None:
    """The model answers within ten seconds."""
    body = json.dumps({"prompt": "Hi", "max_tokens": 1})
    server.sh(
        f"for i in $(seq 100); do curl -fsS {BASE}/{model}/v1/completions -d '{body}' && exit; sleep 0.1; done; exit 1"
    )


def refused(done: Completed, code: int, *words: str) -> None:
    """A refusal: the code, the words, a hint, and no traceback."""
    said = done.stdout + done.stderr
    assert done.code == code, said
    assert "Traceback" not in said and "this is a bug" not in said, said
    for word in words:
        assert word in said, f"{word!r} is not in:\n{said}"


def nothing_more(before: dict[str, FileState], after: dict[str, FileState], *allowed: str) -> None:
    """No file differs but the lock, and those allowed."""
    own = (STATE, f"{STATE}/lock", *allowed)
    assert {path: pair for path, pair in difference(before, after).items() if path not in own} == {}


def _data(server: Server) -> dict[str, str]:
    """Digests of what nobody could make again: the operator's files, keys, and weights."""
    listed = server.sh(
        f"find /etc/llm-appliance {STATE}/store/models -type f -exec sha256sum {{}} + 2>/dev/null || true", timeout=60
    ).stdout
    return {path: digest for digest, path in (line.split(maxsplit=1) for line in listed.splitlines())}


@contextmanager
def kept(server: Server) -> Iterator[None]:
    """What the operator and the store had before the block is there after it, byte for byte."""
    before = _data(server)
    yield
    after = _data(server)
    lost = sorted(path for path, digest in before.items() if after.get(path) != digest)
    told("data", len(lost), len(before))
    assert lost == []
