"""Build a vLLM engine in this process and print what it allots; runs inside the bench's own environment (vLLM for the CPU).

`python -m tests.bench.memory.vllm_probe MODEL NAME.setting...`: each holds arguments of `vllm.LLM` (and `like`: "gpu" or
"cpu"), and what it leads to is written beside it as NAME.json, or {"error"}. All sizes are in bytes. The numbers are read from the engine's own objects, those that its log lines are made of.
"""

import dataclasses
import gc
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def tensor_bytes(model: Any) -> dict[str, int]:
    """Sum a module's parameters and buffers, each storage counted once (a tied embedding is one)."""
    totals = {"parameters": 0, "buffers": 0}
    seen: set[int] = set()
    for kind, tensors in (("parameters", model.parameters()), ("buffers", model.buffers())):
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage.nbytes() and storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                totals[kind] += storage.nbytes()
    return totals


def watch_loading(seen: list[dict[str, int]]) -> None:
    """Record tensor sizes as loaded, before the CPU backend packs them in ways that a GPU does not."""
    loader: Any = importlib.import_module("vllm.model_executor.model_loader.base_loader")
    original: Callable[..., Any] = loader.process_weights_after_loading

    def wrapped(model: Any, *rest: Any, **more: Any) -> Any:
        seen.append(tensor_bytes(model))
        return original(model, *rest, **more)

    loader.process_weights_after_loading = wrapped


def plain(value: Any) -> Any:
    """Make what a spec holds fit for JSON."""
    if isinstance(value, bool | int | float | str | type(None)):
        return value
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return str(value)


def describe(group: Any, config: Any) -> dict[str, Any]:
    """Give one cache group: its layers, the kind of its spec, page sizes and what a longest request takes of it."""
    spec = group.kv_cache_spec
    inner = getattr(spec, "kv_cache_specs", None)
    first = next(iter(inner.values())) if inner else spec
    return {
        "layers": len(group.layer_names),
        "kind": type(first).__name__,
        "block_size": spec.block_size,
        "page_bytes": first.page_size_bytes,
        "page_bytes_unpadded": getattr(first, "real_page_size_bytes", first.page_size_bytes),
        "request_pages": -(-spec.max_memory_usage_bytes(config) // spec.page_size_bytes),
        "spec": {f.name: plain(getattr(first, f.name)) for f in dataclasses.fields(first)},
    }


def as_on_a_gpu() -> None:
    """Undo what only the CPU backend does to cache sizes; no forward pass is run, so nothing else notices.

    It raises recurrent state to float32 where the processor has AVX512-BF16, and takes blocks of 32 tokens and their
    multiples, where FlashAttention on a GPU takes 16.
    """
    torch: Any = importlib.import_module("torch")
    backend: Any = importlib.import_module("vllm.v1.attention.backends.cpu_attn").CPUAttentionBackend
    multiple: Any = importlib.import_module("vllm.v1.attention.backend").MultipleOf
    torch.cpu._is_avx512_bf16_supported = lambda: False
    backend.get_supported_kernel_block_sizes = staticmethod(lambda *_: [multiple(16)])


def probe(model: str, setting: dict[str, Any]) -> dict[str, Any]:
    """Start the engine and read its cache configuration."""
    vllm: Any = importlib.import_module("vllm")
    cache: Any = importlib.import_module("vllm.v1.core.kv_cache_utils")
    loaded: list[dict[str, int]] = []
    if setting.pop("like", "cpu") == "gpu":
        as_on_a_gpu()
    watch_loading(loaded)
    engine = vllm.LLM(model=model, enforce_eager=True, **setting)
    core = engine.llm_engine.engine_core.engine_core
    config, kv = core.vllm_config, core.scheduler.kv_cache_config
    groups = kv.kv_cache_groups
    runner = core.model_executor.driver_worker.worker.model_runner
    return {
        "version": vllm.__version__,
        "loaded": loaded,
        "packed": tensor_bytes(runner.model),
        "cache_bytes": max((t.size for t in kv.kv_cache_tensors), default=0),
        "num_blocks": kv.num_blocks,
        "bytes_per_block": cache._pool_bytes_per_block(config, groups) if groups else 0,
        "tokens": config.cache_config.kv_cache_size_tokens,
        "concurrency": config.cache_config.kv_cache_max_concurrency,
        "request_bytes": cache._max_memory_usage_bytes_from_groups(config, groups),
        "layout": str(config.cache_config.get_resolved_kv_cache_layout().name),
        "block_size": config.cache_config.block_size,
        "mamba_block_size": config.cache_config.mamba_block_size,
        "mamba_cache_mode": config.cache_config.mamba_cache_mode,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "max_in_flight_tokens": config.max_in_flight_tokens,
        "hybrid_manager": not config.scheduler_config.disable_hybrid_kv_cache_manager,
        "groups": [describe(g, config) for g in groups],
    }


def main(argv: list[str]) -> None:
    """Probe one model with each setting in turn; those that leave the CPU's ways come last."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    model, *settings = argv
    for path in map(Path, settings):
        try:
            seen = probe(model, json.loads(path.read_text()))
        except Exception as error:
            traceback.print_exc()
            seen = {"error": f"{type(error).__name__}: {error}"}
        path.with_suffix(".json").write_text(json.dumps(seen, indent=1))
        gc.collect()


if __name__ == "__main__":
    main(sys.argv[1:])
