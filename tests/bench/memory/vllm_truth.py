"""What vLLM reports for each model: runs the probe in the bench's environment and makes rows of what it says."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.bench.memory.truth import Row

NAME: Final = "vllm-cpu"
CACHE_GIB: Final = 1
"""Cache given to each engine, GiB: enough for one request of the longest setting in every bench model."""

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    # "like gpu": blocks of 16 tokens, which the GPU backends prefer (the CPU's own are 128), and state in the model's type.
    "cpu": {"like": "cpu", "max_model_len": 4096, "max_num_seqs": 4},
    "gpu": {
        "like": "gpu",
        "max_model_len": 32768,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 2048,
        "block_size": 16,
    },
}
HYBRID: Final[dict[str, dict[str, Any]]] = {
    "gpu-no-prefix": SETTINGS["gpu"] | {"enable_prefix_caching": False},
    "gpu-float32": SETTINGS["gpu"] | {"mamba_ssm_cache_dtype": "float32"},
}
"""Further settings for models with recurrent state: with a prefix cache each request holds one state page more."""

VISION: Final[dict[str, dict[str, Any]]] = {
    "gpu-text-only": SETTINGS["gpu"] | {"limit_mm_per_prompt": {"image": 0, "video": 0}},
}
"""A further setting for models with a vision tower: without pictures the tower is not loaded."""


def is_hybrid(config: Mapping[str, Any]) -> bool:
    """Tell models with recurrent layers by their config."""
    text = config.get("text_config", config)
    return any(key in text for key in ("linear_num_value_heads", "mamba_n_heads", "mamba_num_heads", "conv_L_cache"))


def run(python: Path, root: Path, model: Path, wishes: list[Path]) -> None:
    """Probe one model under the settings in `wishes`, one process for all."""
    log = wishes[0].with_suffix(".log")
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GIB),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "VLLM_CONFIG_ROOT": str(log.parent),
        "VLLM_CACHE_ROOT": str(log.parent / "vllm-cache"),
    }
    argv = [str(python), "-m", "tests.bench.memory.vllm_probe", str(model), *map(str, wishes)]
    with log.open("wb") as stream:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(argv, cwd=root, env=environment, stdout=stream, stderr=stream, timeout=900, check=False)


def rows(name: str, architecture: str, setting: Mapping[str, Any], seen: Mapping[str, Any]) -> Iterator[Row]:
    """Make rows of one probe's answer: `kv` and `state` are what ONE request of max_model_len tokens takes of the cache."""
    common = {
        "engine": NAME,
        "version": seen["version"],
        "model": name,
        "architecture": architecture,
        "setting": setting,
    }
    loaded = seen["loaded"][0]
    yield Row(
        **common,
        item="weights",
        bytes=loaded["parameters"],
        how="parameters after loading, each storage once, before the CPU backend packs them",
        detail={"buffers": loaded["buffers"]},
    )
    per_block = seen["bytes_per_block"]
    detail = {
        k: seen[k] for k in ("num_blocks", "bytes_per_block", "tokens", "concurrency", "block_size", "cache_bytes")
    }
    detail |= {k: seen[k] for k in ("mamba_block_size", "mamba_cache_mode", "max_in_flight_tokens", "layout")}
    groups = [{k: v for k, v in g.items() if k != "spec"} | {"spec": short(g["spec"])} for g in seen["groups"]]
    for item, recurrent in (("kv", False), ("state", True)):
        chosen = [g for g in groups if (g["kind"] == "MambaSpec") is recurrent]
        if chosen:
            yield Row(
                **common,
                item=item,
                bytes=per_block * sum(g["request_pages"] for g in chosen),
                how="pages a longest request takes of these groups x bytes of a block in the pool",
                detail=detail | {"groups": chosen},
            )


def short(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a cache spec what sizes follow from."""
    keep = (
        "num_kv_heads",
        "head_size",
        "head_size_v",
        "dtype",
        "sliding_window",
        "shapes",
        "dtypes",
        "page_size_padded",
    )
    return {key: spec[key] for key in keep if spec.get(key) is not None}


def measure(python: Path, root: Path, models: Path, names: list[str], raw: Path) -> tuple[list[Row], dict[str, str]]:
    """Probe all models under all settings, unless that was done before."""
    found: list[Row] = []
    failures: dict[str, str] = {}
    raw.mkdir(parents=True, exist_ok=True)
    for name in names:
        config = json.loads((models / name / "config.json").read_text())
        settings = SETTINGS | (HYBRID if is_hybrid(config) else {}) | (VISION if "vision_config" in config else {})
        wishes = {label: raw / f"{NAME}-{name}-{label}.setting" for label in settings}
        for label, path in wishes.items():
            path.write_text(json.dumps(settings[label]))
        if missing := [path for path in wishes.values() if not path.with_suffix(".json").exists()]:
            run(python, root, models / name, missing)
        for label, path in wishes.items():
            answer = path.with_suffix(".json")
            seen = json.loads(answer.read_text()) if answer.exists() else {"error": "no answer"}
            if "error" in seen:
                failures[f"{NAME} {name} {label}"] = seen["error"][:300]
            else:
                found += rows(name, config["architectures"][0], settings[label], seen)
            print(f"{NAME} {name} {label}: {seen.get('error', 'ok')[:150]}", flush=True)
    return found, failures
