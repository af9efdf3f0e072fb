"""What a hub's refusal, or its silence, means to a person, and what to do next."""

from appliance.acquire.hub.listing import Hub
from appliance.acquire.hub.reference import Reference
from appliance.acquire.hub.settings import Settings
from appliance.errors import ArtifactError
from appliance.system.transfer import WrongBytesError
from appliance.system.web import WebError, host

KINDS = {
    "name": ("its name is not known here (DNS)", "check the network and /etc/resolv.conf; {away}"),
    "tls": (
        "its certificate is not trusted ({reason})",
        "behind a proxy that opens TLS, add its certificate to the system's, or set SSL_CERT_FILE",
    ),
    "proxy": ("the proxy refuses ({reason})", "check https_proxy and no_proxy; sudo needs -E to pass them on"),
    "refused": ("nobody listens there", "check the address; {away}"),
    "timeout": ("no answer in time", "check the network, or set https_proxy; {away}"),
    "cut": ("the connection broke ({reason})", "the same command goes on where it stopped; {away}"),
    "other": ("{reason}", "{away}"),
}
"""Kind of failure -> what it means, what helps; `{away}` is the hub's own hint at its mirrors."""


def explain(error: WebError, reference: Reference, hub: Hub, settings: Settings) -> ArtifactError:
    """Return the error for a person."""
    server = host(error.url)
    denied, away = hub.hints(reference, settings)
    if not error.status:
        what, hint = KINDS[error.kind]
        message = f"{reference}: {server} cannot be used: {what.format(reason=error.reason)}"
        return ArtifactError(message, hint=hint.format(away=away))
    if error.status in (401, 403):
        return _denied(error, reference, server, denied)
    if error.status == 404:
        return _missing(error, reference, server)
    if error.status == 429:
        wait = f", {error.wait:.0f} s from now" if error.wait else ""
        return ArtifactError(
            f"{reference}: {server} has had too many questions from here (429)",
            hint=f"the same command goes on{wait or ' later'}; with a token more are allowed. {away}",
        )
    said = f": {error.reason}" if error.reason else ""
    return ArtifactError(f"{reference}: {server} answers {error.status}{said}", hint=f"try again later; {away}")


def wrong(error: WrongBytesError, reference: Reference) -> ArtifactError:
    """Return the error for bytes that are not those that were promised."""
    return ArtifactError(
        f"{reference}: {host(error.url)} sent {error.found}, {error.promised} was promised; it was thrown away",
        hint="the mirror may be out of step, or damaged: try again, or another one",
    )


def _denied(error: WebError, reference: Reference, server: str, denied: str) -> ArtifactError:
    code = error.headers.get("x-error-code", "")
    if code == "RepoNotFound" or (error.status == 401 and not code):
        # A hub does not tell strangers which names exist.
        return ArtifactError(
            f"{reference}: {server} answers {error.status}: there is no such repository, or it is private",
            hint=f"check the name; if it is right, {denied}",
        )
    what = "is gated" if code == "GatedRepo" else "may not be read with these rights"
    return ArtifactError(f"{reference} {what}: {server} answers {error.status}", hint=denied)


def _missing(error: WebError, reference: Reference, server: str) -> ArtifactError:
    code = error.headers.get("x-error-code", "")
    if code == "RevisionNotFound":
        return ArtifactError(
            f"{reference}: {server} knows no revision {reference.revision!r} of it",
            hint=f"leave it out for the newest: {reference.base}",
        )
    if code == "EntryNotFound":
        return ArtifactError(f"{reference}: {server} has no such file any more", hint="try again; it may have moved")
    other = {"hf": "ms", "ms": "hf"}.get(reference.hub)
    elsewhere = f", or ask the other hub: {other}:{reference.repository}" if other else ""
    return ArtifactError(f"{reference}: {server} has nothing of that name", hint=f"check the spelling{elsewhere}")
