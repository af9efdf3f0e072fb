"""Fetches a file to the disk: resumes, and shows it under its name only when its digest matched."""

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from appliance.errors import ArtifactError

if TYPE_CHECKING:
    import httpx2

TRIES = 4
"""How often a broken connection is taken up again."""


def find(requirement: str, *, index: str, extra: tuple[str, ...], links: tuple[str, ...], certificates: str) -> str:
    """Return the address of a source package in a Python index. Raises ArtifactError."""
    import httpx2
    from unearth import PackageFinder
    from unearth.fetchers import Fetcher, PyPIClient

    try:
        client = PyPIClient(verify=_trust(certificates))
        finder = PackageFinder(
            cast("Fetcher", client), index_urls=[index, *extra], find_links=list(links), no_binary=[":all:"]
        )
        found = finder.find_best_match(requirement).best
    except httpx2.HTTPError as error:
        raise _unreachable(index, error) from error
    if found is None or found.link is None:
        raise ArtifactError(f"{requirement} is not in {index}", hint="check the network, and pip's index-url")
    return found.link.url


def download(url: str, target: Path, *, sha256: str, certificates: str, on_bytes: Callable[[int, int], None]) -> None:
    """Fetch `url` to `target`; `on_bytes` hears (bytes more, bytes in all, 0 = unknown). Raises ArtifactError."""
    import httpx2

    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    with httpx2.Client(verify=_trust(certificates), follow_redirects=True, timeout=60) as client:
        for attempt in range(TRIES):
            try:
                _fetch(client, url, draft, on_bytes)
                break
            except httpx2.HTTPError as error:
                if attempt == TRIES - 1:
                    raise _unreachable(url, error) from error
    digest = file_digest(draft)
    if digest != sha256:
        draft.unlink()
        raise ArtifactError(f"{url}: digest {digest}, {sha256} was promised", hint="the mirror may be out of step")
    draft.replace(target)


def file_digest(path: Path) -> str:
    """Return a file's SHA-256 as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(4 << 20):
            digest.update(block)
    return digest.hexdigest()


def _fetch(client: "httpx2.Client", url: str, draft: Path, on_bytes: Callable[[int, int], None]) -> None:
    have = draft.stat().st_size if draft.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            return
        response.raise_for_status()
        resumed = response.status_code == 206
        total = int(response.headers.get("content-length", 0)) + (have if resumed else 0)
        with draft.open("ab" if resumed else "wb") as stream:
            on_bytes(have if resumed else 0, total)
            for block in response.iter_bytes(1 << 20):
                stream.write(block)
                on_bytes(len(block), total)


def _trust(certificates: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates or None)


def _unreachable(url: str, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{url} cannot be reached: {str(error) or type(error).__name__}",
        hint="check the network; behind a mirror set index-url in /etc/pip.conf, behind a proxy set https_proxy",
    )
