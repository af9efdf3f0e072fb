"""Container images go into a bundle layer by layer, and come out as the tar that Docker loads; Docker's own part is recorded."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from appliance.acquire.bundle import CHUNK, Archive, Reader, images, slot
from appliance.acquire.bundle.base import of_bundle
from appliance.acquire.bundle.images import Box
from appliance.bundle import cargo, keys
from appliance.bundle.image import chains, full
from appliance.bundle.index import SCHEMA, Component, Index
from appliance.catalog import catalog, only
from appliance.domain.release import Artifact
from appliance.errors import ArtifactError
from appliance.report import Plain
from appliance.system.docker import Image
from tests.unit.bundle import small

QUIET = Plain(open(os.devnull, "w"))
BAR = QUIET.bar("", 0)
LAYERS = {name: small.content(number, size) for number, (name, size) in enumerate(
    (("base", 200_000), ("tools", 90_000), ("engine", 300_000), ("tiny", 1_024))
)}  # fmt: skip
STACKS = {"gateway": ("base", "tools"), "engine": ("base", "engine", "tiny")}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def config(name: str) -> bytes:
    diffs = [f"sha256:{sha(LAYERS[one])}" for one in STACKS[name]]
    return json.dumps({"architecture": "amd64", "os": "linux", "name": name, "rootfs": {"diff_ids": diffs}}).encode()


def box(name: str) -> Box:
    artifact = Artifact(name=name, kind="image", ref=f"ours/{name}:1", digest=sha(name.encode()), recipe=name)
    layers = tuple(sha(LAYERS[one]) for one in STACKS[name])
    image = Image(
        id=f"sha256:{sha(config(name))}", tags=(artifact.ref,), size=300_000, env={}, labels={}, layers=layers
    )
    return Box(artifact=artifact, version="1", image=image)


FORMS = ("docker-20", "docker-25", "podman-4")


def saved(names: tuple[str, ...], form: str = "docker-20") -> io.BytesIO:
    """What `docker save` gives: the form of 20.10, in which a layer that was there before is a link, or that of 25.

    Podman 4 has names of its own for all of it, and says of which registry an image is.
    """
    files: dict[str, bytes | str] = {}
    rows = []
    for name in names:
        layers = []
        for depth, layer in enumerate(STACKS[name]):
            content = LAYERS[layer]
            if form != "docker-20":
                path = f"blobs/sha256/{sha(content)}" if form == "docker-25" else f"{sha(content)}.tar"
                files[path] = content
            else:
                path = f"{sha(f'{name}{depth}'.encode())}/layer.tar"
                twin = next((one for one, there in files.items() if there == content), "")
                files[path] = f"../{twin}" if twin else content
                files[path.replace("layer.tar", "VERSION")] = b"1.0"
            layers.append(path)
        path = f"blobs/sha256/{sha(config(name))}" if form == "docker-25" else f"{sha(config(name))}.json"
        files[path] = config(name)
        tag = f"ours/{name}:1"
        rows.append({"Config": path, "RepoTags": [f"docker.io/{tag}" if form == "podman-4" else tag], "Layers": layers})
    files["manifest.json"] = json.dumps(rows).encode()
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        for path, inside in files.items():
            member = tarfile.TarInfo(path)
            if isinstance(inside, str):
                member.type, member.linkname = tarfile.SYMTYPE, inside
                archive.addfile(member)
            else:
                member.size = len(inside)
                archive.addfile(member, io.BytesIO(inside))
    found.seek(0)
    return found


def write(target: Path, content: IO[bytes], boxes: tuple[Box, ...], base: frozenset[str] = frozenset()) -> Path:
    room = slot([one.image.size for one in boxes] * 4, len(boxes), CHUNK)
    with Archive(target, slot=room, mark="", split=0, chunk=CHUNK, base=base, bar=BAR) as archive:
        components = images.taken(archive, boxes, content)

        def index(payloads: tuple[object, ...], left: tuple[object, ...], size: int) -> Index:
            return Index(
                schema=SCHEMA, name="site", serial=0, appliance="0.1.0", target=small.TARGET, size=size,
                payloads=payloads, components=components, base=left,  # type: ignore[arg-type]
            )  # fmt: skip

        archive.finish(index, lambda text: keys.sign(text, small.SECRET, "", source="test.key")[0])
    return target


def loaded(reader: Reader, component: Component, there: frozenset[str] = frozenset()) -> dict[str, bytes]:
    content = b"".join(images.stream(reader, component, "ours/engine:1", there, BAR))
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        members = {one.name: archive.extractfile(one) for one in archive.getmembers()}
    return {name: one.read() for name, one in members.items() if one}


@pytest.fixture(params=FORMS)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    content = saved(("gateway", "engine"), request.param)
    return write(tmp_path / "site.llmb", content, (box("gateway"), box("engine")))


def engine(reader: Reader) -> Component:
    return next(one for one in reader.index.components if one.name == "engine")


def test_every_layer_and_configuration_is_a_payload_once(bundle: Path) -> None:
    with small.opened(bundle) as reader:
        found = sorted(one.digest for one in reader.index.payloads if one.kind == "image")
        assert found == sorted([*map(sha, LAYERS.values()), *(sha(config(name)) for name in STACKS)])
        assert [one.kind for one in reader.index.components] == ["gateway", "engine"]
        assert [one.image for one in reader.index.components] == [True, True]
    small.check(bundle)


def test_what_docker_gets_is_an_image_whose_list_comes_last(bundle: Path) -> None:
    with small.opened(bundle) as reader:
        members = loaded(reader, engine(reader))
    *_, last = members
    assert last == "manifest.json"
    (row,) = json.loads(members["manifest.json"])
    assert row["RepoTags"] == ["docker.io/ours/engine:1"]  # without a registry it would be `localhost` to Podman
    assert members[row["Config"]] == config("engine")
    assert [members[path] for path in row["Layers"]] == [LAYERS[name] for name in STACKS["engine"]]


def test_a_layer_that_docker_has_below_the_same_ones_is_not_given_again(bundle: Path) -> None:
    base, *_ = chains(box("engine").image.layers)
    with small.opened(bundle) as reader:
        members = loaded(reader, engine(reader), frozenset({base}))
        assert f"blobs/sha256/{sha(LAYERS['base'])}" not in members
        assert f"blobs/sha256/{sha(LAYERS['engine'])}" in members
        # The same layer above another one is another chain.
        assert len(loaded(reader, engine(reader), frozenset({sha(LAYERS["engine"])}))) == 5


def test_podman_gets_a_whole_image_in_which_layers_that_it_has_are_blank(bundle: Path, tmp_path: Path) -> None:
    with small.opened(bundle) as reader:
        there = of_bundle(reader.index)
    left = frozenset({sha(LAYERS["base"]), sha(LAYERS["tiny"])})
    boxes = (box("gateway"), box("engine"))
    second = write(tmp_path / "second/site.llmb", saved(("gateway", "engine")), boxes, base=left & there.digests)
    with small.opened(second) as reader:
        missing = images.omitted(reader, engine(reader))
        base, _, tiny = chains(box("engine").image.layers)
        assert {chain: one.digest for chain, one in missing.items()} == {
            base: sha(LAYERS["base"]), tiny: sha(LAYERS["tiny"])
        }  # fmt: skip
        content = b"".join(
            images.stream(reader, engine(reader), "ours/engine:1", frozenset(missing), BAR, missing.values())
        )
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        found = {one.name: archive.extractfile(one).read() for one in archive.getmembers()}  # type: ignore[union-attr]
    layers = [found[path] for path in json.loads(found["manifest.json"])[0]["Layers"]]
    assert layers == [bytes(200_000), LAYERS["engine"], bytes(1_024)]


def test_a_configuration_is_carried_again_whatever_number_docker_gives_its_image(bundle: Path) -> None:
    with small.opened(bundle) as reader:
        there = of_bundle(reader.index).digests
    assert there >= set(map(sha, LAYERS.values()))
    assert not there & {sha(config(name)) for name in STACKS}


def test_an_image_whose_number_is_not_that_of_its_configuration_is_found_by_its_name(tmp_path: Path) -> None:
    # As Podman does it with one of a registry, whose form is OCI's there and Docker's in the stream.
    other = replace(box("engine"), image=replace(box("engine").image, id=f"sha256:{sha(b'as OCI has it')}"))
    target = write(tmp_path / "site.llmb", saved(("engine",), "podman-4"), (other,))
    with small.opened(target) as reader:
        assert engine(reader).payloads[0] == sha(config("engine"))


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("debian:12-slim", "docker.io/library/debian:12-slim"),
        ("vllm/vllm-openai:v0.33.0", "docker.io/vllm/vllm-openai:v0.33.0"),
        ("docker.io/ours/top:1", "docker.io/ours/top:1"),
        ("localhost/ours/top:1", "localhost/ours/top:1"),
        ("localhost:5000/top:1", "localhost:5000/top:1"),
        ("ghcr.io/ggml-org/llama.cpp:server", "ghcr.io/ggml-org/llama.cpp:server"),
    ],
)
def test_a_name_without_a_registry_is_dockers_own(ref: str, name: str) -> None:
    assert full(ref) == name


def test_a_damaged_layer_ends_the_stream_before_the_list(bundle: Path) -> None:
    with small.opened(bundle) as reader:
        payload = reader.payload(sha(LAYERS["engine"]))
        with bundle.open("r+b") as stream:
            stream.seek(payload.offset + 299_999)
            stream.write(b"x")
        got = bytearray()
        with pytest.raises(ArtifactError, match=r"layer-2\.tar of engine .* is damaged"):
            for block in images.stream(reader, engine(reader), "ours/engine:1", frozenset(), BAR):
                got += block
    assert b"manifest.json" not in got


def test_a_later_bundle_leaves_out_the_layers_that_the_target_has(bundle: Path, tmp_path: Path) -> None:
    with small.opened(bundle) as reader:
        there = of_bundle(reader.index)
    boxes = (box("gateway"), box("engine"))
    left = images.left_out(boxes, there.keys)
    assert left == frozenset(map(sha, LAYERS.values()))
    content = saved(("gateway", "engine"))
    second = write(tmp_path / "second/site.llmb", content, boxes, base=left)
    with small.opened(second) as reader:
        assert sorted(one.size for one in reader.index.payloads if one.kind == "image") == sorted(
            len(config(name)) for name in STACKS
        )
        assert {one.digest for one in reader.index.base} == left


def test_a_layer_is_carried_where_one_image_needs_it_above_others_than_the_target_has() -> None:
    gateway, other = box("gateway"), box("engine")
    turned = replace(other, image=replace(other.image, layers=other.image.layers[::-1]))
    there = frozenset(chains(gateway.image.layers))
    assert images.left_out((gateway,), there) == set(gateway.image.layers)
    assert images.left_out((gateway, turned), there) == {gateway.image.layers[1]}


def test_images_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    content = saved(("gateway",))
    with pytest.raises(ArtifactError, match="no image ours/engine:1"):
        write(tmp_path / "site.llmb", content, (box("engine"),))


def test_chain_ids_are_those_of_the_image_specification() -> None:
    one, two = sha(b"1"), sha(b"2")
    assert chains((one, two)) == (one, sha(f"sha256:{one} sha256:{two}".encode()))
    assert chains(()) == ()


# ------------------------------------------------------------------------------------------ which rows are there


def rows(*artifacts: Artifact) -> Iterator[str]:
    for row in only(catalog(), artifacts).releases:
        if any(one.kind == "image" for one in row.artifacts):
            yield f"{row.engine} {row.version} {row.accelerator} {','.join(row.arch)}"


def test_an_image_of_a_plan_is_known_again_from_a_mirror_and_built_for_any_processor() -> None:
    plain = Artifact(name="vllm", kind="image", ref="vllm/vllm-openai:v0.33.0", digest="", program="vllm")
    found = list(rows(plain))
    assert found
    assert all(one.startswith("vllm 0.33.0") for one in found)
    assert list(rows(replace(plain, ref=f"registry.example:5000/mirror/{plain.ref}"))) == found
    assert "vllm 0.32.0" not in " ".join(found)
    built = next(
        one for row in catalog().releases for one in row.artifacts if one.kind == "image" and one.recipe == "llama-cpp"
    )
    assert list(rows(replace(built, ref=f"{built.ref}-0123456789ab")))
    assert not list(rows(replace(built, ref=f"{built.ref}-0123456789ab", name="another")))


def test_an_operators_own_image_leaves_every_row_of_its_engine() -> None:
    own = Artifact(name="vllm", kind="image", ref="registry.example/fixed:1", digest="")
    found = " ".join(rows(own))
    assert "vllm 0.33.0" in found
    assert "vllm 0.32.0" in found
    assert "sglang" not in found


def test_an_image_for_another_processor_is_the_same_one_under_another_name() -> None:
    one = Artifact(
        name="llama-server", kind="image", ref="llm-appliance/llama-cpp:0.3.36-0123456789ab", digest="a" * 64,
        recipe="llama-cpp", pins=("NATIVE=ON",), twin="t",
    )  # fmt: skip
    assert cargo.alike(one, replace(one, ref="llm-appliance/llama-cpp:0.3.36-ba9876543210", digest="b" * 64, twin="u"))
    assert not cargo.alike(one, replace(one, pins=("NATIVE=OFF",)))
    assert not cargo.alike(one, replace(one, ref="llm-appliance/llama-cpp:0.3.37-0123456789ab"))
