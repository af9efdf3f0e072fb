"""Hugging Face and its mirrors, asked through its own client.

The client says what a repository holds, makes addresses and finds the token. The bytes come through our own transfer:
the client starts a large file anew after a kill, checks no digest while it downloads, and its faster protocol (xet)
knows no partial files. Importing it takes half a second, so that only those who ask it do.
"""

import os
from contextlib import suppress
from typing import Final

from appliance.acquire.hub.listing import Listing, RemoteFile
from appliance.acquire.hub.reference import Reference
from appliance.acquire.hub.settings import Settings, token
from appliance.errors import SpecError
from appliance.system.web import TIMEOUT, Remote, WebError, from_httpx, httpx_client, patiently

PREFIX: Final = "hf"
TITLE: Final = "Hugging Face"


def home(settings: Settings) -> str:
    """Return the endpoint."""
    return settings.endpoint


def look(reference: Reference, settings: Settings) -> Listing:
    """Ask for the commit and its files with sizes and digests. Raises WebError."""
    return patiently(lambda: _look(reference, settings))


def remote(reference: Reference, path: str, settings: Settings) -> Remote:
    """Return the address of a file at that revision; it redirects to where the bytes are."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(reference.repository, path, revision=reference.revision or None, endpoint=settings.endpoint)
    secret = _token(settings)
    return Remote(url=url, headers=(("Authorization", f"Bearer {secret}"),) if secret else ())


def hints(reference: Reference, settings: Settings) -> tuple[str, str]:
    """Return what to do when access is denied, and when the hub cannot be reached."""
    page = f"{settings.endpoint}/{reference.repository}"
    held = "its token may be of another account, or expired" if _token(settings) else "no token is set up"
    denied = (
        f"accept the licence at {page}, put a token from {settings.endpoint}/settings/tokens into a file with mode "
        f"0600, then: llm-appliance config set hub.token-file FILE ({held})"
    )
    return (
        denied,
        "behind a mirror: llm-appliance config set hub.endpoint https://MIRROR",
    )


def _look(reference: Reference, settings: Settings) -> Listing:
    # Read when the client is imported: it would report our questions elsewhere, and ask for more than we do.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, set_client_factory
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    set_client_factory(httpx_client(settings.certificates))
    api = HfApi(endpoint=settings.endpoint, token=_token(settings) or False)
    try:
        info = api.model_info(
            reference.repository, revision=reference.revision or None, files_metadata=True, timeout=TIMEOUT
        )
    except HfHubHTTPError as error:
        answer = error.response
        headers = dict(answer.headers)
        raise WebError(
            settings.endpoint,
            status=answer.status_code,
            kind="other",
            reason=headers.get("x-error-message", "") or str(error.server_message or ""),
            headers=headers,
        ) from None
    except HFValidationError as error:
        raise SpecError(f"{reference}: {error}") from None
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        why = f"it does not answer as Hugging Face does ({type(error).__name__}: {str(error)[:100]})"
        raise WebError(settings.endpoint, kind="other", reason=why) from None
    except Exception as error:
        known = from_httpx(settings.endpoint, error)
        if known is None:
            raise
        raise known from None
    files = tuple(
        RemoteFile(
            path=one.rfilename,
            size=one.lfs.size if one.lfs else one.size or 0,
            sha256=one.lfs.sha256 if one.lfs else "",
        )
        for one in info.siblings or ()
    )
    commit = info.sha or reference.revision or "main"
    return Listing(reference=Reference(hub=PREFIX, repository=reference.repository, revision=commit), files=files)


def _token(settings: Settings) -> str:
    """Return the configured token, else the one that huggingface_hub would use itself (HF_TOKEN, `hf auth login`)."""
    if found := token("HF_TOKEN", settings.token_file):
        return found
    with suppress(OSError):
        from huggingface_hub import get_token

        return get_token() or ""
    return ""
