"""What logs mean: lines that engines, systemd and the kernel really write, each with what `status` makes of it."""

import re

import pytest

from appliance.catalog import symptoms

FAILURES = {
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total": "CUDA out of memory",
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 5120 MiB on device 0: cudaMalloc failed: out of memory": "CUDA out of memory",
    "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 1.00 GiB": "the GPU is out of memory",
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`": "no room for the KV cache on the GPU",
    "ValueError: Free memory on device cuda:0 (3.1/22.0 GiB) on startup is less than desired GPU memory utilization (0.9, 19.8 GiB)": "other programs hold the GPU's memory",
    "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.": "no room for the KV cache on the GPU",
    "RuntimeError: CUDA error: no kernel image is available for execution on the device": "this build has no code for this GPU",
    "RuntimeError: The NVIDIA driver on your system is too old (found version 12040)": "the GPU driver is too old for this build",
    "RuntimeError: No CUDA GPUs are available": "the GPU cannot be reached",
    "llama_model_load: error loading model: unknown model architecture: 'qwen9'": "this release does not know the model's architecture",
    "gguf_init_from_file_impl: invalid magic characters: '<!DO', expected 'GGUF'": "its weights cannot be read",
    "vllm: error: unrecognized arguments: --fast": "it does not know one of its flags",
    "[Errno 98] Address already in use": "its address is taken",
    "libcudart.so.12: cannot open shared object file: No such file or directory": "a part of its installation is missing",
    "/bin/llama-server: /lib/libc.so.6: version `GLIBC_2.38' not found (required by x)": "a part of its installation is missing",
    "x.service: A process of this unit has been killed by the OOM killer.": "out of RAM: the kernel killed it",
    "terminate called after throwing an instance of 'std::bad_alloc'": "out of RAM",
    "OSError: [Errno 28] No space left on device": "the disk is full",
    "x.service: Main process exited, code=exited, status=203/EXEC": "its program is not there",
    "x.service: Main process exited, code=dumped, status=11/SEGV": "the engine crashed",
    "x.service: start-post operation timed out. Terminating.": "it was not ready in time",
}  # fmt: skip
PROGRESS = {
    "Loading safetensors checkpoint shards:  62% Completed | 5/8 [00:03<00:02,  1.6it/s]": "loading 62 %",
    "Loading pt checkpoint shards: 100% Completed | 2/2": "loading 100 %",
    "Loading weights:  40%|####      | 4/10": "loading 40 %",
    "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  31%|###   | 21/67": "capturing CUDA graphs 31 %",
    "srv    load_model: loading model tensors": "loading",
    "common_init_from_params: warming up the model with an empty run - please wait": "warming up",
}


@pytest.mark.parametrize(("line", "says"), FAILURES.items())
def test_a_known_failure_is_said_in_few_words(line: str, says: str) -> None:
    seen = symptoms.failure(["begins", line, "goes on"])
    assert seen
    assert (seen.says, seen.line) == (says, line)


@pytest.mark.parametrize(("line", "says"), PROGRESS.items())
def test_how_far_it_is_is_what_the_last_line_says(line: str, says: str) -> None:
    assert symptoms.progress(["Loading weights:  1%|", "something else", line, "unknown words"]) == says


def test_what_says_more_is_told_whatever_comes_last() -> None:
    lines = [
        "CUDA out of memory. Tried to allocate",
        "RuntimeError: Engine core initialization failed. See root cause above",
    ]
    seen = symptoms.failure(lines)
    assert seen
    assert seen.says == "CUDA out of memory"


START = "2026-11-28T17:13:45+0000 host systemd[1]: Starting llm-appliance-model@a.service - LLM appliance: a on vllm..."


def test_the_last_attempt_tells_why_or_the_one_before_when_that_has_only_begun() -> None:
    older = [START, "Address already in use", START, "CUDA out of memory"]
    for lines in (older, [*older, START], [*older, START, "INFO loading"]):
        seen = symptoms.failure(lines)
        assert seen
        assert seen.says == "CUDA out of memory"


def test_how_far_an_earlier_attempt_came_says_nothing_of_this_one() -> None:
    assert symptoms.progress([START, "Loading weights:  99%|", START, "hello"]) == ""


def test_words_that_nobody_knows_are_no_failure() -> None:
    assert symptoms.failure(["all is well", ""]) is None
    assert symptoms.failure([]) is None


def test_every_pattern_can_be_read_and_a_group_is_used() -> None:
    for one in (*symptoms.symptoms().failures, *symptoms.symptoms().progress):
        assert bool(re.compile(one.pattern).groups) >= ("{1}" in one.says), one.pattern
