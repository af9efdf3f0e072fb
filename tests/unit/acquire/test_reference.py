"""Sources: what is for a hub and what is a path, and that nothing gets lost on the way through a Reference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.acquire.hub import same
from appliance.acquire.hub.reference import is_reference, parse
from appliance.errors import SpecError

C = "0123456789" * 4


@pytest.mark.parametrize(
    ("text", "hub", "revision", "file", "pick"),
    [
        ("Qwen/Qwen3-8B", "", "", "", ""),
        ("hf:Qwen/Qwen3-8B", "hf", "", "", ""),
        ("hf:Qwen/Qwen3-8B@main", "hf", "main", "", ""),
        ("hf:Qwen/Qwen3-8B@refs/pr/7", "hf", "refs/pr/7", "", ""),
        (f"ms:Qwen/Qwen3-8B-GGUF@{C}/Q4_K_M/a-00001-of-00002.gguf", "ms", C, "Q4_K_M/a-00001-of-00002.gguf", ""),
        ("hf:Qwen/Qwen3-8B-GGUF:Q4_K_M", "hf", "", "", "Q4_K_M"),
        ("hf:Qwen/Qwen3-8B-GGUF@v1:Q4_K_M", "hf", "v1", "", "Q4_K_M"),
        ("hf:Qwen/Qwen3-8B-GGUF/*Q4*.gguf", "hf", "", "*Q4*.gguf", ""),
        ("ollama:qwen3:8b", "ollama", "8b", "", ""),
        (f"ollama:somebody/tuned:v1@sha256:{'0' * 64}", "ollama", "v1", "", ""),
    ],
)
def test_a_source_is_taken_apart(text: str, hub: str, revision: str, file: str, pick: str) -> None:
    found = parse(text)
    assert is_reference(text)
    assert (found.hub, found.revision, found.file, found.pick) == (hub, revision, file, pick)
    assert str(found) == text


@pytest.mark.parametrize(
    "text", ["/srv/a.gguf", "a.gguf", "models/a.gguf", "./a/b", "../a/b", "none", "builtin:smoke", "a/b/c", ""]
)
def test_a_path_is_none(text: str) -> None:
    assert not is_reference(text)


@given(st.text(max_size=80))
def test_whatever_is_typed_is_understood_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except SpecError:
        return
    assert parse(str(found)) == found
    assert ".." not in found.file.split("/")


def test_what_is_pinned_is_what_was_asked_for() -> None:
    ours = f"hf:o/r@{C}/Q-Q4_K_M-00001-of-00002.gguf"
    for asked in (
        "o/r",
        "hf:o/r",
        "hf:o/r@main",
        "hf:o/r:q4_k_m",
        "o/r:Q4_K_M",
        f"hf:o/r@{C}",
        "hf:o/r/*Q4_K_M*.gguf",
        ours,
    ):
        assert same(ours, asked), asked
    for asked in ("ms:o/r", "hf:o/other", "hf:o/r:Q8_0", f"hf:o/r@{C[::-1]}", "hf:o/r/b.gguf", "/o/r"):
        assert not same(ours, asked), asked


def test_a_digest_that_is_named_is_part_of_what_is_asked_for() -> None:
    one, other = "0" * 64, "1" * 64
    assert same(f"https://a/b.gguf#sha256={one}", f"https://a/b.gguf#sha256={one}")
    assert not same(f"https://a/b.gguf#sha256={one}", f"https://a/b.gguf#sha256={other}")
    ours = f"ollama:qwen3:8b@sha256:{one}"
    assert same(ours, "ollama:qwen3:8b")
    assert same(ours, ours)
    for asked in ("ollama:qwen3", "ollama:qwen3:4b", f"ollama:qwen3:8b@sha256:{other}", "hf:o/qwen3", "o/qwen3"):
        assert not same(ours, asked), asked
    assert not same(f"ollama:me/x:latest@sha256:{one}", "me/x")
    assert str(parse("ollama:qwen3")) == "ollama:qwen3:latest"
