"""Files that somebody made to be taken for a bundle: each is refused for one reason, before anything of it is used."""

import base64
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.acquire.bundle import Bundle
from appliance.bundle import index, keys, parts, tar, tree
from appliance.bundle.parts import Part
from appliance.errors import ArtifactError
from tests.unit.bundle import small
from tests.unit.bundle.test_damage import QUIET


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = small.write(tmp_path_factory.mktemp("whole") / "site.llmb")
    return path


def refused(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=words):
        small.check(path)


def repacked(whole: Path, order: Callable[[list[str]], list[str]]) -> bytes:
    """The same members, as another program would write them, in another order."""
    found = io.BytesIO()
    with tarfile.open(whole) as source, tarfile.open(fileobj=found, mode="w") as target:
        members = {one.name: one for one in source.getmembers()}
        for name in order(list(members)):
            target.addfile(members[name], source.extractfile(members[name]))
    return found.getvalue()


def test_what_is_no_bundle_at_all(tmp_path: Path, whole: Path) -> None:
    for content in (
        b"", b"PK\x03\x04" + bytes(2000), b"\x1f\x8b\x08" + bytes(2000), b"\x28\xb5\x2f\xfd" + bytes(2000),
        b"<!DOCTYPE html><title>404</title>" + b" " * 2000, bytes(10240), os.urandom(10240),
        whole.read_bytes()[512:], b"\xef\xbb\xbf" + whole.read_bytes(),
    ):  # fmt: skip
        refused(tmp_path / "site.llmb", content, r"site\.llmb: (it is no bundle|\d+ bytes are no bundle)")


def test_the_index_is_there_and_comes_first(tmp_path: Path, whole: Path) -> None:
    for order in (
        lambda names: names[1:],
        lambda names: names[::-1],
        lambda names: [*names[1:4], names[0], *names[4:]],
    ):
        refused(tmp_path / "site.llmb", repacked(whole, order), "it is no bundle, or its beginning is damaged")
    # Where only what follows is in another order, the index is read, and what it promises is not there.
    refused(tmp_path / "site.llmb", repacked(whole, lambda names: [*names[:4], *names[:3:-1]]), "site.llmb")


def test_an_index_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "site.llmb"
    with path.open("wb") as stream:
        stream.write(tar.header(tar.INDEX, 1 << 30))
        stream.truncate(2 << 30)  # a hole: to read it would take that much memory
    with pytest.raises(ArtifactError, match=r"an index of 1,073,741,824 bytes; at most"):
        small.opened(path, allow_unsigned=True)


HEADERS = {
    "hard link": tar.header("x", 0, kind=b"1"), "symbolic link": tar.header("x", 0, kind=b"2"),
    "device": tar.header("x", 0, kind=b"3"), "block device": tar.header("x", 0, kind=b"4"),
    "directory": tar.header("x", 0, kind=b"5"), "fifo": tar.header("x", 0, kind=b"6"),
    "long name": tar.header("././@LongLink", 512, kind=b"L"), "sparse": tar.header("x", 512, kind=b"S"),
    "global pax": tar.header("pax", 512, kind=b"g"), "absolute": tar.header("/etc/passwd", 0),
    "leaves": tar.header("../../etc/passwd", 0), "nested tar": tar.header("blobs/sha256/x.tar", 512),
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_member_of_another_kind_or_name_is_refused(header: bytes, whole: Path, tmp_path: Path) -> None:
    """In the place of a payload's own header and of the one before it: both are determined by the signed index."""
    with small.opened(whole) as reader:
        one = reader.index.payloads[2]
        begin = reader._begins[one.digest]
    content = whole.read_bytes()
    for place in (one.offset - tar.BLOCK, begin):
        changed = content[:place] + header + content[place + len(header) :]
        refused(tmp_path / "site.llmb", changed, r"the header of .* is damaged")


def test_a_mode_an_owner_or_a_size_that_two_readers_would_see_differently_is_refused(
    whole: Path, tmp_path: Path
) -> None:
    with small.opened(whole) as reader:
        one = reader.index.payloads[1]
        begin = reader._begins[one.digest]
    content = whole.read_bytes()
    header = bytearray(content[one.offset - tar.BLOCK : one.offset])
    size = b"%011o\0" % (one.size - 1)
    for where, what in ((100, b"0004755\0"), (108, b"0001750\0"), (124, size), (257, b"ustar  \0")):
        changed = bytearray(header)
        changed[where : where + len(what)] = what
        changed[148:156] = b"%06o\0 " % (sum(changed[:148]) + 8 * 32 + sum(changed[156:]))
        place = one.offset - tar.BLOCK
        refused(
            tmp_path / "site.llmb", content[:place] + changed + content[one.offset :], r"the header of .* is damaged"
        )
    pax = content[begin + tar.BLOCK : one.offset - tar.BLOCK]
    record = b"14 size=99999\n"
    other = record + b"%d comment=" % (len(pax) - len(record))
    other = other.ljust(len(pax) - 1, b" ") + b"\n"
    assert len(other) == len(pax)
    lied = content[: begin + tar.BLOCK] + other + content[one.offset - tar.BLOCK :]
    refused(tmp_path / "site.llmb", lied, r"the header of .* is damaged")


def test_what_is_between_is_nothing(whole: Path, tmp_path: Path) -> None:
    """A blob that the index does not list, put between two that it does."""
    with small.opened(whole) as reader:
        begin = reader._begins[reader.index.payloads[1].digest]
    content = whole.read_bytes()
    more = tar.header(tar.name("f" * 64), 512) + bytes(512)
    refused(tmp_path / "site.llmb", content[:begin] + more + content[begin:], r"site\.llmb")


def test_who_claims_to_be_somebody_else_is_found_out(whole: Path, tmp_path: Path) -> None:
    """Signed with another key under the number of ours."""
    with small.opened(whole) as reader:
        index_, (_, place, size) = reader.content, tar.head(len(reader.content))[1]
    signature = keys.sign(index_, small.OTHER_SECRET, "", source="other.key")[0]
    lines = signature.split(b"\n")
    raw = base64.b64decode(lines[1])
    lines[1] = base64.b64encode(raw[:2] + base64.b64decode(small.KEY.text)[2:10] + raw[10:])
    forged = b"\n".join(lines).ljust(size, b"\n")
    content = whole.read_bytes()
    place += tar.BLOCK
    refused(
        tmp_path / "site.llmb", content[:place] + forged + content[place + size :], "signature is not that of its index"
    )


# ------------------------------------------------------------------------------------------------ parts


@pytest.mark.parametrize(
    "words", [{"number": 0}, {"number": -1}, {"number": 4}, {"of": 0}, {"offset": -1}, {"size": 0}, {"size": -5}]
)
def test_a_part_of_a_number_or_size_that_cannot_be_is_refused(words: dict[str, int]) -> None:
    sound = Part(bundle="a" * 64, number=1, of=3, offset=0, size=10)
    assert parts.read(parts.header(sound), source="x") == sound
    with pytest.raises(ArtifactError, match="the part's header is damaged"):
        parts.read(parts.header(replace(sound, **words)), source="x")  # type: ignore[arg-type]


def test_parts_of_a_bundle_must_follow_each_other_without_a_gap() -> None:
    def part(number: int, offset: int) -> Part:
        return Part(bundle="a" * 64, number=number, of=3, offset=offset, size=10)

    assert parts.order({"c": part(3, 20), "a": part(1, 0), "b": part(2, 10)}, "b") == ("a", "b", "c")
    for offset in (9, 11, 0, 20):
        with pytest.raises(ArtifactError, match="part 2 does not follow"):
            parts.order({"a": part(1, 0), "b": part(2, offset), "c": part(3, 20)}, "a")
    with pytest.raises(ArtifactError, match="part 2 of 3 is missing"):
        parts.order({"a": part(1, 0), "c": part(3, 20)}, "a")


def test_more_than_a_thousand_parts_are_read_in_their_order(tmp_path: Path) -> None:
    """By their numbers, not as words sort them; and with fewer files open than a process may have at first."""
    recipe = small.Recipe(split=parts.HEADER + 1024, weights=(70_001,))
    files = small.write(tmp_path / "site.llmb", recipe)
    assert len(files) > 1000
    assert (files[0].name, files[-1].name) == ("site.llmb.0001", f"site.llmb.{len(files):04}")
    assert small.check(files[0])
    files[1000].unlink()
    with pytest.raises(ArtifactError, match=f"part 1001 of {len(files)} is missing"):
        small.check(files[0])


@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.binary(max_size=300))
def test_any_header_of_a_part_is_refused(noise: bytes) -> None:
    content = (parts.MAGIC + noise).ljust(parts.HEADER, b"\0")
    with pytest.raises(ArtifactError):
        parts.read(content, source="x")


@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(st.tuples(st.text(max_size=12), st.integers(), st.text(max_size=12), st.text(max_size=12)), max_size=5))
def test_a_tree_of_any_names_is_refused_or_stays_inside(rows: list[tuple[str, int, str, str]]) -> None:
    nodes = tuple(tree.Node(path=path, size=size, digest=digest, link=link) for path, size, digest, link in rows)
    try:
        found = tree.load(tree.dump(tree.Tree(pack="", nodes=nodes)), source="x")
    except ArtifactError:
        return
    home = "/srv/home"
    for node in found.nodes:
        path = os.path.normpath(f"{home}/{node.path}")
        assert path.startswith(f"{home}/")
        if node.link and node.link != tree.PYTHON:
            assert f"{os.path.normpath(os.path.join(os.path.dirname(path), node.link))}/".startswith(f"{home}/")


def test_nothing_of_all_that_was_written_down_anywhere(whole: Path, tmp_path: Path) -> None:
    """The engine of a bundle whose weights are damaged stays unlinked until all is right, and the weights unseen."""
    content = bytearray(whole.read_bytes())
    with small.opened(whole) as reader:
        last = reader.index.payloads[-3]
    content[last.offset + last.size - 1] ^= 1
    path = tmp_path / "site.llmb"
    path.write_bytes(content)
    with small.opened(path) as reader:
        bundle = Bundle(reader, str(tmp_path / "state"), ())
        with pytest.raises(ArtifactError, match="is damaged in bytes"):
            bundle.weights(bundle.models[0], QUIET)
    seen = [one.name for one in (tmp_path / "state").rglob("*") if one.is_file() and one.suffix != ".part"]
    assert len(seen) == len(bundle.models[0].weights.files) - 1
    assert index.SCHEMA == 2
