"""README's pictures, made anew from an appliance that really runs: `python -m tests.pictures [NAME…]`.

Installs below a directory of its own, with the built-in model under two names, asks it for a while, looks at the status
page in Chromium and at the verbs in a terminal, and takes all of it away again. `--appliance PREFIX` looks at one that
is there, and leaves it. The plan is one for a recorded machine with two GPUs, and for a published model's shape. A verb
that this release does not have is passed over, aloud.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import rich.console
import rich.terminal_theme
import rich.text
from rich._export_format import CONSOLE_SVG_FORMAT

from appliance import codec
from appliance.domain.host import Driver
from tests.golden.plans.machines import hosts
from tests.integration import chromium
from tests.integration.gateway_rig import free_port
from tests.integration.product import ROOT, build_cache
from tests.pictures import weights

HERE = Path(__file__).parent
MOST = 600_000
"""Bytes of all pictures together: a clone is to stay small."""
COLUMNS = 132
WIDEST = 176
TERMINAL = {
    "status": ("status",),
    "plan": ("add-model", "qwen3-32b", "./Qwen3-32B", "--dry-run", "--host", "l40s.json"),
    "bench": ("bench", "assistant"),
}
"""Name of a picture -> the verb that it shows."""
OLDER = Driver(vendor="nvidia", version="550.54.15", api="12.4")
"""One that not every release can do with, so that there is something to pass over."""
ELSEWHERE = ("plan",)
"""Those that are about another machine than the one that is installed here."""
PAGE = ("page-desktop", "page-phone")
QUESTIONS = ("Say hello.", "What is a GPU?", "Tell me a story.")


def appliance(*words: str, prefix: str) -> str:
    """Run a verb as a person would who only wants it done; return what it says."""
    argv = [sys.executable, "-m", "appliance", *words, "--prefix", prefix]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{' '.join(words)} ends with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def installed() -> Iterator[str]:
    """Yield the prefix of a fresh appliance with two models, one of them with two replicas."""
    with tempfile.TemporaryDirectory(prefix="llm-", dir="/tmp") as home:
        prefix = f"{home}/llm"
        if build_cache().is_dir():
            shutil.copytree(build_cache(), f"{prefix}/cache", symlinks=True)
        print("installing; an engine that no earlier test has built takes some minutes", flush=True)
        try:
            appliance("install", "--listen", f"127.0.0.1:{free_port()}", prefix=prefix)
            appliance("add-model", "assistant", "builtin:smoke", "--replicas", "2", "--alias", "gpt-4o", prefix=prefix)
            yield prefix
        finally:
            appliance("uninstall", prefix=prefix)


def base(prefix: str) -> str:
    """Return where its gateway is."""
    listen = re.search(r"^listen: *'?([^'\s]+)", Path(prefix, "etc/appliance.yaml").read_text(), re.MULTILINE)
    assert listen, prefix
    return f"http://{listen[1]}"


@contextmanager
def busy(url: str) -> Iterator[None]:
    """Ask every model, one question after the other, from a few clients."""
    over = threading.Event()
    names = [model["id"] for model in httpx.get(f"{url}/v1/models", timeout=30).json()["data"]]

    def ask(number: int) -> None:
        with httpx.Client(timeout=60) as client:
            while not over.wait(0.1 * number):
                text = QUESTIONS[number % len(QUESTIONS)]
                body: dict[str, object] = {
                    "model": names[number % len(names)],
                    "messages": [{"role": "user", "content": text}],
                }
                with client.stream("POST", f"{url}/v1/chat/completions", json=body | {"stream": True}) as answer:
                    answer.read()

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(1, 5)]
    for one in clients:
        one.start()
    try:
        yield
    finally:
        over.set()
        for one in clients:
            one.join()


def page(url: str, wanted: set[str]) -> dict[str, bytes]:
    """Return pictures of the status page, a short talk in it."""
    chromium.require()
    found = {}
    sizes = {"page-desktop": (1280, 800, 1.0, "light"), "page-phone": (390, 844, 1.5, "dark")}
    with busy(url), chromium.chromium() as browser:
        for name, (width, height, scale, scheme) in sizes.items():
            if name not in wanted:
                continue
            browser.scheme(scheme)
            browser.size(width, height, scale=scale, phone=width < 500)
            browser.open(url)
            browser.until("document.querySelector('.model.up')")
            browser.ask("document.getElementById('prompt').focus({preventScroll: true})")
            browser.write("Say hello.")
            browser.press("Enter")
            browser.until("document.querySelector('.note') && document.querySelector('.note').textContent")
            browser.ask("document.activeElement.blur(); scrollTo(0, 0)")
            time.sleep(20)  # until the curves have something to show
            found[f"{name}.png"] = browser.picture()
            assert browser.complaints() == []
    return found


def shown(words: tuple[str, ...], home: str) -> tuple[int, str]:
    """Run a verb in a terminal; return its exit code and what the terminal was sent."""
    argv = [sys.executable, "-m", "appliance", *words]
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": "50",
    }  # fmt: skip
    leader, follower = pty.openpty()
    with subprocess.Popen(
        argv, cwd=home, stdin=subprocess.DEVNULL, stdout=follower, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(follower)
        sent = b""
        try:
            while piece := os.read(leader, 65536):
                sent += piece
        except OSError:
            pass  # how a terminal says that nobody writes any more
        os.close(leader)
        return process.wait(), sent.decode(errors="replace").replace("\r\n", "\n")


def drawn(words: tuple[str, ...], sent: str) -> bytes:
    """Return an SVG of a terminal; no font from elsewhere, so that it is the same without a network."""
    text = rich.text.Text.from_ansi(f"\x1b[1m$ llm-appliance {' '.join(words)}\x1b[0m\n{sent.rstrip()}")
    width = max(COLUMNS, *(min(WIDEST, len(line)) for line in text.plain.splitlines()))
    console = rich.console.Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(text)
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code", "ui-monospace, 'DejaVu Sans Mono'")
    theme = rich.terminal_theme.DIMMED_MONOKAI
    return console.export_svg(title="llm-appliance", code_format=form, theme=theme, unique_id="term").encode()


def terminal(prefix: str, wanted: set[str]) -> dict[str, bytes]:
    """Return pictures of verbs in a terminal."""
    found = {}
    with tempfile.TemporaryDirectory() as home:
        weights.make(Path(home))
        Path(home, "l40s.json").write_text(codec.dump_json(replace(hosts()["l40sx2"], drivers=(OLDER,))))
        for name, words in TERMINAL.items():
            if name not in wanted:
                continue
            code, sent = shown(words if name in ELSEWHERE else (*words, "--prefix", prefix), home)
            if code == 2:
                print(f"{name}: passed over, this release has no `llm-appliance {words[0]}`")
                continue
            assert code == 0, sent
            found[f"{name}.svg"] = drawn(words, sent)
    return found


def main() -> int:
    """Make the pictures that are named, or all; 1 where they are too large together."""
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*PAGE, *TERMINAL, []], help="left out: all")
    parser.add_argument("--appliance", metavar="PREFIX", help="one that is installed there")
    given = parser.parse_args()
    wanted = set(given.names or (*PAGE, *TERMINAL))
    there = given.appliance or wanted <= {*ELSEWHERE}
    with _there(given.appliance or "") if there else installed() as prefix:
        found = page(base(prefix), wanted) if wanted & {*PAGE} else {}
        found |= terminal(prefix, wanted)
    for name, content in found.items():
        (HERE / name).write_bytes(content)
        print(f"{name:20} {len(content):7} bytes")
    size = sum(path.stat().st_size for path in HERE.iterdir() if path.suffix in {".png", ".svg"})
    print(f"{'all':20} {size:7} bytes, {MOST} at most")
    return int(size > MOST)


@contextmanager
def _there(prefix: str) -> Iterator[str]:
    yield prefix


if __name__ == "__main__":
    sys.exit(main())
