"""Keys of providers: each in a file that only the gateway reads, taken over from wherever the operator has it."""

import sys
from pathlib import Path

from appliance.domain.changes import File
from appliance.domain.layout import Layout
from appliance.errors import HostError, UsageError
from appliance.flows.site import Site
from appliance.system import secret

WHAT = "provider's key"


def place(layout: Layout, name: str) -> str:
    """Return the path of a model's key."""
    return f"{layout.etc}/secrets/{name}.key"


def take(site: Site, name: str, source: str) -> File | None:
    """Return the key of a model as it will be kept, read from a file or, for `-`, from standard input.

    Without a source it is the one that is there already, and None where there is none.
    """
    path = place(site.layout, name)
    if source == "-":
        if sys.stdin.isatty():
            raise UsageError("--api-key-file - reads standard input, and nothing stands in front of it")
        text = secret.word(sys.stdin.read(secret.LARGEST).strip(), "standard input", WHAT)
        if not text:
            raise HostError(f"standard input is empty; the {WHAT} goes into it")
    elif source or Path(path).is_file():
        text = secret.read(source or path, WHAT)
    else:
        return None
    # Its reader does not exist before the first installation, which hands the file over then.
    record = site.generations.record()
    owner = record.deployment.gateway_user if record else ""
    return File(path=path, content=f"{text}\n".encode(), mode=0o600, user=owner)
