"""Recipes of images/ that take long to build: built, and asked for the sentence that the built-in model knows.

Each takes minutes and some gigabytes, so they run only where LLM_APPLIANCE_SLOW=1 says so. The gateway's and
llama.cpp's as it was built before are built by the tests of Compose, the whole appliance's too.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import product
from tests.integration.lab import Lab, address, base_image, image, serving
from tests.integration.product import ROOT, SMOKE

PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
SMOKE_FILES = ROOT / "appliance/smoke"


@pytest.fixture(autouse=True)
def slow(lab: Lab) -> None:
    if os.environ.get("LLM_APPLIANCE_SLOW") != "1":
        pytest.skip("images are not built from nothing: that takes minutes; set LLM_APPLIANCE_SLOW=1")


@contextlib.contextmanager
def torch_index(recipe: str, directory: Path) -> Iterator[dict[str, str]]:
    """The build arguments that bring the recipe's own torch from where this machine's pip finds it.

    A build sees no wheels of this machine; it is given an index of the one file.
    """
    text = (ROOT / "images" / recipe / "Dockerfile").read_text()
    torch, index = (re.search(rf"^ARG {name}=(.+)$", text, re.MULTILINE) for name in ("TORCH", "TORCH_INDEX"))
    assert torch and index
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", "--no-deps")
    wheels = directory / "torch"
    words = ("--extra-index-url", index[1], "--dest", str(wheels), f"torch=={torch[1]}")
    subprocess.run((*pip, *words), check=True, timeout=1800)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"TORCH": torch[1], "TORCH_INDEX": f"http://127.0.0.1:{server.server_port}/"}
        server.shutdown()


def until_it_says(base: str, model: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while product.ask(base, PROMPT, model) != ANSWER:
        assert time.monotonic() < deadline, f"no right answer within {seconds} s"
        time.sleep(0.5)


def test_llama_cpp_is_compiled_in_its_image_and_serves() -> None:
    began = time.monotonic()
    with image(ROOT / "images/llama-cpp", "llama-cpp", BASE_IMAGE=base_image()) as built:
        print(f"\nimages/llama-cpp: built in {time.monotonic() - began:.0f} s")
        words = ["--model", "/models/smoke.gguf", "--jinja"]
        box = serving(str(built), 8080, read_only=True, cap_drop=["ALL"]).with_tmpfs_mount("/tmp")
        with box.with_command(words).with_volume_mapping(SMOKE_FILES, "/models") as served:
            assert served.exec(["id", "-u"]).output.decode().strip() == "60700"
            until_it_says(address(served, 8080), "smoke")


def test_transformers_is_installed_in_its_image_and_serves(tmp_path: Path) -> None:
    began = time.monotonic()
    shutil.copytree(SMOKE_FILES / "safetensors", tmp_path / "smoke")
    with (
        torch_index("transformers", tmp_path / "index") as args,
        image(ROOT / "images/transformers", "transformers", BASE_IMAGE=base_image(), **args) as built,
    ):
        print(f"\nimages/transformers: built in {time.monotonic() - began:.0f} s")
        box = serving(str(built), 8000, read_only=True, cap_drop=["ALL"]).with_tmpfs_mount("/tmp")
        box = box.with_env("HF_HUB_OFFLINE", "1").with_env("HOME", "/tmp")
        with box.with_volume_mapping(tmp_path / "smoke", "/models/smoke") as served:
            assert served.exec(["id", "-u"]).output.decode().strip() == "60700"
            until_it_says(address(served, 8000), "/models/smoke")
