"""From a path to weights: files, splits, directories, and everything people give by mistake."""

import gzip
import io
import json
import os
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import ArtifactError, ExitCode
from appliance.weights.inspect import inspect
from tests.unit.weights.build import (
    ARRAY,
    CONFIG,
    I32,
    MODEL,
    STRING,
    U16,
    U32,
    changed,
    directory,
    gguf,
    safetensors,
    shards,
)


def refused(path: Path, *words: str) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        inspect(path)
    error = caught.value
    assert error.code is ExitCode.ARTIFACT
    for word in words:
        assert word in f"{error.message}\n{error.hint}"
    assert error.message.isprintable()
    assert error.hint.isprintable()
    assert error.hint
    return error


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# GGUF


def test_a_gguf_file(tmp_path: Path) -> None:
    weights = inspect(written(tmp_path / "tiny.gguf", gguf()))
    assert (weights.format, weights.architecture, weights.quantisation) == ("gguf", "qwen3", "F16")
    assert (weights.context_length, weights.layers, weights.kv_heads, weights.head_dim) == (4096, 2, 2, 16)
    assert (weights.parameters, weights.chat_template) == (1088, True)
    assert [(file.name, file.size, file.sha256) for file in weights.files] == [("tiny.gguf", len(gguf()), "")]
    assert weights.kv_bytes_per_token == 2 * 2 * 2 * 16 * 2


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    assert inspect(written(tmp_path / "sha256-00ff", gguf())).format == "gguf"


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "tiny.gguf", gguf())
    assert inspect(Path("tiny.gguf")).files[0].path == str(tmp_path / "tiny.gguf")
    directory(tmp_path / "d")
    monkeypatch.chdir(tmp_path / "d")
    assert inspect(Path()).format == "safetensors"


def test_a_link_as_in_a_hub_cache(tmp_path: Path) -> None:
    blob = written(tmp_path / "0123abcd", gguf())
    (tmp_path / "tiny.gguf").symlink_to(blob.name)
    file = inspect(tmp_path / "tiny.gguf").files[0]
    assert (file.name, file.path) == ("tiny.gguf", str(blob))


def test_heads_that_differ_by_layer_keep_the_cache_size(tmp_path: Path) -> None:
    pairs = changed(head_count_kv=("qwen3.attention.head_count_kv", ARRAY, (I32, [3, 0])))
    assert inspect(written(tmp_path / "m", gguf(pairs))).kv_heads == 2


def test_what_the_header_leaves_out_follows_from_the_rest(tmp_path: Path) -> None:
    left = tuple(one for one in MODEL if not one[0].endswith(("key_length", "head_count_kv", "file_type", "template")))
    weights = inspect(written(tmp_path / "m", gguf(left)))
    assert (weights.head_dim, weights.kv_heads, weights.chat_template) == (16, 4, False)
    assert weights.quantisation in ("F16", "Q4_K")


@pytest.mark.parametrize(("number", "name"), [(0, "F32"), (15, "Q4_K_M"), (1024 + 7, "Q8_0"), (38, "MXFP4_MOE")])
def test_file_types_have_names(tmp_path: Path, number: int, name: str) -> None:
    pairs = changed(file_type=("general.file_type", U32, number))
    assert inspect(written(tmp_path / "m", gguf(pairs))).quantisation == name


def test_a_gguf_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    refused(written(path, gguf((*MODEL, ("general.type", STRING, "adapter")))), "a LoRA adapter, not a whole model")
    refused(written(path, gguf(changed(architecture=("general.architecture", STRING, "clip")))), "projector")
    refused(written(path, gguf(tensors=(), data=0)), "holds no tensors")
    refused(written(path, gguf(MODEL[1:])), "no general.architecture")


def test_a_truncated_gguf_says_numbers(tmp_path: Path) -> None:
    size = len(gguf())
    path = written(tmp_path / "m.gguf", gguf()[:-100])
    refused(path, f"{path} is truncated: has {size - 100:,} bytes, header promises {size:,}", "Download or copy")


# Split GGUF


@pytest.mark.parametrize("given", [0, 1, 2])
def test_any_shard_brings_all_in_order(tmp_path: Path, given: int) -> None:
    paths = shards(tmp_path)
    weights = inspect(paths[given])
    assert [file.name for file in weights.files] == [path.name for path in paths]
    assert (weights.parameters, weights.architecture, weights.context_length) == (192, "qwen3", 4096)
    assert weights.size == sum(path.stat().st_size for path in paths)


def test_linked_shards_are_found_beside_the_link(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for path in shards(blobs):
        path.rename(blobs / f"blob{path.name[5:10]}")
        (snapshot / path.name).symlink_to(f"../blobs/blob{path.name[5:10]}")
    weights = inspect(snapshot / "tiny-00002-of-00003.gguf")
    assert weights.files[0].name == "tiny-00001-of-00003.gguf"
    assert weights.files[0].path == str(blobs / "blob00001")


def test_missing_shards_are_named(tmp_path: Path) -> None:
    paths = shards(tmp_path, 6)
    for path in paths[1:]:
        path.unlink()
    refused(paths[0], "5 of 6 shards missing", paths[1].name, paths[3].name + ", ...")


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    written(paths[2], paths[2].read_bytes()[:-1])
    refused(paths[0], f"{paths[2]} is truncated")


def test_a_shard_whose_link_leads_nowhere(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    paths[1].unlink()
    paths[1].symlink_to("gone")
    refused(paths[0], f"{paths[1]} is a link to", "gone', which does not exist")


def test_shards_that_were_swapped(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    paths[1].rename(tmp_path / "other")
    paths[2].rename(paths[1])
    (tmp_path / "other").rename(paths[2])
    refused(paths[0], f"{paths[1]} should be shard 2 of 3; its header says 3 of 3")


def test_names_and_headers_that_disagree(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    refused(paths[1].rename(tmp_path / "tiny-00002-of-00005.gguf"), "its name says 5 shards, its header 3")
    refused(paths[0].rename(tmp_path / "renamed.gguf"), "is shard 1 of 3", "NAME-00001-of-00003.gguf")
    whole = written(tmp_path / "whole-00001-of-00002.gguf", gguf())
    refused(whole, "its name says 2 shards, its header 0")
    refused(paths[2].rename(tmp_path / "tiny-00007-of-00003.gguf"), "its name does not fit")


def test_tensors_that_do_not_add_up(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    split = (("split.no", U16, 1), ("split.count", U16, 3))
    written(paths[1], gguf(split, (), data=0))
    refused(paths[0], "the 3 shards hold 2 tensors, the first promises 3")


@pytest.mark.parametrize("name", ["m-00001-of-00001.gguf", "m-00000-of-00000.gguf", "m-00003-of-00001.gguf"])
def test_a_whole_file_named_like_a_shard(tmp_path: Path, name: str) -> None:
    assert len(inspect(written(tmp_path / name, gguf())).files) == 1


# Safetensors directories


def test_a_safetensors_directory(tmp_path: Path) -> None:
    path = directory(tmp_path / "model")
    written(path / "merges.txt", b"a b")
    written(path / ".hidden.json", b"{}")
    written(path / "notes.txt", b"no")
    weights = inspect(path)
    assert (weights.format, weights.architecture, weights.quantisation) == (
        "safetensors",
        "Qwen3ForCausalLM",
        "bfloat16",
    )
    assert (weights.context_length, weights.layers, weights.kv_heads, weights.head_dim) == (2048, 2, 2, 32)
    assert (weights.parameters, weights.chat_template) == (48, True)
    names = [file.name for file in weights.files]
    assert names == ["model.safetensors", "config.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"]


def test_shards_by_index(tmp_path: Path) -> None:
    weights = inspect(directory(tmp_path / "m", count=3))
    assert [file.name for file in weights.files][:3] == [
        f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)
    ]
    assert "model.safetensors.index.json" in [file.name for file in weights.files]
    assert weights.parameters == 24


def test_shards_without_index(tmp_path: Path) -> None:
    path = directory(tmp_path / "m", count=3)
    (path / "model.safetensors.index.json").unlink()
    assert inspect(path).parameters == 24
    (path / "model-00002-of-00003.safetensors").unlink()
    refused(path, "1 of 3 shards missing: model-00002-of-00003.safetensors")


def test_a_second_copy_of_the_weights_is_left_alone(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    written(path / "consolidated.safetensors", safetensors())
    assert "consolidated.safetensors" not in [file.name for file in inspect(path).files]
    (path / "model.safetensors").rename(path / "other.safetensors")
    refused(path, "has 2 .safetensors files and no model.safetensors.index.json")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    path = directory(tmp_path / "m", count=3)
    (path / "model-00003-of-00003.safetensors").unlink()
    refused(path, "1 of 3 shards missing: model-00003-of-00003.safetensors")


def test_a_truncated_safetensors_shard_is_named(tmp_path: Path) -> None:
    path = directory(tmp_path / "m", count=3)
    shard = path / "model-00002-of-00003.safetensors"
    size = shard.stat().st_size
    written(shard, shard.read_bytes()[:-7])
    refused(path, f"{shard} is truncated: has {size - 7} bytes, header promises {size}")


def test_an_index_that_lies(tmp_path: Path) -> None:
    path = directory(tmp_path / "m", count=2)
    index = path / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**places, "more": places["layer.1"]}}))
    refused(path, "does not hold tensor 'more'")
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd.safetensors"}}))
    refused(path, "which is no shard name")
    index.write_text(json.dumps({"weight_map": {}}))
    refused(path, "has no weight_map")


CODE: dict[str, Callable[[Path], object]] = {
    "a Python file": lambda path: written(path / "modeling_x.py", b""),
    "auto_map in config.json": lambda path: (path / "config.json").write_text(
        json.dumps({**CONFIG, "auto_map": {"AutoModel": "modeling_x.X"}})
    ),
    "auto_map in tokenizer_config.json": lambda path: (path / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["x.X", None]}})
    ),
    "auto_map in a part of config.json": lambda path: (path / "config.json").write_text(
        json.dumps({**CONFIG, "vision_config": {"auto_map": {"AutoModel": "x.X"}}})
    ),
}


@pytest.mark.parametrize("change", CODE.values(), ids=CODE.keys())
def test_that_a_model_brings_code_is_told(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = directory(tmp_path / "m")
    before = inspect(path)
    assert not before.code
    change(path)
    after = inspect(path)
    assert after.code
    assert {file.name for file in after.files} - {"tokenizer_config.json"} == {file.name for file in before.files} - {
        "tokenizer_config.json"
    }


def test_python_files_are_left_behind(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    before = inspect(path)
    for name in ("modeling_x.py", "setup.py", "a\x1b[31m.py"):
        written(path / name, b"raise SystemExit")
    after = inspect(path)
    assert after.code
    assert after.files == before.files
    (path / "a\x1b[31m.py").rename(path / "a\n.json")
    refused(path, "control characters")


def test_a_gguf_file_brings_no_code(tmp_path: Path) -> None:
    written(tmp_path / "modeling_x.py", b"")
    assert not inspect(written(tmp_path / "m.gguf", gguf())).code


def test_only_pickles_are_refused(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    refused(path, "PyTorch pickles only", "runs the code inside it", "safetensors or GGUF")


BAD_CONFIGS = {
    "{": "not valid JSON",
    "[]": "not a JSON object",
    "{}": "names no architectures",
    '{"architectures": [1]}': "something else than names",
    '{"architectures": ["a b"]}': "something else than names",
    '{"architectures": ["A"], "num_hidden_layers": -1}': "num_hidden_layers is '-1', not a number",
    '{"architectures": ["A"], "num_hidden_layers": "2"}': "num_hidden_layers is '2', not a number",
    '{"architectures": ["A"], "head_dim": true}': "head_dim is 'True', not a number",
    '{"architectures": ["A"], "torch_dtype": 5}': "dtype is '5', not a name",
    "": "config.json is empty: 0 bytes",
    "version https://git-lfs.github.com/spec/v1\nsize 12\n": "Git LFS pointer",
    "[" * 100_000: "nested too deeply",
    " " * (17 << 20): "config.json has 17,825,792 bytes; 16,777,216 are allowed",
}


@pytest.mark.parametrize(("content", "words"), BAD_CONFIGS.items(), ids=BAD_CONFIGS.values())
def test_a_bad_config(tmp_path: Path, content: str, words: str) -> None:
    path = directory(tmp_path / "m")
    (path / "config.json").write_text(content)
    refused(path, words, "config.json")


def test_no_config(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    (path / "config.json").unlink()
    refused(path, "no config.json", "Download the whole repository")
    written(path / "adapter_config.json", b"{}")
    refused(path, "a LoRA adapter")


def test_other_spellings_of_a_config(tmp_path: Path) -> None:
    text = {key: CONFIG[key] for key in CONFIG if key not in ("architectures", "torch_dtype", "head_dim")}
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "dtype": "torch.float16", "text_config": text}
    weights = inspect(directory(tmp_path / "m", config=outer))
    assert (weights.layers, weights.head_dim, weights.quantisation) == (2, 16, "float16")
    del outer["dtype"]
    assert inspect(directory(tmp_path / "m", config=outer)).quantisation == "bfloat16"
    text["quantization_config"] = {"quant_method": "awq"}
    assert inspect(directory(tmp_path / "m", config=outer)).quantisation == "awq", "rather than the type of the rest"
    outer["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3"}
    assert inspect(directory(tmp_path / "m", config=outer)).quantisation == "fp8"
    for odd in ({}, {"quant_method": 5}, {"quant_method": "a b"}, {"quant_method": ""}, "fp8", None):
        found = inspect(directory(tmp_path / "m", config={**CONFIG, "quantization_config": odd}))
        assert found.quantisation == CONFIG["torch_dtype"]
    latent = {**CONFIG, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    weights = inspect(directory(tmp_path / "m", config=latent))
    assert (weights.kv_heads, weights.head_dim) == (1, 576)


def test_chat_templates(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    (path / "tokenizer_config.json").write_text('{"chat_template": null}')
    assert not inspect(path).chat_template
    (path / "chat_template.json").write_text('{"chat_template": "x"}')
    assert inspect(path).chat_template
    (path / "chat_template.json").unlink()
    (path / "chat_template.jinja").write_text("x")
    weights = inspect(path)
    assert weights.chat_template
    assert "chat_template.jinja" in [file.name for file in weights.files]


def test_a_pointer_among_the_tokeniser_files(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    (path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 11422654\n")
    refused(path, "tokenizer.json is a Git LFS pointer", "(11,422,654 bytes)", f"git -C {path} lfs pull")


def test_a_pointer_instead_of_a_shard(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    (path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    refused(path, "model.safetensors is a Git LFS pointer", "lfs pull")
    (path / "model.safetensors").write_text("Entry not found, and this is no safetensors file")
    refused(path, "model.safetensors is not a safetensors file: claims a header of")


def test_directories_without_weights(tmp_path: Path) -> None:
    refused(tmp_path, "is a directory without weights: no .gguf and no .safetensors among 0 names")
    written(tmp_path / "a b.gguf", gguf())
    refused(tmp_path, "is a directory with 1 GGUF file:", f"Give the file itself: '{tmp_path}/a b.gguf'")


def test_one_safetensors_file(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    refused(path / "model.safetensors", "is one safetensors file", f"Give its directory: {path}")


# What people give by mistake


def packed(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(name: str) -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, "x")

    return packed(write)


def tarred() -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("m.gguf"))

    return packed(write)


FOREIGN = {
    "empty": (b"", "is empty: 0 bytes"),
    "zeros": (bytes(9000), "zero bytes: its download was not finished"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5027783488\n", "lfs pull"),
    "pointer's size": (b"version https://git-lfs.github.com/spec/v1\nsize 5027783488\n", "(5,027,783,488 bytes)"),
    "pickle": (pickle.dumps({"a": 1}, protocol=2), "a PyTorch pickle"),
    "torch zip": (zipped("archive/data.pkl"), "a PyTorch pickle: to load one runs the code inside it"),
    "zip": (zipped("readme"), "a zip archive"),
    "gzip": (gzip.compress(b"x"), "a gzip archive"),
    "tar": (tarred(), "a tar archive"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(20), "a zstd archive"),
    "page": (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page of 53 bytes"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML page"),
    "answer": (b'{"error": "Repository not found"}', "a server's error answer, not weights: 'Repository not found'"),
    "answer inside": (b'{"error": {"message": "no\\u001b[31m"}}', r"'no\x1b[31m'"),
    "JSON": (b'{"architectures": ["A"]}', "is a JSON file of 24 bytes, not weights"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(20), "an HDF5 file"),
    "old GGML": (b"tjgg" + bytes(20), "the GGML format from before GGUF"),
    "ONNX": (bytes.fromhex("0807120770 79746f726368"), "is not a GGUF file: begins with bytes 08 07 12 07 70 79 74 6f"),
    "text": (b"Entry not found", "is not a GGUF file: begins with 'Entry not found'"),
    "short": (b"GG", "begins with 'GG'"),
    "cut": (b"GGUF", "truncated: has 4 bytes"),
}


@pytest.mark.parametrize(("content", "words"), FOREIGN.values(), ids=FOREIGN.keys())
def test_other_files_are_told_by_content(tmp_path: Path, content: bytes, words: str) -> None:
    path = written(tmp_path / "model.gguf", content)
    assert str(path) in refused(path, words).message


def test_a_zip_named_bin_is_a_pickle(tmp_path: Path) -> None:
    refused(written(tmp_path / "pytorch_model.bin", zipped("readme")), "a PyTorch pickle")


def test_near_names(tmp_path: Path) -> None:
    written(tmp_path / "Qwen3-0.6B-Q8_0.gguf", gguf())
    refused(tmp_path / "qwen3-0.6b-q4_0.gguf", "does not exist", f"Did you mean {tmp_path}/Qwen3-0.6B-Q8_0.gguf?")
    refused(tmp_path / "zzz", f"{tmp_path}/zzz does not exist", f"ls -l {tmp_path}")
    refused(tmp_path / "none" / "deep" / "m.gguf", f"there is no directory {tmp_path}/none")
    refused(tmp_path / "Qwen3-0.6B-Q8_0.gguf" / "m", "is a file, not a directory")


def test_links_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").symlink_to("gone")
    refused(tmp_path / "m.gguf", "is a link to", "gone', which does not exist")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    refused(tmp_path / "a", "go round in a circle")


def test_special_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is a named pipe")
    os.mknod(tmp_path / "s", stat.S_IFSOCK | 0o600)
    refused(tmp_path / "s", "is a socket")
    refused(Path("/dev/null"), "/dev/null is a character device")


def test_a_pipe_inside_a_directory(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    os.mkfifo(path / "generation_config.json")
    refused(path, "generation_config.json is a named pipe")


def test_no_permission(tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf", gguf())
    path.chmod(0)
    was = os.geteuid()
    if was == 0:
        # Root reads everything: be nobody for the length of the question.
        os.seteuid(65534)
    try:
        error = refused(path, "permission denied for user id", f"namei -l {path}")
    finally:
        os.seteuid(was)
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert str(path) in error.message


@pytest.mark.parametrize("name", ["a\nb.gguf", "a\x1b[31m.gguf", "a\u202e.gguf", os.fsdecode(b"a\xff.gguf")])
def test_names_that_would_break_a_log(tmp_path: Path, name: str) -> None:
    written(tmp_path / name, gguf())
    refused(tmp_path / name, "control characters or is not valid UTF-8")
    link = tmp_path / "m.gguf"
    link.symlink_to(name)
    refused(link, "control characters or is not valid UTF-8")


def test_a_null_byte_and_a_long_name(tmp_path: Path) -> None:
    refused(Path("a\0b"), "control characters")
    refused(tmp_path / ("x" * 300), "cannot be read: File name too long")


def test_a_directory_of_too_many_names(tmp_path: Path) -> None:
    for number in range(10_001):
        (tmp_path / str(number)).touch()
    refused(tmp_path, "more than 10,000 names")
    refused(tmp_path / "m.gguf", "does not exist")
