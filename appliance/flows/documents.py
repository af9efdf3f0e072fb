"""Documents that our own verbs print as JSON and others read back: machines and plans."""

import json
import sys
from pathlib import Path
from typing import Any

from appliance import codec
from appliance.domain.deployment import Deployment
from appliance.domain.host import Host
from appliance.errors import SpecError, UsageError


def read_host(path: str) -> Host:
    """Read another machine from what `detect --json` wrote there: the envelope, or the bare host."""
    return codec.from_data(Host, _document(path, "llm-appliance detect --json > host.json", ""), source=path)


def load_plan(path: str) -> Deployment:
    """Read a plan that `plan --json` wrote: the envelope, or the bare deployment."""
    data = _document(path, "llm-appliance plan --json > plan.json", "deployment")
    return codec.from_data(Deployment, data, source=path)


def read_json(path: str) -> Any:
    """Read any document of ours, its envelope taken off."""
    return _document(path, "llm-appliance bundle inventory --json > inventory.json", "")


def _document(path: str, origin: str, key: str) -> Any:
    """Read JSON and take off the envelope, and `key` where it is there."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
        document = json.loads(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"{path}: not JSON: {error}", hint=origin) from error
    data = document.get("data", document) if isinstance(document, dict) else document
    return data[key] if isinstance(data, dict) and key in data else data
