"""One file on any web server; its digest stands in the source."""

from typing import Final

from appliance.acquire.hub.listing import Listing, RemoteFile
from appliance.acquire.hub.reference import Reference
from appliance.acquire.hub.settings import Settings
from appliance.system.web import Remote, host, patiently, size

PREFIX: Final = "https"
TITLE: Final = "the web"


def home(settings: Settings) -> str:  # noqa: ARG001 - the protocol's
    """There is none."""
    return ""


def look(reference: Reference, settings: Settings) -> Listing:
    """Ask how large the file is. Raises WebError."""
    where = remote(reference, "", settings)
    amount = patiently(lambda: size(where, certificates=settings.certificates))
    name = reference.repository.partition("?")[0].rpartition("/")[2]
    return Listing(reference=reference, files=(RemoteFile(path=name, size=amount, sha256=reference.sha256),))


def remote(reference: Reference, path: str, settings: Settings) -> Remote:  # noqa: ARG001 - the protocol's
    """Return the address itself."""
    return Remote(url=reference.repository)


def hints(reference: Reference, settings: Settings) -> tuple[str, str]:  # noqa: ARG001 - the protocol's
    """Return what to do when access is denied, and when the server cannot be reached."""
    return (
        "download it by hand and give its path",
        f"is {host(reference.repository)} right? Or download the file elsewhere and give its path",
    )
