"""ModelScope, by its HTTP API and without its client.

The client (modelscope-hub, and modelscope on top of it) brings cryptography, requests and urllib3, 20 MB for what are
two questions here: what a repository holds, and where a file is. The routes and fields are those of that client
(`_legacy_api.py` of modelscope-hub 0.5.1), and a test holds our own hub against it.
"""

from typing import Any, Final

from appliance.acquire.hub.listing import Listing, RemoteFile
from appliance.acquire.hub.reference import COMMIT, Reference
from appliance.acquire.hub.settings import Settings, token
from appliance.system.web import Remote, WebError, document, patiently, quoted

PREFIX: Final = "ms"
TITLE: Final = "ModelScope"
MAIN: Final = "master"
"""The default branch of every repository there."""
TOKEN: Final = "MODELSCOPE_API_TOKEN"  # noqa: S105 - the name of a variable
FULL: Final = 3000
"""Entries at which a listing is cut off without a word (REPO_FILES_TRUNCATION_LIMIT of its client)."""


def home(settings: Settings) -> str:
    """Return the endpoint."""
    return settings.modelscope


def look(reference: Reference, settings: Settings) -> Listing:
    """Ask for the commit and its files with sizes and digests. Raises WebError."""
    revision = reference.revision or MAIN
    files, latest = _files(reference, revision, settings)
    # A listing may leave the commit empty; then the branch stands, and the digests alone hold what was planned.
    commit = str(latest.get("Id") or "") if isinstance(latest, dict) else ""
    pinned = Reference(
        hub=PREFIX, repository=reference.repository, revision=commit if COMMIT.fullmatch(commit) else revision
    )
    return Listing(reference=pinned, files=tuple(_file(one) for one in files if one.get("Type") != "tree"))


def remote(reference: Reference, path: str, settings: Settings) -> Remote:
    """Return the address of a file at that revision."""
    revision = quoted(reference.revision or MAIN, safe="")
    url = f"{_api(reference, settings)}/repo?Revision={revision}&FilePath={quoted(path, safe='')}"
    return Remote(url=url, headers=_headers())


def hints(reference: Reference, settings: Settings) -> tuple[str, str]:
    """Return what to do when access is denied, and when the hub cannot be reached."""
    page = f"{settings.modelscope}/models/{reference.repository}"
    return (
        f"ask for access at {page}, then set {TOKEN} to a token from {settings.modelscope}/my/myaccesstoken",
        "outside China: llm-appliance config set hub.modelscope www.modelscope.ai",
    )


def _files(reference: Reference, revision: str, settings: Settings) -> tuple[list[dict[str, Any]], Any]:
    url = f"{_api(reference, settings)}/repo/files?Revision={quoted(revision, safe='')}&Recursive="
    found, latest = _page(url + "True", settings)
    if len(found) >= FULL:
        # What a model needs lies at the top, or one directory below it; a list without end holds something else.
        found, latest = _page(url + "False", settings)
    return found, latest


def _page(url: str, settings: Settings) -> tuple[list[dict[str, Any]], Any]:
    where = Remote(url=url, headers=_headers())
    answer = patiently(lambda: document(where, certificates=settings.certificates))
    data = answer.get("Data") if isinstance(answer, dict) else None
    files = data.get("Files") if isinstance(data, dict) else None
    if not isinstance(files, list) or not all(isinstance(one, dict) for one in files):
        said = str(answer.get("Message") or "")[:100] if isinstance(answer, dict) else ""
        raise WebError(url, kind="other", reason=f"it does not answer as ModelScope does {said}".strip())
    return files, data.get("LatestCommitter") if isinstance(data, dict) else None


def _file(entry: dict[str, Any]) -> RemoteFile:
    digest = str(entry.get("Sha256") or "").lower()
    size = entry.get("Size")
    return RemoteFile(
        path=str(entry.get("Path") or entry.get("Name") or ""),
        size=size if isinstance(size, int) else 0,
        sha256=digest if len(digest) == 64 else "",
    )


def _api(reference: Reference, settings: Settings) -> str:
    return f"{settings.modelscope}/api/v1/models/{reference.repository}"


def _headers() -> tuple[tuple[str, str], ...]:
    """Return both ways in which its client proves who asks: older routes know the cookie only."""
    secret = token(TOKEN)
    return (("Authorization", f"Bearer {secret}"), ("Cookie", f"m_session_id={secret}")) if secret else ()
