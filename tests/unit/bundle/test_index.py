"""The index reader takes what was made, and nothing else, however it is put."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.bundle import fits, index, tar, tree
from appliance.bundle.index import Component, Index, Payload
from appliance.bundle.tree import Node, Tree
from appliance.domain.host import Driver
from appliance.errors import ArtifactError
from tests.unit import samples
from tests.unit.bundle import small

SLOT = 4096


def sound(slot: int = SLOT) -> Index:
    """An index with three payloads, as a bundle holds it."""
    payloads, place = [], tar.first(slot)
    for number, size in enumerate((10, 0, 5000)):
        offset = tar.data(place)
        kind = ("plan", "wheel", "weights")[number]
        payloads.append(Payload(digest=f"{number}" * 64, size=size, offset=offset, kind=kind))
        place = tar.after(offset, size)
    model = Component(
        kind="model", name="tiny", key="a" * 64, payloads=("2" * 64,), files=("tiny.gguf",), unpacked=5000
    )
    return Index(
        schema=index.SCHEMA, name="site", serial=3, appliance="0.1.0", target=small.TARGET, size=tar.end(place),
        payloads=tuple(payloads), components=(model,),
    )  # fmt: skip


def padded(content: bytes, slot: int = SLOT) -> bytes:
    return content.ljust(slot, b" ")


def refused(content: bytes, word: str = "") -> str:
    with pytest.raises(ArtifactError) as caught:
        index.load(content, source="site.llmb")
    assert caught.value.message.startswith(("site.llmb: ", "index of site.llmb"))
    assert word in caught.value.message
    return caught.value.message


def test_what_is_written_is_read_back() -> None:
    assert index.load(padded(index.dump(sound())), source="site.llmb") == sound()


def test_an_index_of_a_later_version_says_what_to_do() -> None:
    content = index.dump(sound()).replace(b'"schema":2', b'"schema":3')
    with pytest.raises(ArtifactError, match="schema 3; this version reads 2") as caught:
        index.load(padded(content), source="site.llmb")
    assert "up to date" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\x00" * 512, b"\xff\xfe{}", b"\xef\xbb\xbf" + index.dump(sound()),
        b"<html>404</html>", b"\x1f\x8b\x08", b"PK\x03\x04", b"[" * 100_000, b'{"a":' * 100_000,
        index.dump(sound()) + b"x", b" " + index.dump(sound()), index.dump(sound()) + b"\n",
        index.dump(sound()).replace(b'"serial":3', b'"serial":3,"serial":3'),
        index.dump(sound()).replace(b'"serial":3', b'"serial":3.0'),
        index.dump(sound()).replace(b'"serial":3', b'"serial":3e0'),
        index.dump(sound()).replace(b'"serial":3', b'"serial":NaN'),
        index.dump(sound()).replace(b'"serial":3', b'"serial":' + b"9" * 5000),
        index.dump(sound()).replace(b'"serial":3', b'"serial": 3'),
        index.dump(sound()).replace(b'"serial":3', b'"serial":"3"'),
        index.dump(sound()).replace(b'"serial":3', b'"serial":3,"more":1'),
        index.dump(sound()).replace(b'"site"', b'"s\\u0069te"'),
        index.dump(sound()).replace(b'"site"', b'"s\xc0te"'),
    ],
)  # fmt: skip
def test_what_is_no_index_is_refused(content: bytes) -> None:
    refused(padded(content))


def test_an_index_that_is_too_large_is_not_read() -> None:
    refused(b" " * (index.LARGEST + 1), "at most")


WRONG: dict[str, dict[str, Any]] = {
    "digest": {"digest": "A" * 64}, "digest short": {"digest": "a" * 63}, "digest path": {"digest": "sha256:../../etc"},
    "digest newline": {"digest": "a" * 64 + "\n"}, "size": {"size": -1}, "size huge": {"size": 1 << 63},
    "size smaller": {"size": 4000}, "size larger": {"size": 6000}, "offset": {"offset": 4096},
    "offset overlapping": {"offset": tar.data(tar.first(SLOT))}, "offset negative": {"offset": -4096},
    "offset beyond": {"offset": 1 << 60}, "kind": {"kind": "pickle"}, "chunks": {"chunks": ("a" * 64,)},
}  # fmt: skip


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG.keys())
def test_a_payload_that_lies_is_refused(words: dict[str, Any]) -> None:
    good = sound()
    bad = replace(good, payloads=(*good.payloads[:2], replace(good.payloads[2], **words)))
    refused(padded(index.dump(bad)))


def test_order_and_number_of_payloads_are_as_they_lie() -> None:
    good = sound()
    one, two, three = good.payloads
    for payloads in ((two, one, three), (one, three), (one, two, three, three), (one, one, two, three)):
        refused(padded(index.dump(replace(good, payloads=payloads))))
    refused(padded(index.dump(replace(good, size=good.size + 512))), "its payloads make")


@pytest.mark.parametrize(
    "words",
    [
        {"name": "../x"}, {"name": "a b"}, {"name": "-rf"}, {"name": ""}, {"name": "x" * 300}, {"name": "\U0001f600"},
        {"name": "ｓite"}, {"serial": -1}, {"chunk": 1}, {"chunk": (64 << 20) + 1}, {"chunk": 1 << 62}, {"size": 1 << 63},
    ],
)  # fmt: skip
def test_an_index_with_values_that_cannot_be_is_refused(words: dict[str, Any]) -> None:
    refused(padded(index.dump(replace(sound(), **words))))


@pytest.mark.parametrize(
    "name",
    [
        "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "a\x1b[2Jb", "x" * 300, "", ".", ".hidden", "-rf", "ｔiny.gguf",
        "tiny\u202egguf", "$(reboot)", "a;b", "a|b", "`x`", "a'b",
    ],
)  # fmt: skip
def test_a_file_name_that_would_be_more_than_one_is_refused(name: str) -> None:
    good = sound()
    bad = replace(good.components[0], files=(name,))
    refused(padded(index.dump(replace(good, components=(bad,)))))


def test_components_name_what_is_there_and_nothing_twice() -> None:
    good, model = sound(), sound().components[0]
    for words in (
        {"payloads": ("f" * 64,)}, {"kind": "virus"}, {"key": "../.."}, {"name": "a\x1b]0;b"}, {"unpacked": -1},
        {"payloads": ("2" * 64, "0" * 64), "files": ("same", "SAME")}, {"files": ("one", "two")},
    ):  # fmt: skip
        refused(padded(index.dump(replace(good, components=(replace(model, **words),)))))


# A document like ours, with anything in any place.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.data())
def test_anything_in_any_place_is_refused_or_sound(data: st.DataObject) -> None:
    """Fuzz: a value of a sound index is replaced by another one."""
    document = json.loads(index.dump(sound()))
    spot: Any = document
    while True:
        keys = list(spot) if isinstance(spot, dict) else range(len(spot))
        key = data.draw(st.sampled_from(list(keys)))
        inner = spot[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            spot[key] = data.draw(JSON)
            break
        spot = inner
    content = padded(json.dumps(document, separators=(",", ":")).encode(), 8192)
    try:
        found = index.load(content[:8192], source="site.llmb")
    except ArtifactError:
        return
    assert not list(index.problems(found, 8192))


@settings(max_examples=400, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.binary(max_size=200), st.integers(0, 4095))
def test_any_bytes_in_any_place_are_refused(noise: bytes, place: int) -> None:
    content = bytearray(padded(index.dump(sound())))
    content[place : place + len(noise)] = noise
    try:
        found = index.load(bytes(content), source="site.llmb")
    except ArtifactError:
        return
    assert not list(index.problems(found, len(content)))


# ------------------------------------------------------------------------------------------------ trees


def nodes(*paths: str) -> tuple[Node, ...]:
    return tuple(Node(path=path) for path in paths)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "a/",
        "./a",
        "a/.",
        "a\\..\\b",
        "a\0b",
        "a\nb",
        "a\x1bb",
        "x" * 300,
    ],
)
def test_a_name_that_leaves_its_directory_is_refused(path: str) -> None:
    with pytest.raises(ArtifactError, match="leaves its directory"):
        tree.load(tree.dump(Tree(pack="", nodes=nodes(path))), source="site.llmb")


@pytest.mark.parametrize("link", ["/etc", "../x", "a/../../..", "../../x", "a\0", "./x", "a//b"])
def test_a_link_that_leaves_its_directory_is_refused(link: str) -> None:
    with pytest.raises(ArtifactError, match="outside its directory"):
        tree.load(tree.dump(Tree(pack="", nodes=(Node(path="a", link=link),))), source="site.llmb")


def test_nothing_is_written_through_a_link_or_below_a_file() -> None:
    for first in (Node(path="a", link="b"), Node(path="a")):
        with pytest.raises(ArtifactError, match="lies in 'a'"):
            tree.load(tree.dump(Tree(pack="", nodes=(first, *nodes("a/b")))), source="site.llmb")
    with pytest.raises(ArtifactError, match="twice"):
        tree.load(tree.dump(Tree(pack="", nodes=nodes("a", "a"))), source="site.llmb")


def test_links_inside_are_kept() -> None:
    found = Tree(pack="", nodes=(*nodes("lib/x"), Node(path="lib/y", link="x"), Node(path="z", link="lib/../lib/x")))
    assert tree.load(tree.dump(found), source="site.llmb") == found


# -------------------------------------------------------------------------------------------- tar headers


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, (8 << 30) - 1, 8 << 30, 70 << 30, 1 << 46])
@pytest.mark.parametrize("place", [0, 512, 1024, 2560, 3072, 4096, 139264 + 512])
def test_headers_end_at_a_boundary_and_say_the_size_as_others_read_it(size: int, place: int) -> None:
    import tarfile

    lead = tar.lead("a" * 64, size, place)
    assert (place + len(lead)) % tar.ALIGN == 0
    assert place + len(lead) == tar.data(place)
    with tarfile.open(fileobj=_Long(lead), mode="r:") as archive:  # type: ignore[call-overload]
        member = archive.next()
    assert (member.name, member.size, member.mode, member.mtime) == (f"blobs/sha256/{'a' * 64}", size, 0o644, 0)


class _Long:
    """A file that begins so and goes on with zeros."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def read(self, size: int = -1) -> bytes:
        some = self._content[self._place : self._place + size].ljust(size, b"\0")
        self._place += size
        return some

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        self._place = place
        return place

    def close(self) -> None:
        pass


# ---------------------------------------------------------------------------------------------- does it fit


def test_everything_that_does_not_fit_is_said_at_once() -> None:
    target = replace(small.TARGET, cpu_flags=("avx2", "avx512f"), drivers=(("nvidia", "580"),), glibc="2.99")
    found = replace(sound(), target=target)
    host = replace(
        samples.HOST, arch="aarch64", os="ubuntu", os_version="24.04", python="3.12", cpu_flags=("avx2",), glibc="2.36"
    )
    said = list(fits.misfits(found, host))
    assert [
        word for word in ("x86_64", "ubuntu", "2.99", "3.12", "avx512f", "nvidia") if word not in " ".join(said)
    ] == []
    assert len(said) == 6


def test_a_driver_that_is_too_old_or_broken_is_told_from_none() -> None:
    found = replace(sound(), target=replace(small.TARGET, drivers=(("nvidia", "580.65"),)))
    host = replace(samples.HOST, os="debian", os_version="12", arch="x86_64", python="3.11", glibc="2.36")
    for driver, word in (
        (Driver(vendor="nvidia", version="550.54"), "found 550.54"),
        (Driver(vendor="nvidia", failure="module not loaded"), "module not loaded"),
    ):
        assert word in " ".join(fits.misfits(found, replace(host, drivers=(driver,))))
    assert not list(fits.misfits(found, replace(host, drivers=(Driver(vendor="nvidia", version="580.80"),))))


def test_an_older_bundle_is_told_by_its_serial_and_by_what_it_brings() -> None:
    assert "serial is 3, that of the last site was 4" in fits.older(sound(), 4, "0.1.0")
    assert "0.2.0 is installed" in fits.older(sound(), 3, "0.2.0")
    assert fits.older(sound(), 3, "0.1.0") == fits.older(sound(), -1, "0.0.9") == ""


def test_what_a_bundle_is_refused_for_is_the_same_in_a_file(tmp_path: Path) -> None:
    """Not a tar, an empty one, another program's page: told before anything is read."""
    for content in (b"", b"<html>Not found</html>" * 100, b"\x1f\x8b\x08" + bytes(2000), bytes(10240)):
        path = tmp_path / "site.llmb"
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"site\.llmb"):
            small.opened(path)
