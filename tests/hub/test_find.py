"""From a source to a plan: what is asked, what is read of large files, and what is refused in which words."""

import socket
from pathlib import Path

import pytest

from appliance.acquire import hub as hubs
from appliance.acquire import models
from appliance.errors import ApplianceError, ArtifactError, HostError, SpecError
from appliance.weights.digest import model_digest
from appliance.weights.inspect import inspect
from tests.hub.conftest import GGUF, SAFETENSORS, Here
from tests.hub.server import Hub, digest

COMMIT = "c0ffee" * 6 + "c0ff"


@pytest.mark.parametrize("prefix", ["hf", "ms"])
def test_safetensors_are_planned_from_their_headers(here: Here, hub: Hub, prefix: str) -> None:
    found = hubs.find(f"{prefix}:small/safe", here.access())
    assert found.source == f"{prefix}:small/safe@{COMMIT}"
    local = inspect(SAFETENSORS)
    assert found.weights.parameters == local.parameters
    assert found.weights.cache == local.cache
    assert [file.name for file in found.weights.files] == [file.name for file in local.files]
    assert {file.name: file.sha256 for file in found.weights.files} == {
        file.name: digest(SAFETENSORS / file.name) for file in local.files
    }
    assert all(file.url == f"{found.source}/{file.name}" and not file.path for file in found.weights.files)
    for name in ("README.md", "pytorch_model.bin", "modeling.py"):
        assert not hub.served[name]


@pytest.mark.parametrize(
    ("source", "pinned"),
    [
        ("hf:small/gguf", f"hf:small/gguf@{COMMIT}/smoke-F16.gguf"),
        ("ms:small/gguf", f"ms:small/gguf@{COMMIT}/smoke-F16.gguf"),
        ("hf:small/gguf:f16", f"hf:small/gguf@{COMMIT}/smoke-F16.gguf"),
        ("hf:small/gguf/*F16*.gguf", f"hf:small/gguf@{COMMIT}/smoke-F16.gguf"),
        ("hf:small/gguf@main/smoke-F16.gguf", f"hf:small/gguf@{COMMIT}/smoke-F16.gguf"),
    ],
)
def test_one_gguf_is_planned_from_its_header(here: Here, source: str, pinned: str) -> None:
    found = hubs.find(source, here.access())
    assert found.source == pinned
    assert hubs.same(found.source, source)
    local = inspect(GGUF)
    assert (found.weights.parameters, found.weights.cache) == (local.parameters, local.cache)
    assert found.weights.files[0].sha256 == digest(GGUF)


def test_only_the_beginning_of_a_large_file_is_read(here: Here, hub: Hub, tmp_path: Path) -> None:
    large = tmp_path / "large.gguf"
    large.write_bytes(GGUF.read_bytes() + bytes(200 << 20))
    hub.add("small/large", {"large.gguf": large})
    assert hubs.find("hf:small/large", here.access()).weights.size == large.stat().st_size
    assert 0 < hub.served["large.gguf"] < 2 << 20


def test_a_model_is_the_same_from_either_hub_and_from_the_disk(here: Here) -> None:
    one = models.from_hub("a", "hf:small/safe", here.access())
    other = models.from_hub("a", "ms:small/safe", here.access())
    files = tuple(file for file in one.weights.files)
    assert one.digest == other.digest == model_digest(files)


def test_nothing_else_is_asked(here: Here, hub: Hub) -> None:
    hubs.find("hf:small/safe", here.access())
    allowed = ("/api/models/small/safe", "/small/safe/resolve/", "/cdn/small/safe/")
    assert all(path.startswith(allowed) for path in hub.paths())


def test_what_is_pinned_is_asked_for_once(here: Here, hub: Hub) -> None:
    found = hubs.find("hf:small/safe", here.access())
    asked = len(hub.asked)
    again = hubs.find(found.source, here.access(offline=True))
    assert again == found
    assert len(hub.asked) == asked


def test_a_file_on_the_web_needs_its_digest(here: Here, hub: Hub) -> None:
    with pytest.raises(SpecError, match="comes without a digest") as caught:
        hubs.find(f"{hub.url}/files/smoke.gguf", here.access())
    assert "#sha256=HEX" in caught.value.hint
    source = f"{hub.url}/files/smoke.gguf#sha256={digest(GGUF)}"
    found = hubs.find(source, here.access())
    assert found.source == source
    assert found.weights.files[0].url == f"{hub.url}/files/smoke.gguf"


def test_a_plain_name_is_for_the_hub_that_answers(here: Here) -> None:
    assert hubs.find("small/safe", here.access()).source.startswith("hf:")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        silent = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert hubs.find("small/safe", here.access(endpoint=silent)).source.startswith("ms:")
        assert hubs.find("small/gguf", here.access(source="ms")).source.startswith("ms:")
        with pytest.raises(ArtifactError, match="neither .* answered within 3 s"):
            hubs.find("small/other", here.access(endpoint=silent, modelscope=silent))


def test_a_modelscope_that_names_no_commit(here: Here, hub: Hub) -> None:
    hub.repositories["small/safe"].tells_commit = False
    assert hubs.find("ms:small/safe", here.access()).source == "ms:small/safe@master"


@pytest.mark.parametrize(
    ("source", "words", "hint"),
    [
        ("hf:small/none", "there is no such repository, or it is private", "config set hub.token-file"),
        ("ms:small/none", "has nothing of that name", "hf:small/none"),
        ("hf:small/safe@v9", "knows no revision 'v9'", "leave it out"),
        ("hf:small/gguf/smoke-f16.gguf", "no GGUF file 'smoke-f16.gguf' is there", "did you mean smoke-F16.gguf"),
        ("hf:small/gguf:Q4_K_M", "no GGUF file 'Q4_K_M' is there", "smoke-F16"),
        ("hf:small/safe:Q4_K_M", "holds no GGUF", ""),
        ("xx:small/safe", "no hub is called 'xx'", "hf:OWNER/REPO"),
        ("hf:small", "is no model on a hub", "hf:OWNER/REPO"),
        ("hf:../../etc", "is no model on a hub", ""),
        ("hf:a/b/../../c.gguf", "is no model on a hub", ""),
    ],
)
def test_refusals_say_what_to_do(here: Here, source: str, words: str, hint: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        hubs.find(source, here.access())
    assert words in caught.value.message
    assert hint in caught.value.hint


def test_several_quantisations_are_listed(here: Here, hub: Hub) -> None:
    hub.add("small/many", {f"M-{kind}.gguf": GGUF for kind in ("Q4_K_M", "Q4_K_S", "Q8_0", "IQ4_XS")})
    with pytest.raises(ArtifactError, match=r"holds 4 GGUF models, one must be chosen: M-IQ4_XS \(3.0 MiB\)"):
        hubs.find("hf:small/many", here.access())
    assert hubs.find("hf:small/many:q4_k_m", here.access()).source.endswith("/M-Q4_K_M.gguf")
    with pytest.raises(ArtifactError, match="no GGUF file 'Q4_K' is there"):
        hubs.find("hf:small/many:Q4_K", here.access())


def test_a_gated_repository(here: Here, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["small/safe"].gated, hub.repositories["small/safe"].token = True, "hf_secret"
    with pytest.raises(ArtifactError, match="is gated: 127.0.0.1:.* answers 401") as caught:
        hubs.find("hf:small/safe", here.access())
    assert f"{hub.url}/small/safe" in caught.value.hint
    assert "llm-appliance config set hub.token-file FILE" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(ArtifactError, match="answers 403") as caught:
        hubs.find("hf:small/safe", here.access())
    assert "hf_other" not in caught.value.message + caught.value.hint
    secret = tmp_path / "token"
    secret.write_text("hf_secret\n")
    with pytest.raises(HostError, match=r"can be read by others \(mode 0644\)"):
        hubs.find("hf:small/safe", here.access(token_file=str(secret)))
    secret.chmod(0o600)
    found = hubs.find("hf:small/safe", here.access(token_file=str(secret)))
    hubs.bring("safe", found.weights.files, here.access(token_file=str(secret)))
    # The fixture's CDN refuses every question that comes with a token; none did.
    assert any("/cdn/" in path for path in hub.paths())
    assert not any("authorization" in headers for _, path, headers in hub.asked if "/cdn/" in path)
    assert "hf_secret" not in "".join(
        str(path) + path.read_text(errors="replace") for path in here.cache.rglob("*.json")
    )


def test_modelscope_wants_its_own_token(here: Here, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["small/safe"].token = "ms-secret"
    monkeypatch.setenv("HF_TOKEN", "hf-secret")
    with pytest.raises(ArtifactError, match="may not be read with these rights") as caught:
        hubs.find("ms:small/safe", here.access())
    assert "MODELSCOPE_API_TOKEN" in caught.value.hint
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    assert hubs.find("ms:small/safe", here.access()).weights.files


def test_busy_servers_are_asked_again(here: Here, hub: Hub) -> None:
    hub.fail("/api/models/small/safe", "status", status=503)
    hub.fail("/api/models/small/safe", "status", status=429, headers={"Retry-After": "0"})
    hub.fail("config.json", "status", status=500)
    hub.fail("/cdn/", "cut", after=10)
    assert hubs.find("hf:small/safe", here.access()).weights.files


def test_too_many_questions(here: Here, hub: Hub) -> None:
    hub.fail("/api/models", "status", times=99, status=429, headers={"Retry-After": "3600"})
    with pytest.raises(ArtifactError, match="too many questions") as caught:
        hubs.find("hf:small/safe", here.access())
    assert "3600 s from now" in caught.value.hint


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://127.0.0.1:9", "nobody listens there"),
        ("http://no-such-host.invalid", "its name is not known here"),
        ("nonsense", "cannot be used"),
    ],
)
def test_a_hub_that_cannot_be_reached(here: Here, endpoint: str, words: str) -> None:
    for source in ("hf:small/safe", "ms:small/safe"):
        with pytest.raises(ArtifactError) as caught:
            hubs.find(source, here.access(endpoint=endpoint, modelscope=endpoint))
        assert words in caught.value.message or endpoint == "nonsense"
        assert "config set hub." in caught.value.hint


def test_a_proxy_that_refuses(here: Here, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", hub.url)
    for source in ("hf:small/safe", "ms:small/safe"):
        with pytest.raises(ArtifactError, match="the proxy refuses"):
            hubs.find(source, here.access(endpoint="https://huggingface.co", modelscope="modelscope.cn"))


def test_an_untrusted_certificate(here: Here, hub: Hub) -> None:
    with pytest.raises(ArtifactError) as caught:
        hubs.find("ms:small/safe", here.access(modelscope=hub.url.replace("http", "https")))
    assert "cannot be used" in caught.value.message


def test_offline_nothing_is_asked(here: Here, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ArtifactError, match="is not here, and offline no hub is asked"):
        hubs.find("hf:small/safe", here.access())
    assert not hub.asked


def test_a_broken_configuration_is_told_by_the_model_s_name(here: Here, hub: Hub, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"architectures": []}')
    hub.repositories["small/safe"].files["config.json"] = config
    with pytest.raises(ArtifactError, match=rf"^hf:small/safe@{COMMIT}: config.json names no architectures"):
        hubs.find("hf:small/safe", here.access())
    assert not list((here.cache / "hub").iterdir())


def test_code_of_a_repository_is_noticed_and_left_behind(here: Here, hub: Hub) -> None:
    assert hubs.find("hf:small/safe", here.access()).weights.code
    assert not hub.served["modeling.py"]
    assert not hubs.find("hf:small/gguf", here.access()).weights.code


def test_pickles_are_never_taken(here: Here, hub: Hub) -> None:
    files = hub.repositories["small/safe"].files
    hub.add("small/pickle", {name: path for name, path in files.items() if not name.endswith(".safetensors")})
    with pytest.raises(ArtifactError, match="PyTorch pickles only"):
        hubs.find("hf:small/pickle", here.access())


def test_something_that_is_no_hub(here: Here, hub: Hub) -> None:
    hub.fail("/api/", "status", status=200, times=9)
    for source in ("hf:small/safe", "ms:small/safe"):
        with pytest.raises(ArtifactError):
            hubs.find(source, here.access())
