"""A catalog from an address: only with the digest that its publisher names, and only where the network may be asked."""

import hashlib
from pathlib import Path

from appliance.catalog import document
from tests.hub.server import Hub
from tests.hub.test_verbs import run

__all__ = ["run"]


def test_the_right_bytes_are_kept_and_no_others(run, hub: Hub, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "catalog.yaml"
    path.write_text(
        document.yaml(document.packaged()).replace(f"made: '{document.packaged().made}'", "made: '2027-02-03'")
    )
    hub.loose["catalog.yaml"] = path
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    address = f"{hub.url}/files/catalog.yaml"
    kept = tmp_path / "prefix/state/catalog.json"
    said = run("catalog", "update", f"{address}#sha256={'0' * 64}", code=5)["errors"][0]["message"]
    assert f"digest {digest}, {'0' * 64} was promised" in said
    said = run("catalog", "update", f"{address}#sha256={digest}", "--offline", code=5)["errors"][0]["message"]
    assert "offline nothing is fetched" in said
    said = run("catalog", "update", f"{hub.url}/files/none.yaml#sha256={digest}", code=5)["errors"][0]["message"]
    assert "answers 404" in said
    assert not kept.exists()
    hub.fail("catalog.yaml", "status", status=503)
    assert run("catalog", "update", f"{address}#sha256={digest}")["data"]["changed"]
    assert kept.is_file()
    assert run("catalog", "show")["data"]["made"] == "2027-02-03"
