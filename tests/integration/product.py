"""The appliance on the lab's servers: puts the checkout there, installs it, keeps what was built for the next server."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from testcontainers.core.image import DockerImage

from tests.integration.lab import Lab, Process, Server, base_image, image
from tests.integration.lab.machine import cache

ROOT = Path(__file__).parents[2]
SMOKE: dict[str, Any] = yaml.safe_load((ROOT / "appliance/smoke/smoke.yaml").read_text())
"""Prompts to which the built-in model's answer is known."""
BASE = "http://127.0.0.1:8080"
CHECKOUT = "/root/llm-appliance"
CACHE = "/var/cache/llm-appliance"
INSTALL = f"{CHECKOUT}/installers/install.sh"
SHIPPED = ("appliance", "templates", "images", "installers", "pyproject.toml", "README.md", "LICENSE", "uv.lock")
BUILDING = ("appliance/acquire/build.py", "appliance/catalog/engines.yaml")
"""What decides how an engine is built: after a change there the first server builds it from nothing again."""


def put_checkout(server: Server, target: str = CHECKOUT) -> None:
    """Unpack the release archive there."""
    with tempfile.TemporaryDirectory() as directory:
        words = (str(ROOT / "installers/release.sh"), "--out", directory, "archive")
        archive = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout.strip()
        subprocess.run(("tar", "-C", directory, "-xzf", archive), check=True, timeout=120)
        server.put(Path(archive.removesuffix(".tar.gz")), target)


def build_cache() -> Path:
    """Return where the built engine is kept between runs; a new name whenever the way of building changes."""
    digest = hashlib.sha256()
    for top in BUILDING:
        for path in sorted((ROOT / top).rglob("*")) if (ROOT / top).is_dir() else [ROOT / top]:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.read_bytes())
    digest.update(Path("/proc/cpuinfo").read_bytes().partition(b"flags")[2].partition(b"\n")[0])
    return cache() / f"built-{digest.hexdigest()[:16]}"


def seed(server: Server) -> bool:
    """Give a server the engine that an earlier one built; tell whether there was one."""
    kept = build_cache()
    if kept.is_dir():
        server.put(kept, CACHE)
    return kept.is_dir()


def keep_build(server: Server) -> None:
    """Keep what a server built."""
    kept = build_cache()
    for old in cache().glob("built-*"):
        shutil.rmtree(old)
    draft = kept.with_suffix(".new")
    draft.mkdir()
    # Not by `extractall`: the Python of a fresh Debian 12 knows no filter yet.
    with tempfile.TemporaryFile() as stream:
        packed = ("docker", "exec", server.container, "tar", "-C", CACHE, "-cf", "-", "built", "sources")
        subprocess.run(packed, check=True, stdout=stream, timeout=300)
        stream.seek(0)
        subprocess.run(("tar", "-C", str(draft), "-xf", "-"), check=True, stdin=stream, timeout=300)
    draft.rename(kept)


def install(server: Server, *options: str) -> Process:
    """Start README's first command; its output streams."""
    return server.popen(INSTALL, *options)


@contextmanager
def installed(lab: Lab, image: str, name: str = "appliance") -> Iterator[Server]:
    """A server on which the appliance is installed and answers."""
    with lab.boot(name, image=image) as server:
        server.run("llm-appliance", "verify", timeout=120)
        yield server


def chat(server: Server, prompt: str, *, model: str = "smoke", path: str = "/v1") -> str:
    """Ask a model with curl in the server; return what it answers."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0})
    said = server.run("curl", "-fsS", f"{BASE}{path}/chat/completions", "-d", body).stdout
    return str(json.loads(said)["choices"][0]["message"]["content"])


def answers(server: Server, model: str = "smoke") -> bool:
    """Tell whether the built-in model, under any name, gives its known answer now."""
    known = SMOKE["verify"]
    body = {"model": model, "messages": [{"role": "user", "content": known["prompt"]}], "temperature": 0}
    done = server.run("curl", "-s", f"{BASE}/v1/chat/completions", "-d", json.dumps(body), check=False)
    return known["answer"] in done.stdout


def whole_image(context: Path) -> DockerImage:
    """Dockerfile.cuda on the lab's base, with the engine that an earlier run has built."""
    for name in (*SHIPPED, "Dockerfile.cuda"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, context / name)
    built = next(iter(sorted((build_cache() / "built").glob("*/llama-server"))), None)
    if built:
        (context / "images/llama-cpp/prebuilt").mkdir()
        shutil.copy2(built, context / "images/llama-cpp/prebuilt/llama-server")
    return image(context, "whole", dockerfile="Dockerfile.cuda", BASE_IMAGE=base_image())


def ask(base: str, prompt: str, model: str = "smoke") -> str:
    """Ask the built-in model at an address; "" while it does not answer."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}).encode()
    try:
        asked = urllib.request.Request(f"{base}/v1/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return str(json.loads(answer.read())["choices"][0]["message"]["content"])
    except OSError:
        return ""
