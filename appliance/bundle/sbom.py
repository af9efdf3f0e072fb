"""The list of what is in a bundle for other programs: CycloneDX 1.6.

Written by hand, for it is one flat list of names, versions and digests: the libraries that write it ask for more
packages than the appliance has itself.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

TYPES = {
    "model": "machine-learning-model",
    "appliance": "application",
    "engine": "application",
    "gateway": "application",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of it."""

    kind: str
    """Of the component that it is in."""
    name: str
    version: str = ""
    licence: str = ""
    purl: str = ""
    """Package URL, `pkg:pypi/torch@2.13.0`."""
    sha256: str = ""


def purl(kind: str, name: str, version: str = "", namespace: str = "") -> str:
    """Return the Package URL of a package: `kind` is `pypi` or `deb`, `namespace` a distribution."""
    name = name.lower().replace("_", "-") if kind == "pypi" else name
    at = "@" + version.replace("+", "%2B").replace(":", "%3A") if version else ""
    return f"pkg:{kind}/{namespace}{'/' if namespace else ''}{name}{at}"


def document(name: str, appliance: str, entries: Iterable[Entry]) -> bytes:
    """Return the document; the same entries give the same bytes, for it holds neither a time nor a serial number."""
    unique = dict.fromkeys(sorted(entries, key=lambda one: (one.kind, one.name, one.version, one.purl, one.sha256)))
    components = [{**_component(one), "bom-ref": f"c{number}"} for number, one in enumerate(unique, 1)]
    return json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "component": {"type": "application", "name": name, "bom-ref": "c0"},
                "tools": {"components": [{"type": "application", "name": "llm-appliance", "version": appliance}]},
            },
            "components": components,
        },
        separators=(",", ":"),
    ).encode()


def _component(one: Entry) -> dict[str, object]:
    found: dict[str, object] = {"type": TYPES.get(one.kind, "library"), "name": one.name}
    if one.version:
        found["version"] = one.version
    if one.licence:
        found["licenses"] = [{"license": {"name": one.licence}}]
    if one.purl:
        found["purl"] = one.purl
    if one.sha256:
        found["hashes"] = [{"alg": "SHA-256", "content": one.sha256}]
    return found
