"""What llama.cpp's server reports for each model: starts it with the argv that the project renders and reads its log."""

import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.bench.memory.truth import Row

NAME: Final = "llama.cpp"
MIB: Final = 1 << 20
PATIENCE: Final = 120
"""Seconds until the server must answer; the models are small."""

SETTINGS: Final[dict[str, dict[str, str]]] = {
    "short": {"ctx-size": "4096", "parallel": "1"},
    "long": {"ctx-size": "32768", "parallel": "4"},
    "q8": {"ctx-size": "8192", "parallel": "2", "cache-type-k": "q8_0", "cache-type-v": "q8_0", "flash-attn": "on"},
    "no-flash": {"ctx-size": "8192", "parallel": "2", "flash-attn": "off"},
    "uneven": {"ctx-size": "5000", "parallel": "3"},
    "unified": {"ctx-size": "8192", "parallel": "4", "kv-unified": ""},
    "ubatch": {"ctx-size": "8192", "parallel": "1", "ubatch-size": "256"},
    "not-mapped": {"ctx-size": "4096", "parallel": "1", "load-mode": "none"},
}

BUFFER: Final = re.compile(r"\s(\S+): +(\S+) +(model|KV|RS|output|compute) buffer size = +([\d.]+) MiB")
EXACT: Final = re.compile(r"~llama_context: +(\S+) compute buffer size is +([\d.]+) MiB")
CELLS: Final = re.compile(
    r"llama_(kv_cache|memory_recurrent): size = +([\d.]+) MiB \( *(\d+) cells, +(\d+) layers.*?"
    r"[KR] \((\w+)\): +([\d.]+) MiB, [VS] \((\w+)\): +([\d.]+) MiB"
)
CONTEXT: Final = re.compile(r"llama_context: (n_seq_max|n_ctx|n_ctx_seq|n_batch|n_ubatch|n_outputs_max) += (\d+)")
FAILED: Final = re.compile(r" E (.*)")
ITEM: Final = {"model": "weights", "KV": "kv", "RS": "state", "output": "output", "compute": "compute"}


def arguments(server: Path, model: Path, address: Path, setting: Mapping[str, str]) -> list[str]:
    """Give the argv: the project's own, plus the log level that shows every buffer; `-fit off` since that logs them twice."""
    words = [word for key, value in setting.items() for word in (f"--{key}", value) if word]
    fixed = ["--threads", "2", "--jinja", "--metrics", "--no-webui", "--offline", "--cache-ram", "0"]
    return [str(server), "--model", str(model), "--host", str(address), *fixed, "-fit", "off", "-lv", "5", *words]


def answers(address: Path) -> bool:
    """Ask for the health page over the socket."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(5)
        try:
            line.connect(str(address))
            line.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b" 200 " in line.recv(64)
        except OSError:
            return False


def log_of(server: Path, model: Path, setting: Mapping[str, str]) -> str:
    """Start the server, wait until it serves, stop it and return all that it wrote (its goodbye holds exact sizes)."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+b") as stream:
        address = Path(folder) / "s.sock"
        process = subprocess.Popen(arguments(server, model, address, setting), stdout=stream, stderr=stream)
        try:
            until = time.monotonic() + PATIENCE
            while process.poll() is None and not answers(address) and time.monotonic() < until:
                time.sleep(0.2)
        finally:
            process.terminate()
            process.wait(30)
        stream.seek(0)
        return stream.read().decode(errors="replace")


def read(log: str) -> dict[str, Any]:
    """Read all buffers (bytes, as exact as the log is: 0.01 MiB, compute buffers 0.0001), caches and the context's sizes."""
    buffers = [
        {"by": by.split("::")[-1], "where": where, "item": ITEM[kind], "bytes": round(float(mib) * MIB)}
        for by, where, kind, mib in BUFFER.findall(log)
    ]
    exact = {where: round(float(mib) * MIB) for where, mib in EXACT.findall(log)}
    for buffer in buffers:
        if buffer["item"] == "compute" and buffer["where"] in exact:
            buffer["bytes"] = exact[str(buffer["where"])]
    caches = [
        {"of": of, "cells": int(cells), "layers": int(layers), "k": [kt, round(float(k) * MIB)], "v": [vt, round(float(v) * MIB)]}
        for of, _, cells, layers, kt, k, vt, v in CELLS.findall(log)
    ]  # fmt: skip
    return {"buffers": buffers, "caches": caches, "context": {key: int(v) for key, v in CONTEXT.findall(log)}}


def rows(
    version: str, name: str, architecture: str, setting: Mapping[str, str], seen: Mapping[str, Any]
) -> Iterator[Row]:
    """Make one row of each item: the sum over buffers, with the single ones as detail."""
    for item in dict.fromkeys(b["item"] for b in seen["buffers"]):
        chosen = [b for b in seen["buffers"] if b["item"] == item]
        caches = (
            [c for c in seen["caches"] if (c["of"] == "kv_cache") == (item == "kv")] if item in {"kv", "state"} else []
        )
        yield Row(
            engine=NAME,
            version=version,
            model=name,
            architecture=architecture,
            setting=setting,
            item=item,
            bytes=sum(b["bytes"] for b in chosen),
            how="log: " + ", ".join(f"{b['where']} {b['bytes']}" for b in chosen),
            detail={"compute": seen["context"], "kv": {"caches": caches}, "state": {"caches": caches}}.get(item, {}),
        )


def version_of(server: Path) -> str:
    """Ask the server for its version."""
    done = subprocess.run([str(server), "--version"], capture_output=True, text=True, timeout=30, check=False)
    return next(
        (w.partition(": ")[2] for w in (done.stderr + done.stdout).splitlines() if w.startswith("version")), "?"
    )


def measure(server: Path, models: Mapping[str, tuple[Path, str]]) -> tuple[list[Row], dict[str, str]]:
    """Run every setting for every model (name -> GGUF file, architecture)."""
    version, found, failures = version_of(server), list[Row](), dict[str, str]()
    for name, (path, architecture) in models.items():
        for label, setting in SETTINGS.items():
            log = log_of(server, path, setting)
            more = list(rows(version, name, architecture, setting, read(log)))
            if any(r.item == "compute" for r in more) and "listening on" in log:
                found += more
            else:
                failures[f"{NAME} {name} {label}"] = "; ".join(FAILED.findall(log)[:2])[:300] or "no answer"
            print(f"{NAME} {name} {label}: {failures.get(f'{NAME} {name} {label}', 'ok')}", flush=True)
    return found, failures
