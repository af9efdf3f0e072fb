"""How hubs are asked: what the operator configured, then what the environment says, then the hub's own default."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from appliance.acquire.source import certificates
from appliance.domain.spec import Hub
from appliance.errors import HostError

HUGGING_FACE = "https://huggingface.co"
MODELSCOPE = "https://modelscope.cn"
YES = frozenset({"1", "on", "yes", "true"})
"""What huggingface_hub takes for yes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every question to a hub depends on."""

    endpoint: str
    """URL of Hugging Face or of its mirror, without a slash at the end."""
    modelscope: str
    source: str
    token_file: str
    offline: bool
    certificates: str
    """File of trusted certificates, "" = the library's own."""


def settings(hub: Hub, *, offline: bool = False) -> Settings:
    """Return what holds now."""
    domain = hub.modelscope or _set("MODELSCOPE_ENDPOINT") or _set("MODELSCOPE_DOMAIN") or MODELSCOPE
    return Settings(
        endpoint=(hub.endpoint or _set("HF_ENDPOINT") or HUGGING_FACE).rstrip("/"),
        modelscope=(domain if "://" in domain else f"https://{domain}").rstrip("/"),
        source=hub.source,
        token_file=hub.token_file,
        offline=offline or hub.offline or _set("HF_HUB_OFFLINE").lower() in YES,
        certificates=certificates(),
    )


def token(name: str, configured: str = "") -> str:
    """Return the access token from the configured file, else from the environment variable `name`; "" = none.

    Raises HostError; no message ever holds a part of the token.
    """
    if not configured:
        return _printable(_set(name), name)
    path = Path(configured)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise HostError(f"{path} is no file", hint="llm-appliance config set hub.token-file FILE")
        if status.st_mode & 0o077:
            raise HostError(
                f"{path} can be read by others (mode {status.st_mode & 0o777:04o}); it holds an access token",
                hint=f"chmod 600 {path}",
            )
        with path.open() as stream:
            content = stream.read(4096)
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else "not text"
        hint = "it must be a file of yours, mode 0600"
        raise HostError(f"the access token cannot be read: {path}: {why}", hint=hint) from None
    if not content.strip():
        raise HostError(f"{path} is empty; the access token goes into it")
    return _printable(content.strip(), str(path))


def _printable(text: str, where: str) -> str:
    """Refuse what would end a header; most likely it is another file."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise HostError(f"{where} holds no access token: it has to be one word")
    return text


def _set(name: str) -> str:
    return os.environ.get(name, "").strip()
