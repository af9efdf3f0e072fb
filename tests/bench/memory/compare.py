"""Reported against predicted: `python -m tests.bench.memory.compare`; reads truth.json and the kept headers, no engine."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from appliance.domain.service import Setting
from appliance.domain.weights import Weights
from appliance.memory import llama, vllm
from appliance.weights.inspect import inspect
from tests.bench.memory.headers import restore
from tests.bench.memory.truth import TRUTH, Row, load

INTRODUCTION: Final = """# Predicted memory over what the engines report

Models of random weights with the proportions of real ones; llama.cpp as it is built here, vLLM 0.32 on the CPU. Each
figure is the one farthest from 1 over all settings (contexts, slots, cache types, blocks). Made by
`python -m tests.bench.memory.compare --table`; the reports are in truth.json, and `python -m tests.bench.memory` makes
them anew.
"""
ROUNDING: Final = 10_486
"""Bytes: llama.cpp's log gives sizes in hundredths of a MiB."""


def predicted(model: Path, setting: Mapping[str, Any]) -> Mapping[str, int]:
    """Return what the planner says, in bytes by item ("weights", "kv", "state", "compute"), from the headers alone.

    `model` is a GGUF file (llama.cpp; `setting` is its command line: "ctx-size", "parallel", ...) or a directory with
    config.json and model.safetensors (vLLM; `setting` is what `vllm.LLM` takes: "max_model_len", "block_size", ...).
    For vLLM `kv` and `state` are one request's, in full.
    """
    weights = inspect(model)
    return _llama(weights, setting) if model.is_file() else _vllm(weights, setting)


def _llama(weights: Weights, setting: Mapping[str, Any]) -> Mapping[str, int]:
    """What is not the planner's own way to start the server (one step smaller, no flash attention) is left out."""
    parallel = int(setting.get("parallel", 1))
    if not {*setting} <= {"ctx-size", "parallel", "cache-type-k", "cache-type-v", "flash-attn", "load-mode"}:
        return {}
    whole = Setting(
        context=int(setting["ctx-size"]) // parallel, parallel=parallel, kv_type=setting.get("cache-type-k", "auto")
    )
    state = llama.state(weights, whole)
    found = {"weights": weights.tensors, "kv": llama.cache(weights, whole) - state, "state": state}
    # The logits' buffer is the log's `output`.
    logits = 4 * weights.vocabulary * parallel
    buffers = {"compute": llama.buffers(weights, whole) - logits, "output": logits}
    return found | (buffers if setting.get("flash-attn") != "off" else {})


def _vllm(weights: Weights, setting: Mapping[str, Any]) -> Mapping[str, int]:
    """The CPU has blocks of its own size, and states of 32 bits where the processor has bfloat16."""
    gpu = setting["like"] == "gpu"
    context = int(setting["max_model_len"])
    latent = any(group.kind == "latent" for group in weights.cache)
    batched = int(setting.get("max_num_batched_tokens", 2048 * 2))
    pages = vllm.request(
        weights,
        context,
        in_flight=batched,
        block=int(setting.get("block_size", 16 if latent else 128)),
        state_width={"float32": 4}.get(str(setting.get("mamba_ssm_cache_dtype")), 0 if gpu else 4),
        prefixes=setting.get("enable_prefix_caching", True),
        least=vllm.STEP if gpu else 32,
    )
    return {"weights": weights.tensors, "kv": pages.attention, "state": pages.state}


def pairs(rows: list[Row], folder: Path) -> Iterator[tuple[Row, int | None]]:
    """Join each row with its prediction, in bytes; None where the planner says nothing."""
    restored = {name: restore(name, folder) for name in sorted({row.model for row in rows})}
    said: dict[tuple[str, str], Mapping[str, int]] = {}
    for row in rows:
        path = restored[row.model] / ("model.gguf" if row.engine == "llama.cpp" else "")
        key = (str(path), json.dumps(row.setting, sort_keys=True))
        if key not in said:
            said[key] = predicted(path, row.setting)
        yield row, said[key].get(row.item)


def nearness(guess: int, reported: int) -> float:
    """Give predicted / reported; 1 where the difference is lost in the log's rounding."""
    return 1.0 if abs(guess - reported) <= ROUNDING else guess / reported


def label(setting: Mapping[str, Any]) -> str:
    """Write a setting in one line."""
    return " ".join(f"{key}={value}" if value != "" else key for key, value in setting.items())


def table(path: Path = TRUTH) -> str:
    """Return ACCURACY.md: for each model the predicted / reported that is farthest from 1, over all its settings."""
    items = ("weights", "kv", "state")
    worst: dict[tuple[str, str, str], float] = {}
    shapes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for row, guess in pairs(load(path), Path(folder)):
            shapes[row.model] = row.architecture
            if guess is None or row.item not in items:
                continue
            key, ratio = (row.model, row.engine, row.item), nearness(guess, row.bytes)
            worst[key] = max(worst.get(key, 1.0), ratio, key=lambda one: abs(one - 1))
    engines = sorted({engine for _, engine, _ in worst})
    heads = [f"{engine} {item}" for engine in engines for item in items]
    lines = [f"| model | architecture | {' | '.join(heads)} |", f"| --- | --- |{' --- |' * len(heads)}"]
    for model, architecture in sorted(shapes.items()):
        found = (worst.get((model, engine, item)) for engine in engines for item in items)
        cells = ("" if ratio is None else f"{ratio:.3f}" for ratio in found)
        lines.append(f"| {model} | {architecture} | {' | '.join(cells)} |")
    return "\n".join([INTRODUCTION, *lines, ""])


def main(path: Path = TRUTH) -> None:
    """Print a line for each row, then for each engine and item how near the predictions are, and the worst."""
    ratios: dict[tuple[str, str], list[tuple[float, str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'engine':<10}{'model':<16}{'item':<9}{'reported':>14}{'predicted':>14}{'ratio':>8}  setting")
        for row, guess in pairs(load(path), Path(folder)):
            ratio = None if guess is None or not row.bytes else nearness(guess, row.bytes)
            shown = f"{guess:>14,}{ratio:>8.3f}" if guess is not None and ratio is not None else f"{'-':>14}{'-':>8}"
            print(f"{row.engine:<10}{row.model:<16}{row.item:<9}{row.bytes:>14,}{shown}  {label(row.setting)}")
            if ratio is not None:
                ratios.setdefault((row.engine, row.item), []).append((ratio, f"{row.model}, {label(row.setting)}"))
    print("\nper item: rows, within 1%, lowest and highest predicted / reported")
    for (engine, item), seen in sorted(ratios.items()):
        low, high = min(seen), max(seen)
        near = sum(abs(ratio - 1) <= 0.01 for ratio, _ in seen)
        print(f"{engine:<10}{item:<9}{len(seen):>4}{near:>5}  {low[0]:.3f} ({low[1]})  {high[0]:.3f} ({high[1]})")


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        sys.stdout.write(table())
    else:
        main()
