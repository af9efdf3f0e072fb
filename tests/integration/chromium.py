"""A real Chromium without a window, driven over its DevTools protocol on a pipe: pages, keys, pictures."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.lab.machine import alone, command

Json = dict[str, Any]
PACKAGES = ("chromium", "fonts-dejavu-core")
PATIENCE = 30.0
"""Seconds until something must have happened; a busy machine is slow."""
CODES = {"Enter": 13, "Escape": 27, "Tab": 9, " ": 32, "ArrowDown": 40, "ArrowUp": 38}


def missing_ability() -> str | None:
    """Why there is no Chromium and none can be had, or None."""
    if shutil.which("chromium"):
        return None
    if os.geteuid() or not shutil.which("apt-get"):
        return "the status page is looked at in Chromium: it is not here, and only root on Debian can install it"
    return None


def require() -> None:
    """Install Chromium where it is missing: 75 MB to fetch, less than a minute."""
    with alone("packages"):
        if shutil.which("chromium"):
            return
        quiet = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
        install = ("apt-get", "install", "-y", "--no-install-recommends", *PACKAGES)
        if command(*install, timeout=600, check=False, env=quiet).returncode:
            command("apt-get", "update", timeout=300, env=quiet)
            command(*install, timeout=600, env=quiet)


class Page:
    """One page in a browser of its own."""

    def __init__(self, home: Path) -> None:
        to_browser, ours = _pipe()
        self._read, from_browser = _pipe()
        self._write, self._rest, self._number = ours, b"", 0
        self.told: list[Json] = []
        argv = [
            *("chromium", "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu"),
            *("--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--mute-audio"),
            *("--force-color-profile=srgb", "--hide-scrollbars", f"--user-data-dir={home}", "about:blank"),
        ]

        def place() -> None:
            # Where Chromium looks for them; it is a shell script that passes them on.
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        with (home / "stderr").open("wb") as stream:
            self.process = subprocess.Popen(argv, preexec_fn=place, pass_fds=(3, 4), stdout=stream, stderr=stream)
        os.close(to_browser)
        os.close(from_browser)
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Json:
        """Ask the browser something and return its answer; what it tells in between is kept in `told`."""
        self._number += 1
        words: Json = {"id": self._number, "method": method, "params": parameters}
        words |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(words).encode() + b"\0")
        while True:
            message = self._next(PATIENCE)
            assert message, f"no answer to {method}"
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                result: Json = message["result"]
                return result
            self.told.append(message)

    def _next(self, patience: float) -> Json | None:
        end = time.monotonic() + patience
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            piece = os.read(self._read, 1 << 20)
            assert piece, f"Chromium ended with {self.process.wait(10)}"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        message: Json = json.loads(line)
        return message

    def size(self, width: int, height: int, *, scale: float = 1, phone: bool = False) -> None:
        """Be so wide and high, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    def scheme(self, name: str) -> None:
        """Prefer `dark` or `light`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def open(self, url: str) -> None:
        """Go to an address, and wait until its scripts have run."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, expression: str) -> Any:
        """Return what an expression is in the page."""
        done = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            allowUnsafeEvalBlockedByCSP=False,
        )
        assert "exceptionDetails" not in done, (expression, done["exceptionDetails"])
        return done["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until it is true in the page."""
        end = time.monotonic() + PATIENCE
        while not self.ask(f"Boolean({expression})"):
            assert time.monotonic() < end, f"never true: {expression}\n{self.ask('document.body.innerText')}"
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """Return the text of the first element that matches."""
        return str(self.ask(f"document.querySelector({json.dumps(selector)}).textContent"))

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press one key, as a person does."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        event = {
            "key": key, "code": {" ": "Space"}.get(key, key), "windowsVirtualKeyCode": CODES[key],
            "modifiers": 8 if shift else 0,
        }  # fmt: skip
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def write(self, text: str) -> None:
        """Type where the cursor is."""
        for char in text:
            self.call("Input.dispatchKeyEvent", type="char", text=char)

    def focus(self) -> str:
        """Return what has the focus: an id, or a tag's name."""
        return str(self.ask("document.activeElement.id || document.activeElement.tagName.toLowerCase()"))

    def picture(self, *, whole: bool = False) -> bytes:
        """Return a PNG of what is seen, or of the whole page."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])

    def complaints(self) -> list[str]:
        """Return what the console and the browser found fault with so far: errors, exceptions, what CSP refused."""
        self.ask("1")
        found = []
        for one in self.told:
            parameters = one.get("params", {})
            if one["method"] == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
                found.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
            elif one["method"] == "Runtime.exceptionThrown":
                found.append(str(parameters["exceptionDetails"]))
            elif one["method"] == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
                found.append(str(parameters["args"]))
        return found

    def asked(self) -> list[Json]:
        """Return the requests that the page made so far."""
        self.ask("1")
        sent = [one["params"]["request"] for one in self.told if one["method"] == "Network.requestWillBeSent"]
        return [one for one in sent if not one["url"].startswith("about:")]

    def close(self) -> None:
        try:
            self._session = ""
            self.call("Browser.close")
            self.process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait(10)
        finally:
            os.close(self._read)
            os.close(self._write)


def _pipe() -> tuple[int, int]:
    """Return both ends, with numbers that 3 and 4 do not collide with."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]


@contextmanager
def chromium() -> Iterator[Page]:
    """Yield a browser that shows nothing yet."""
    home = Path(tempfile.mkdtemp(prefix="chromium-"))
    page = Page(home)
    try:
        yield page
    finally:
        page.close()
        shutil.rmtree(home, ignore_errors=True)
