"""What makes a bundle an OCI image layout: one artifact manifest that lists every blob."""

import json
from collections.abc import Iterable
from typing import Final

from appliance.bundle import tar
from appliance.bundle.index import Payload

TYPE: Final = "application/vnd.llm-appliance.bundle.v1"
EMPTY: Final = b"{}"
EMPTY_DIGEST: Final = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
"""SHA-256 of EMPTY, the configuration of artifacts that have none."""


def manifest(payloads: Iterable[Payload]) -> bytes:
    """Return the manifest."""
    return _json({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": TYPE,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": f"sha256:{EMPTY_DIGEST}", "size": len(EMPTY),
        },
        "layers": [
            {"mediaType": f"{TYPE}.{one.kind}", "digest": f"sha256:{one.digest}", "size": one.size}
            for one in payloads
        ],
    })  # fmt: skip


def index(digest: str, size: int) -> bytes:
    """Return index.json for the manifest of that digest, in its place's length."""
    manifests = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": TYPE,
            "digest": f"sha256:{digest}", "size": size,
        }
    ]  # fmt: skip
    content = _json({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
    })  # fmt: skip
    return content.ljust(tar.OCI_SIZE, b" ")


def _json(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
