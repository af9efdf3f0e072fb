"""A bundle that is not what was made is refused, and the message names the part; nothing of it is ever used."""

import os
import random
import shutil
from pathlib import Path

import pytest

from appliance.acquire.bundle import Bundle
from appliance.bundle import parts, tar
from appliance.errors import ArtifactError
from appliance.report import Plain
from tests.unit.bundle import small

QUIET = Plain(open(os.devnull, "w"))
PLACES = 200


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = small.write(tmp_path_factory.mktemp("whole") / "site.llmb")
    return path


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return list(small.write(tmp_path_factory.mktemp("split") / "site.llmb", small.Recipe(split=300_000)))


def flip(path: Path, place: int, bit: int = 0) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ (1 << bit)]))


def use(path: Path, state: Path) -> None:
    """Bring all that is in it to where it belongs, as an installation would."""
    with small.opened(path) as reader:
        bundle = Bundle(reader, str(state), ())
        for component in reader.index.of("engine"):
            bundle.bring(component, state / "engines" / "engine", QUIET)
        for model in bundle.models:
            bundle.weights(model, QUIET)


def active(state: Path) -> list[str]:
    """What would be started or served."""
    return [
        str(path) for path in state.glob("**/*") if path.is_file() and ".new" not in str(path) and path.suffix != ".part"
        and "bundles/trees" not in str(path)
    ]  # fmt: skip


def places(path: Path) -> list[int]:
    """Index, signature, OCI files, small payloads, weights, headers, last byte."""
    size = path.stat().st_size
    with small.opened(path) as reader:
        slot = len(reader.content)
        stretches = [(0, 512), (512, 512 + slot), *((at, at + 512 + length) for _, at, length in tar.head(slot)[1:])]
        stretches += [(one.offset - 512, one.offset + one.size) for one in reader.index.payloads]
    chance = random.Random(5)
    chosen = [0, size - 1, size - 1024]
    while len(chosen) < PLACES:
        begin, end = stretches[len(chosen) % len(stretches)]
        chosen.append(chance.randrange(begin, end))
    return chosen


def test_every_flipped_bit_is_found(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "site.llmb"
    shutil.copyfile(whole, copy)
    assert small.check(copy) == copy.stat().st_size
    for number, place in enumerate(places(whole)):
        flip(copy, place, number % 8)
        with pytest.raises(ArtifactError) as caught:
            small.check(copy)
        assert "site.llmb" in caught.value.message, place
        flip(copy, place, number % 8)
    assert small.check(copy) == copy.stat().st_size


def test_nothing_of_a_damaged_bundle_is_used(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "site.llmb"
    shutil.copyfile(whole, copy)
    use(copy, tmp_path / "right")
    wanted = len(active(tmp_path / "right"))
    with small.opened(copy) as reader:
        payloads = reader.index.payloads
    for payload in payloads:
        flip(copy, payload.offset + payload.size // 2)
        state = tmp_path / payload.digest[:8]
        if payload.kind == "manifest":
            continue
        with pytest.raises(ArtifactError, match="damaged"):
            use(copy, state)
        assert len(active(state)) < wanted
        assert not (state / "engines/engine").exists() or payload.kind == "weights"
        assert not (state / "store/downloads" / payload.digest).exists()
        flip(copy, payload.offset + payload.size // 2)


def test_a_bundle_that_is_cut_off_is_refused(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    chance = random.Random(6)
    lengths = [0, 1, 511, 512, 4096, len(content) - 1, *(chance.randrange(len(content)) for _ in range(44))]
    for length in lengths:
        copy = tmp_path / "site.llmb"
        copy.write_bytes(content[:length])
        with pytest.raises(ArtifactError) as caught:
            small.check(copy)
        assert "site.llmb" in caught.value.message, length


def test_a_bundle_that_goes_on_is_refused(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "site.llmb"
    copy.write_bytes(whole.read_bytes() + bytes(512))
    with pytest.raises(ArtifactError, match="goes on after"):
        small.check(copy)


def test_the_damaged_chunk_of_large_weights_is_named(tmp_path: Path) -> None:
    """130 MiB: three chunks, and the last byte of the second is wrong."""
    (path,) = small.write(tmp_path / "site.llmb", small.Recipe(weights=(130 << 20,)))
    with small.opened(path) as reader:
        payload = next(one for one in reader.index.payloads if one.kind == "weights")
    assert len(payload.chunks) == 2
    small.check(path)
    flip(path, payload.offset + (128 << 20) - 1)
    with pytest.raises(ArtifactError, match=r"part-0\.gguf of tiny .* damaged in bytes 67,108,864 to 134,217,728"):
        small.check(path)


# ------------------------------------------------------------------------------------------------ parts


def copied(split: list[Path], home: Path) -> list[Path]:
    home.mkdir(exist_ok=True)
    return [Path(shutil.copyfile(path, home / path.name)) for path in split]


def test_parts_are_read_in_place_as_one(split: list[Path], whole: Path, tmp_path: Path) -> None:
    assert len(split) > 4
    for path in split:
        assert path.stat().st_size <= 300_000
        assert small.check(path) == whole.stat().st_size
    assert small.check(split[0].with_name("site.llmb")) == whole.stat().st_size
    joined = b"".join(path.read_bytes()[parts.HEADER :] for path in split)
    assert joined == whole.read_bytes()


def test_parts_may_lie_in_several_places_and_under_swapped_names(split: list[Path], tmp_path: Path) -> None:
    here = copied(split, tmp_path / "one")
    (tmp_path / "two").mkdir()
    here[1].rename(tmp_path / "two" / here[1].name)
    with pytest.raises(ArtifactError, match=r"part 2 of \d+ is missing"):
        small.check(here[0])
    assert small.check(here[0], tmp_path / "two")
    here[2].rename(tmp_path / "one/x")
    here[3].rename(here[2])
    (tmp_path / "one/x").rename(here[3])
    assert small.check(here[0], tmp_path / "two")


def test_a_part_that_is_there_twice_is_named(split: list[Path], tmp_path: Path) -> None:
    here = copied(split, tmp_path / "one")
    shutil.copyfile(here[1], here[0].with_name("site.llmb.099"))
    with pytest.raises(ArtifactError, match=r"part 2 of \d+ is there twice: .*site\.llmb\.002 and .*site\.llmb\.099"):
        small.check(here[0])


def test_a_part_of_another_bundle_is_named(split: list[Path], tmp_path: Path) -> None:
    here = copied(split, tmp_path / "one")
    others = small.write(tmp_path / "other/site.llmb", small.Recipe(split=300_000, seed=2))
    shutil.copyfile(others[2], here[2])
    with pytest.raises(ArtifactError, match=r"part 3 of \d+ is missing; .*site\.llmb\.003 is part 3 of another bundle"):
        small.check(here[0])


def test_a_part_that_is_cut_off_is_named(split: list[Path], tmp_path: Path) -> None:
    here = copied(split, tmp_path / "one")
    with here[1].open("r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(ArtifactError, match=r"site\.llmb\.002"):
        small.check(here[0])
    here = copied(split, tmp_path / "one")
    with here[1].open("r+b") as stream:
        stream.truncate(200_000)
    with pytest.raises(ArtifactError, match=r"part 2 of \d+ .*: 200,000 bytes, 300,000 are promised"):
        small.check(here[0])


def test_a_damaged_part_is_named(split: list[Path], tmp_path: Path) -> None:
    here = copied(split, tmp_path / "one")
    for number, path in enumerate(here, 1):
        for place in (0, 40, parts.HEADER - 1, parts.HEADER, path.stat().st_size - 1):
            flip(path, place)
            with pytest.raises(ArtifactError) as caught:
                small.check(here[0])
            assert path.name in caught.value.message, (place, caught.value.message)
            flip(path, place)
        assert number


def test_bytes_that_moved_from_part_to_part_are_found(split: list[Path], tmp_path: Path) -> None:
    """Each part's header is right, and what follows is another part's."""
    here = copied(split, tmp_path / "one")
    contents = [path.read_bytes() for path in here[1:3]]
    for path, own, other in zip(here[1:3], contents, reversed(contents), strict=True):
        path.write_bytes(own[: parts.HEADER] + other[parts.HEADER :])
    with pytest.raises(ArtifactError, match=r"damaged"):
        small.check(here[0])


# -------------------------------------------------------------------------------------------- signatures


def test_a_bundle_that_nobody_signed_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    (path,) = small.write(tmp_path / "site.llmb", small.Recipe(secret=b""))
    with pytest.raises(ArtifactError, match="not signed"):
        small.opened(path)
    with small.opened(path, allow_unsigned=True) as reader:
        assert reader.key is None


def test_a_bundle_of_an_unknown_key_is_refused_even_where_unsigned_ones_are_taken(tmp_path: Path) -> None:
    (path,) = small.write(tmp_path / "site.llmb", small.Recipe(secret=small.OTHER_SECRET))
    for allow in (False, True):
        with pytest.raises(ArtifactError, match=f"unknown key {small.OTHER.id}; trusted: {small.KEY.id}"):
            small.opened(path, allow_unsigned=allow)
    with small.opened(path, trusted=(small.KEY, small.OTHER)) as reader:
        assert reader.key == small.OTHER


def test_the_signature_of_another_bundle_is_refused(whole: Path, tmp_path: Path) -> None:
    (other,) = small.write(tmp_path / "other.llmb", small.Recipe(seed=3))
    with small.opened(whole) as reader:
        _, place, size = tar.head(len(reader.content))[1]
    content = other.read_bytes()
    place += tar.BLOCK
    other.write_bytes(content[:place] + whole.read_bytes()[place : place + size] + content[place + size :])
    with pytest.raises(ArtifactError, match="signature is not that of its index"):
        small.opened(other)


def test_a_signature_that_was_cut_out_makes_it_an_unsigned_one(whole: Path, tmp_path: Path) -> None:
    with small.opened(whole) as reader:
        _, place, size = tar.head(len(reader.content))[1]
    content = bytearray(whole.read_bytes())
    content[place + tar.BLOCK : place + tar.BLOCK + size] = b"\n" * size
    copy = tmp_path / "site.llmb"
    copy.write_bytes(content)
    with pytest.raises(ArtifactError, match="not signed"):
        small.opened(copy)


# -------------------------------------------------------------------------------------------- directories


def test_as_a_directory_it_is_the_same_bundle(whole: Path, tmp_path: Path) -> None:
    home = extracted(whole, tmp_path / "dir")
    assert small.check(home) == whole.stat().st_size


def extracted(path: Path, target: Path) -> Path:
    blobs = target / "blobs/sha256"
    blobs.mkdir(parents=True)
    with small.opened(path) as reader:
        for name, place, size in tar.head(len(reader.content)):
            (target / name).write_bytes(reader.volume.read(place + tar.BLOCK, size))
        for one in reader.index.payloads:
            (blobs / one.digest).write_bytes(reader.volume.read(one.offset, one.size))
    return target


def test_what_is_wrong_in_a_directory_is_named(whole: Path, tmp_path: Path) -> None:
    home = extracted(whole, tmp_path / "dir")
    blobs = sorted((home / "blobs/sha256").iterdir())
    for blob in blobs:
        if not blob.stat().st_size:
            continue
        flip(blob, blob.stat().st_size // 2)
        with pytest.raises(ArtifactError, match=blob.name[:16]):
            small.check(home)
        flip(blob, blob.stat().st_size // 2)
    (home / "blobs/sha256" / ("0" * 64)).write_bytes(b"more")
    with pytest.raises(ArtifactError, match="0{64}: a blob that the index does not list"):
        small.check(home)
    (home / "blobs/sha256" / ("0" * 64)).unlink()
    blobs[0].rename(tmp_path / "gone")
    with pytest.raises(ArtifactError, match=f"blob {blobs[0].name} is missing"):
        small.check(home)
