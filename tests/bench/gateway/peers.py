"""Other people's gateways, each from the package index into an environment of its own, with its defaults.

Each has one worker and only the one model; the two vLLM routers know no keys.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.gateway.gateways import MODEL, Running, Start, answers
from tests.bench.gateway.programs import KEY
from tests.integration.gateway_rig import free_port

CACHE = Path(os.environ.get("LLM_APPLIANCE_BENCH_PEERS", "~/.cache/llm-appliance-bench/gateways")).expanduser()
STACK = "LLM_APPLIANCE_BENCH_PRODUCTION_STACK"
"""Names a checkout of vllm-project/production-stack: the index has its router's name for another program."""
PATIENCE = 120
"""Seconds until it must answer: some of them import for half a minute."""

PINS = {
    "litellm": ("litellm[proxy]==1.106.0",),
    "vllm-router": ("vllm-router==0.1.17",),
    # Its streams need pydantic 1, and so a FastAPI of that time.
    "fastchat": ("fschat==0.2.36", "pydantic==1.10.27", "fastapi==0.99.1"),
}


class Unavailable(Exception):
    """A gateway that cannot be had or does not start here; the message says why."""


def environment(name: str, *packages: str, **variables: str) -> Path:
    """Return the programs of an environment with these packages; made once, by a pip with these variables."""
    home, key = CACHE / name, " ".join(packages)
    done = home / "complete"
    if not done.exists() or done.read_text() != key:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run((sys.executable, "-m", "venv", str(home)), check=True, timeout=120)
        pip = (str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *packages)
        env = {**os.environ, **variables}
        made = subprocess.run(pip, check=False, timeout=900, capture_output=True, text=True, env=env)
        if made.returncode:
            last = [line for line in made.stderr.splitlines() if line.startswith("ERROR")]
            raise Unavailable(f"pip cannot install {key}: {last[0] if last else made.returncode}")
        done.write_text(key)
    return home / "bin"


@contextmanager
def program(argv: Sequence[str], address: str, *, where: Path | None = None, **variables: str) -> Iterator[Running]:
    """Run a gateway until the end of the block; what it prints is shown when it does not answer."""
    with tempfile.TemporaryFile("w+") as said:
        env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "NO_PROXY": "*", **variables}
        process = subprocess.Popen(argv, stdout=said, stderr=said, env=env, cwd=where, start_new_session=True)
        try:
            answers(address, seconds=PATIENCE)
            yield Running(address, process.pid)
        except RuntimeError as error:
            said.seek(0)
            raise Unavailable(f"{error}; it says: {said.read()[-600:]}") from error
        finally:
            process.kill()
            process.wait(10)


@contextmanager
def litellm(replicas: Sequence[str], _: Sequence[str]) -> Iterator[Running]:
    """LiteLLM's proxy with a master key and no database."""
    binaries, port = environment("litellm", *PINS["litellm"]), free_port()
    lines = [f"general_settings: {{master_key: {KEY}}}", "model_list:"]
    for replica in replicas:
        values = f"{{model: openai/{MODEL}, api_base: 'http://{replica}/v1', api_key: none}}"
        lines.append(f"- {{model_name: {MODEL}, litellm_params: {values}}}")
    with tempfile.TemporaryDirectory() as directory:
        settings = Path(directory, "config.yaml")
        settings.write_text("\n".join(lines) + "\n")
        argv = (str(binaries / "litellm"), "--config", str(settings), "--host", "127.0.0.1", "--port", str(port))
        with program(argv, f"127.0.0.1:{port}", LITELLM_LOCAL_MODEL_COST_MAP="True") as running:
            yield running


@contextmanager
def vllm_router(replicas: Sequence[str], _: Sequence[str]) -> Iterator[Running]:
    """The router of the vLLM project that is written in Rust; it looks at no model names."""
    binaries, port = environment("vllm-router", *PINS["vllm-router"]), free_port()
    argv = (
        str(binaries / "vllm-router"), "--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin",
        "--prometheus-port", str(free_port()), "--worker-urls", *(f"http://{replica}" for replica in replicas),
    )  # fmt: skip
    with program(argv, f"127.0.0.1:{port}") as running:
        yield running


@contextmanager
def production_stack(replicas: Sequence[str], _: Sequence[str]) -> Iterator[Running]:
    """The Python router of vLLM's production stack."""
    if not (checkout := os.environ.get(STACK)):
        raise Unavailable(f"the index has its name, vllm-router, for another program; {STACK} may name a checkout")
    # A checkout without its history knows no version of its own; its router runs with Python 3.11 too.
    variables = {"SETUPTOOLS_SCM_PRETEND_VERSION": "0", "PIP_IGNORE_REQUIRES_PYTHON": "1"}
    binaries, port = environment("production-stack", checkout, **variables), free_port()
    argv = (
        str(binaries / "vllm-router"), "--host", "127.0.0.1", "--port", str(port), "--service-discovery", "static",
        "--static-backends", ",".join(f"http://{replica}" for replica in replicas),
        "--static-models", ",".join(MODEL for _ in replicas), "--routing-logic", "roundrobin",
    )  # fmt: skip
    with program(argv, f"127.0.0.1:{port}") as running:
        yield running


@contextmanager
def fastchat(replicas: Sequence[str], _: Sequence[str]) -> Iterator[Running]:
    """FastChat's OpenAI server; the upstream stands in for its controller and its workers, and costs next to nothing."""
    binaries, port = environment("fastchat", *PINS["fastchat"]), free_port()
    argv = (
        str(binaries / "python"), "-m", "fastchat.serve.openai_api_server", "--host", "127.0.0.1", "--port", str(port),
        "--controller-address", f"http://{replicas[0]}", "--api-keys", KEY,
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as directory,
        program(argv, f"127.0.0.1:{port}", where=Path(directory)) as running,
    ):
        yield running


PEERS: dict[str, Start] = {
    "litellm": litellm,
    "vllm-router": vllm_router,
    "production-stack": production_stack,
    "fastchat": fastchat,
}
