"""What the verbs about bundles say and refuse, on bundles that lie on the disk."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.acquire.bundle import bootstrap
from appliance.bundle.index import SCHEMA, Component, Index, Payload
from appliance.cli import app
from appliance.domain.deployment import Deployment
from appliance.domain.host import Docker
from appliance.domain.spec import Images
from appliance.errors import ArtifactError, HostError, UsageError
from appliance.flows.bundle import contents, create, look, script, sign, trust
from appliance.flows.bundle.install import Wish
from appliance.flows.site import Site
from appliance.report import Plain
from appliance.system.machine import RealMachine
from tests.unit import samples
from tests.unit.bundle import small


@pytest.fixture
def site(tmp_path: Path) -> Site:
    layout = replace(samples.LAYOUT, prefix=str(tmp_path), state=str(tmp_path / "state"), etc=str(tmp_path / "etc"))
    return Site(layout=layout, machine=RealMachine(), progress=Plain(open(os.devnull, "w")), command="test")


def wish(path: Path, **words: object) -> Wish:
    return replace(Wish(path=path, trusted=(small.KEY,)), **words)  # type: ignore[arg-type]


def test_whoever_signed_it_it_can_be_looked_at(site: Site, tmp_path: Path) -> None:
    (path,) = small.write(tmp_path / "a/site.llmb")
    seen = look.inspect(site, wish(path))
    assert (seen.key, seen.claimed, seen.problem) == (small.KEY, small.KEY.id, "")
    stranger = look.inspect(site, wish(path, trusted=()))
    assert (stranger.key, stranger.claimed) == (None, small.KEY.id)
    assert "unknown key" in stranger.problem
    (unsigned,) = small.write(tmp_path / "b/site.llmb", small.Recipe(secret=b""))
    assert look.inspect(site, wish(unsigned)).claimed == ""


def test_looking_reads_nothing_but_the_index(site: Site, tmp_path: Path) -> None:
    """All payloads are damaged: verify says so, and inspect does not notice."""
    (path,) = small.write(tmp_path / "site.llmb")
    with small.opened(path) as reader:
        payloads = reader.index.payloads
    with path.open("r+b") as stream:
        for one in payloads:
            stream.seek(one.offset)
            stream.write(bytes(min(one.size, 2)))
    assert look.inspect(site, wish(path)).key == small.KEY
    with pytest.raises(ArtifactError, match="damaged"):
        look.verify(site, wish(path))


def test_a_key_that_was_pinned_is_believed_and_the_scripts_is_not_any_more(site: Site, tmp_path: Path) -> None:
    (path,) = small.write(tmp_path / "site.llmb")
    first = wish(path, trusted=(), first=small.KEY)
    assert look.verify(site, first).key == small.KEY
    trust.pin(site, small.OTHER)
    with pytest.raises(ArtifactError, match=f"unknown key {small.KEY.id}; trusted: {small.OTHER.id}"):
        look.verify(site, first)
    trust.pin(site, small.KEY)
    trust.pin(site, small.KEY)
    assert {key.id for key in trust.pinned(site)} == {small.KEY.id, small.OTHER.id}
    assert look.verify(site, wish(path, trusted=())).key == small.KEY


def test_a_bundle_that_was_extracted_is_one(site: Site, tmp_path: Path) -> None:
    (path,) = small.write(tmp_path / "site.llmb")
    target = tmp_path / "tree"
    index = look.extract(site, wish(path), target)
    assert sorted(one.name for one in target.iterdir()) == [
        "blobs", "bundle.json", "bundle.json.minisig", "index.json", "oci-layout",
    ]  # fmt: skip
    assert {one.name for one in (target / "blobs/sha256").iterdir()} == {one.digest for one in index.payloads}
    assert look.verify(site, wish(target)).index == index
    with pytest.raises(UsageError, match="not empty"):
        look.extract(site, wish(path), target)
    again = look.extract(site, wish(target), tmp_path / "again")
    assert again == index


def test_a_damaged_bundle_is_not_extracted(site: Site, tmp_path: Path) -> None:
    (path,) = small.write(tmp_path / "site.llmb")
    with small.opened(path) as reader:
        last = reader.index.payloads[-3]
    with path.open("r+b") as stream:
        stream.seek(last.offset)
        stream.write(b"x")
    with pytest.raises(ArtifactError, match="damaged"):
        look.extract(site, wish(path), tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_what_differs_is_told_from_the_indexes(tmp_path: Path) -> None:
    (old,), (new,) = small.write(tmp_path / "a/site.llmb"), small.write(tmp_path / "b/site.llmb", small.Recipe(seed=2))
    found = look.diff(old, new)
    assert [(one.name, other.name) for one, other in found.changed] == [("tiny", "tiny")]
    assert found.bytes_added == found.bytes_removed == 370_001
    assert found.bytes_shared > 1 << 20
    assert not look.diff(old, old).changed


def test_a_base_is_a_bundle_its_index_or_an_inventory(site: Site, tmp_path: Path) -> None:
    (path,) = small.write(tmp_path / "site.llmb", small.Recipe(serial=4))
    of_file = look.known(str(path), "site")
    look.extract(site, wish(path), tmp_path / "tree")
    assert (
        look.known(str(tmp_path / "tree/bundle.json"), "site") == look.known(str(tmp_path / "tree"), "site") == of_file
    )
    assert of_file.serial == 4
    told = {"schema": 1, "digests": ["a" * 64], "keys": ["b" * 64], "serials": [["site", 7]]}
    inventory = tmp_path / "inventory.json"
    inventory.write_text(json.dumps({"data": told}))
    found = look.known(str(inventory), "site")
    assert (found.digests, found.keys, found.serial) == (frozenset({"a" * 64}), frozenset({"b" * 64}), 7)
    inventory.write_text(json.dumps({**told, "digests": ["../x"]}))
    with pytest.raises(Exception, match="no SHA-256"):
        look.known(str(inventory), "site")


def test_keys_are_made_once_and_kept_from_others(tmp_path: Path) -> None:
    key, secret, public = sign.keygen(tmp_path / "vendor")
    assert secret.stat().st_mode & 0o777 == 0o600
    assert trust.read_key(str(public)) == key == trust.read_key(key.text)
    with pytest.raises(UsageError, match="there already"):
        sign.keygen(tmp_path / "vendor")
    signing = sign.signing(secret, None)
    assert signing(b"index")[1] == key
    secret.chmod(0o644)
    with pytest.raises(UsageError, match="others may read it"):
        sign.signing(secret, None)


@pytest.mark.parametrize("word", ["", "x", "RWQ", "/dev/null", "untrusted comment: x"])
def test_what_is_no_key_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        trust.read_key(word)


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["llm-appliance", *words])
    code = app.run()
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_line_says_it_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = small.write(tmp_path / "site.llmb")
    prefix = ("--prefix", str(tmp_path / "prefix"))
    code, out, _ = run(
        capsys, monkeypatch, "bundle", "inspect", str(path), "--trust", small.KEY.text, "--json", *prefix
    )
    data = json.loads(out)["data"]
    assert (code, data["name"], data["trusted"], data["signed_by"]) == (0, "site", True, small.KEY.id)
    assert [one["name"] for one in data["components"] if one["kind"] == "model"] == ["tiny"]
    code, out, _ = run(capsys, monkeypatch, "bundle", "verify", str(path), "--trust", small.KEY.text, *prefix)
    assert (code, "intact" in out) == (0, True)
    code, _, err = run(capsys, monkeypatch, "bundle", "verify", str(path), *prefix)
    assert (code, "unknown key" in err, "--trust" in err) == (5, True, True)
    code, _, err = run(capsys, monkeypatch, "bundle", "verify", str(tmp_path / "none.llmb"), *prefix)
    assert (code, "no such file" in err) == (2, True)
    code, _, err = run(
        capsys, monkeypatch, "bundle", "create", "-o", str(tmp_path / "x.llmb"), "--split", "10", *prefix
    )
    assert (code, "at least" in err) == (2, True)
    for size in ("x", "-1", "4GBB", "1e9", "", " "):
        if size.strip():
            code, _, err = run(capsys, monkeypatch, "bundle", "create", "-o", "x.llmb", "--split", size, *prefix)
            assert (code, "is no size" in err or "at least" in err) == (2, True), (size, err)


# ------------------------------------------------------------------------------------------------ what cannot be made


def refusal(plan: Deployment, **target: object) -> str:
    here = samples.HOST
    with pytest.raises(HostError) as caught:
        create._refuse(plan, replace(here, **target), here)  # type: ignore[arg-type]
    return caught.value.message


def test_an_address_with_a_password_is_not_carried_away() -> None:
    plan = samples.deployment()
    (model,) = plan.models
    for address in ("https://joe:hunter2@host/x.gguf#sha256=" + "a" * 64, "https://hunter2@host/x.gguf"):
        file = replace(model.weights.files[0], url=address)
        for one in (replace(model, source=address), replace(model, weights=replace(model.weights, files=(file,)))):
            said = refusal(replace(plan, models=(one,)))
            assert "tiny: its source names a user or a password" in said
            assert "hunter2" not in said
    create._refuse(plan, samples.HOST, samples.HOST)


def test_a_processor_with_less_is_told_and_that_a_portable_bundle_may_do() -> None:
    plan = samples.deployment()
    said = refusal(plan, cpu_flags=("avx2",))
    assert "a processor with fma; the target's has not (--portable asks for less of it)" in said
    portable = samples.deployment(images=Images(portable=True))
    assert contents.processor(portable, samples.HOST) == ("avx", "avx2", "bmi2", "f16c", "fma", "sse4_2")
    said = refusal(portable, cpu_flags=())
    assert "--portable" not in said
    create._refuse(portable, replace(samples.HOST, cpu_flags=contents.PORTABLE["x86_64"]), samples.HOST)


@pytest.mark.parametrize(
    ("packages", "server"),
    [
        ((), ""),
        (("nvidia-driver",), ""),
        (("docker.io", "iptables"), "29.1"),
        (("/srv/docker-ce_29_amd64.deb",), "29.1"),
    ],
)
def test_a_target_without_docker_has_the_one_that_comes_along(packages: tuple[str, ...], server: str) -> None:
    here = replace(samples.HOST, docker=Docker(client="29.1", server="29.1", compose="2.40", toolkit="1.17"))
    bare = replace(samples.HOST, docker=Docker(failure="Docker is not installed"))
    told = create._with_docker(bare, here, packages).docker
    assert (told.server, told.toolkit) == (server, "")
    own = replace(bare, docker=Docker(client="26.1", server="26.1", compose="2.26"))
    assert create._with_docker(own, here, packages) == own


@pytest.mark.parametrize("name", ["a driver.deb", "$(id).deb", "-x.deb", "driver.rpm", "missing.deb"])
def test_a_package_that_the_script_could_not_name_is_refused(tmp_path: Path, name: str) -> None:
    if name != "missing.deb":
        (tmp_path / name).touch()
    with pytest.raises(ArtifactError, match="package"):
        bootstrap.given(tmp_path / name)


def test_a_package_that_python_needs_too_lies_in_both_places_though_it_is_carried_once(tmp_path: Path) -> None:
    path = tmp_path / "site.llmb"
    path.write_bytes(bytes(2_000))
    digest = "ab" * 32
    payload = Payload(digest=digest, size=10, offset=1_024, kind="deb")
    components = tuple(
        Component(kind=kind, name="libreadline8", key=digest, payloads=(digest,), files=("libreadline8_8.2_amd64.deb",))
        for kind in ("python", "package")
    )
    index = Index(
        schema=SCHEMA, name="site", serial=0, appliance="0.1.0", target=small.TARGET, size=2_000, payloads=(payload,),
        components=components,
    )  # fmt: skip
    made = script.beside(create.Created(index=index, files=(path,), key=None, size=2_000, components=components), None)
    assert made.installer
    lines = made.installer.read_text().splitlines()
    for place in ("deb", "package"):
        assert f"{place} libreadline8_8.2_amd64.deb {digest} site.llmb:1024:10" in lines
