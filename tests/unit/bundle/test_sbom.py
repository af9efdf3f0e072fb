"""The list of what is in a bundle, as CycloneDX wants it."""

import json

from appliance.bundle import sbom
from appliance.bundle.sbom import Entry


def test_the_same_entries_give_the_same_bytes_in_any_order() -> None:
    entries = [Entry(kind="library", name=name, version="1") for name in ("b", "a", "c", "a")]
    one = sbom.document("bundle", "0.1.0", entries)
    assert one == sbom.document("bundle", "0.1.0", reversed(entries))
    found = json.loads(one)
    assert [part["name"] for part in found["components"]] == ["a", "b", "c"]
    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.6", 1)
    assert len({part["bom-ref"] for part in found["components"]}) == 3


def test_what_is_not_known_is_left_out() -> None:
    (part,) = json.loads(sbom.document("bundle", "0.1.0", [Entry(kind="model", name="m")]))["components"]
    assert part == {"type": "machine-learning-model", "name": "m", "bom-ref": "c1"}
    whole = Entry(kind="engine", name="e", version="1", licence="MIT", purl="pkg:pypi/e@1", sha256="a" * 64)
    (part,) = json.loads(sbom.document("bundle", "0.1.0", [whole]))["components"]
    assert part["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert part["licenses"] == [{"license": {"name": "MIT"}}]


def test_package_urls_are_written_as_their_specification_says() -> None:
    assert sbom.purl("pypi", "Typing_Extensions", "4.0+cu129") == "pkg:pypi/typing-extensions@4.0%2Bcu129"
    assert sbom.purl("deb", "libc6", "1:2.36-9", "debian") == "pkg:deb/debian/libc6@1%3A2.36-9"
    assert sbom.purl("deb", "nginx", namespace="debian") == "pkg:deb/debian/nginx"
