"""What is written is a tar, an OCI layout and a bundle; a run that was killed is taken up at any place."""

import hashlib
import json
import os
import resource
import signal
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.acquire.bundle import Bundle
from appliance.acquire.bundle.base import of_bundle
from appliance.bundle import tar
from appliance.errors import ArtifactError
from appliance.report import Plain
from appliance.system import pump
from tests.unit.bundle import small

QUIET = Plain(open(os.devnull, "w"))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    (one,), (two,) = small.write(tmp_path / "a/site.llmb"), small.write(tmp_path / "b/site.llmb")
    assert one.read_bytes() == two.read_bytes()


def test_any_tar_program_reads_it(tmp_path: Path) -> None:
    (path,) = small.write(tmp_path / "site.llmb")
    with tarfile.open(path, "r:") as archive:
        members = archive.getmembers()
        assert [one.name for one in members[:4]] == ["bundle.json", "bundle.json.minisig", "oci-layout", "index.json"]
        assert {(one.mode, one.uid, one.mtime) for one in members} == {(0o644, 0, 0)}
        for member in members[4:]:
            stream = archive.extractfile(member)
            assert stream is not None
            assert member.name == f"blobs/sha256/{digest(stream.read())}"
            assert member.offset_data % tar.ALIGN == 0


def test_it_is_an_oci_layout(tmp_path: Path) -> None:
    """As the image specification wants it: each descriptor names a blob by digest and size, none is left out."""
    (path,) = small.write(tmp_path / "site.llmb")
    with tarfile.open(path, "r:") as archive:
        blobs = {one.name: archive.extractfile(one).read() for one in archive.getmembers()}  # type: ignore[union-attr]
    assert json.loads(blobs["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}

    def blob(descriptor: dict[str, object]) -> bytes:
        content = blobs[f"blobs/sha256/{str(descriptor['digest']).removeprefix('sha256:')}"]
        assert (f"sha256:{digest(content)}", len(content)) == (descriptor["digest"], descriptor["size"])
        return content

    (top,) = json.loads(blobs["index.json"])["manifests"]
    manifest = json.loads(blob(top))
    described = [top, manifest["config"], *manifest["layers"]]
    assert {one["digest"].removeprefix("sha256:") for one in described} == {
        name.rpartition("/")[2] for name in blobs if name.startswith("blobs/")
    }
    for one in described:
        assert blob(one) is not None


def test_what_is_there_twice_is_written_once(tmp_path: Path) -> None:
    """Both files of weights are the same, and so is the library of the engine under another name."""
    home = tmp_path / ".inputs"
    home.mkdir()
    root = small.tree(home)
    (root / "lib/again.so").write_bytes((root / "lib/large.so").read_bytes())
    (path,) = small.write(tmp_path / "site.llmb")
    with small.opened(path) as reader:
        digests = [one.digest for one in reader.index.payloads]
        assert len(digests) == len(set(digests))
        assert sum(one.size for one in reader.index.payloads if one.kind == "file") == (1 << 20) + 5
    small.check(path)
    use(path, tmp_path / "state")
    assert (tmp_path / "state/engines/engine/lib/again.so").read_bytes() == (root / "lib/large.so").read_bytes()


def use(path: Path, state: Path) -> None:
    with small.opened(path) as reader:
        bundle = Bundle(reader, str(state), ())
        (engine,) = reader.index.of("engine")
        bundle.bring(engine, state / "engines/engine", QUIET)
        for model in bundle.models:
            bundle.weights(model, QUIET)


def test_what_is_unpacked_is_what_was_packed(tmp_path: Path) -> None:
    (path,) = small.write(tmp_path / "site.llmb")
    use(path, tmp_path / "state")
    source, target = tmp_path / ".inputs/engine", tmp_path / "state/engines/engine"
    for one in source.rglob("*"):
        other = target / one.relative_to(source)
        if one.is_symlink():
            assert os.readlink(one) == os.readlink(other)
        elif one.is_file():
            assert one.read_bytes() == other.read_bytes()
            assert one.stat().st_mode & 0o111 == other.stat().st_mode & 0o111
    weights = sorted(path.read_bytes() for path in (tmp_path / "state/store/downloads").iterdir())
    assert weights == sorted(path.read_bytes() for path in (tmp_path / ".inputs").glob("*.gguf"))


@pytest.mark.parametrize("split", [0, 300_000])
def test_a_run_that_was_killed_anywhere_is_taken_up(tmp_path: Path, split: int) -> None:
    recipe = small.Recipe(split=split)
    wanted = [path.read_bytes() for path in small.write(tmp_path / "whole/site.llmb", recipe)]
    for until in range(8):
        target = tmp_path / f"cut-{until}/site.llmb"
        with pytest.raises(small.Killed):
            small.write(target, recipe, until=until)
        assert not list(target.parent.glob("site.llmb*"))
        files = small.write(target, recipe)
        assert [path.read_bytes() for path in files] == wanted
        assert {path.name for path in target.parent.iterdir()} == {path.name for path in files} | {".inputs"}


def test_a_run_with_other_inputs_begins_anew(tmp_path: Path) -> None:
    target = tmp_path / "site.llmb"
    with pytest.raises(small.Killed):
        small.write(target, small.Recipe(seed=1), until=6)
    (path,) = small.write(target, small.Recipe(seed=2))
    small.check(path)
    (other,) = small.write(tmp_path / "other/site.llmb", small.Recipe(seed=2))
    assert path.read_bytes() == other.read_bytes()


def test_an_input_that_changed_since_it_was_digested_is_told(tmp_path: Path) -> None:
    small.write(tmp_path / "site.llmb")

    def grown(path: Path) -> None:
        path.write_bytes(b"x" * path.stat().st_size)

    digests = small.model

    def other(home: Path, recipe: small.Recipe) -> object:
        found = digests(home, recipe)
        grown(home / f"weights-{recipe.seed}-1.gguf")
        return found

    small.model = other  # type: ignore[assignment]
    try:
        with pytest.raises(ArtifactError, match=r"weights-1-1\.gguf: its SHA-256 is .*, it was"):
            small.write(tmp_path / "again/site.llmb")
    finally:
        small.model = digests
    assert not (tmp_path / "again/site.llmb").exists()


def test_a_bundle_after_another_holds_what_is_new_only(tmp_path: Path) -> None:
    (first,) = small.write(tmp_path / "first/site.llmb")
    with small.opened(first) as reader:
        base = of_bundle(reader.index).digests
    second = small.Recipe(base=base, weights=(70_001, 300_000, 999), serial=1)
    (path,) = small.write(tmp_path / "second/site.llmb", second)
    assert path.stat().st_size < 70_000
    with small.opened(path) as reader:
        assert [one.size for one in reader.index.payloads if one.kind == "weights"] == [999]
        assert {70_001, 300_000} <= {one.size for one in reader.index.base}
        empty = Bundle(reader, str(tmp_path / "empty"), ())
        assert len(empty.missing_base()) == len(reader.index.base)
    small.check(path)


def test_a_bundle_that_builds_on_another_takes_its_files_from_the_machine(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (first,) = small.write(tmp_path / "first/site.llmb")
    use(first, state)
    with small.opened(first) as reader:
        base = frozenset(one.digest for one in reader.index.payloads if one.kind == "file")
    home = tmp_path / "second/.inputs"
    home.mkdir(parents=True)
    (small.tree(home) / "lib/notes.txt").write_bytes(b"another version")
    (second,) = small.write(tmp_path / "second/site.llmb", small.Recipe(base=base, seed=2))
    with small.opened(second) as reader:
        bundle = Bundle(reader, str(state), ())
        assert bundle.missing_base() == ()
        (engine,) = reader.index.of("engine")
        bundle.bring(engine, state / "engines/newer", QUIET)
    large = [state / "engines" / name / "lib/large.so" for name in ("engine", "newer")]
    assert large[0].samefile(large[1])
    # What rotted on this machine is not taken.
    content = bytearray(large[0].read_bytes())
    content[9] ^= 1
    large[0].write_bytes(content)
    with small.opened(second) as reader:
        with pytest.raises(ArtifactError, match="its SHA-256 is"):
            Bundle(reader, str(state), ()).bring(reader.index.of("engine")[0], state / "engines/third", QUIET)
    assert not (state / "engines/third").exists()


@contextmanager
def no_larger_than(size: int) -> Iterator[None]:
    """Let the kernel refuse files that are larger, as it does on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_an_installation_that_was_cut_off_goes_on_with_what_is_there(tmp_path: Path) -> None:
    """Three chunks of weights, and two are on the disk: those are read from there, the third from the bundle."""
    (path,) = small.write(tmp_path / "site.llmb", small.Recipe(weights=(130 << 20,)))
    state = tmp_path / "state"
    with small.opened(path) as reader:
        bundle = Bundle(reader, str(state), ())
        (model,) = bundle.models
        with no_larger_than(129 << 20), pytest.raises(OSError, match="File too large"):
            bundle.weights(model, QUIET)
        (half,) = (state / "store/downloads").iterdir()
        assert half.suffix == ".part"
        with path.open("r+b") as stream:
            # What is on the disk is not asked for again: these bytes of the bundle could not be had.
            stream.seek(reader.payload(model.weights.files[0].sha256).offset)
            stream.write(b"damaged")
        bundle.weights(model, QUIET)
    (whole,) = (state / "store/downloads").iterdir()
    assert digest(whole.read_bytes()) == model.weights.files[0].sha256


def test_a_disk_that_is_full_ends_it_and_the_next_run_goes_on(tmp_path: Path) -> None:
    target = tmp_path / "site.llmb"
    with no_larger_than(1_200_000), pytest.raises(OSError, match="File too large"):
        small.write(target, small.Recipe(weights=(70_001, 2_000_000)))
    assert not target.exists()
    (path,) = small.write(target, small.Recipe(weights=(70_001, 2_000_000)))
    small.check(path)


# ------------------------------------------------------------------------------------------------ the pump


@pytest.mark.parametrize("size", [0, 1, pump.BLOCK, pump.BLOCK + 1, 9 * pump.BLOCK + 77])
def test_every_taker_gets_every_byte_in_order(size: int) -> None:
    content = small.content(4, size)
    place, heard = 0, [bytearray(), bytearray()]

    def fill(view: memoryview) -> int:
        nonlocal place
        some = content[place : place + min(len(view), 1_000_003)]
        view[: len(some)] = some
        place += len(some)
        return len(some)

    pump.pump(fill, [one.extend for one in heard], size)
    assert heard == [content, content]


def test_whoever_fails_ends_it(tmp_path: Path) -> None:
    def fill(view: memoryview) -> int:
        return len(view)

    def fail(_view: memoryview) -> None:
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        pump.pump(fill, [fail, lambda _view: None], 100 * pump.BLOCK)
    with pytest.raises(EOFError):
        pump.pump(lambda _view: 0, [lambda _view: None], 3 * pump.BLOCK)


def test_a_directory_with_what_a_bundle_cannot_hold_is_refused(tmp_path: Path) -> None:
    from appliance.acquire.bundle import pack

    (tmp_path / "engine").mkdir()
    (tmp_path / "engine/out").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match="out of its directory"):
        pack.look(tmp_path / "engine")
    (tmp_path / "engine/out").unlink()
    os.mkfifo(tmp_path / "engine/pipe")
    with pytest.raises(ArtifactError, match="neither a file nor a link"):
        pack.look(tmp_path / "engine")


def test_an_engine_for_less_of_a_processor_is_taken_for_more_of_it(tmp_path: Path) -> None:
    (path,) = small.write(tmp_path / "site.llmb", small.Recipe(target=replace(small.TARGET, cpu_flags=("avx2",))))
    elsewhere = replace(small.ENGINE, digest="f" * 64)
    with small.opened(path) as reader:
        assert Bundle(reader, str(tmp_path), ("avx2", "avx512f")).component(elsewhere) is not None
        assert Bundle(reader, str(tmp_path), ("sse4_2",)).component(elsewhere) is None
        assert Bundle(reader, str(tmp_path), ("avx2",)).component(replace(elsewhere, pins=("GGML_CUDA=ON",))) is None


def test_a_run_that_was_killed_while_it_showed_its_parts_is_taken_up(tmp_path: Path) -> None:
    """Some parts have their names, others are drafts still, and the journal says that all is done."""
    recipe = small.Recipe(split=300_000)
    wanted = [path.read_bytes() for path in small.write(tmp_path / "whole/site.llmb", recipe)]
    for shown in range(1, 5):
        target = tmp_path / f"{shown}/site.llmb"
        with pytest.raises(small.Killed):
            small.write(target, recipe, until=7)
        for number in range(5, 5 - shown, -1):
            draft = target.with_name(f".site.llmb.{number}.new")
            if draft.exists():
                draft.rename(target.with_name(f"site.llmb.{number:03}"))
        assert [path.read_bytes() for path in small.write(target, recipe)] == wanted


def test_files_of_two_engines_may_be_of_different_mode(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (first,) = small.write(tmp_path / "first/site.llmb")
    use(first, state)
    with small.opened(first) as reader:
        base = frozenset(one.digest for one in reader.index.payloads if one.kind == "file")
    home = tmp_path / "second/.inputs"
    home.mkdir(parents=True)
    (small.tree(home) / "lib/large.so").chmod(0o755)
    (second,) = small.write(tmp_path / "second/site.llmb", small.Recipe(base=base, seed=2))
    with small.opened(second) as reader:
        Bundle(reader, str(state), ()).bring(reader.index.of("engine")[0], state / "engines/newer", QUIET)
    modes = [(state / "engines" / name / "lib/large.so").stat().st_mode & 0o777 for name in ("engine", "newer")]
    assert modes == [0o644, 0o755]
