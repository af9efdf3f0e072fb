"""How hubs are asked: what the operator configured, then what the environment says, then the hub's own default."""

import os
from dataclasses import dataclass

from appliance.acquire.source import certificates
from appliance.domain.spec import Hub
from appliance.system import secret

HUGGING_FACE = "https://huggingface.co"
MODELSCOPE = "https://modelscope.cn"
OLLAMA = "https://registry.ollama.ai"
WHAT = "access token"
YES = frozenset({"1", "on", "yes", "true"})
"""What huggingface_hub takes for yes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every question to a hub depends on."""

    endpoint: str
    """URL of Hugging Face or of its mirror, without a slash at the end."""
    modelscope: str
    ollama: str
    source: str
    token_file: str
    offline: bool
    configured: tuple[str, ...]
    """Prefixes of the hubs whose address somebody set."""
    certificates: str
    """File of trusted certificates, "" = the library's own."""


def settings(hub: Hub, *, offline: bool = False) -> Settings:
    """Return what holds now."""
    registry = hub.ollama or OLLAMA
    domain = hub.modelscope or _set("MODELSCOPE_ENDPOINT") or _set("MODELSCOPE_DOMAIN") or MODELSCOPE
    return Settings(
        endpoint=(hub.endpoint or _set("HF_ENDPOINT") or HUGGING_FACE).rstrip("/"),
        modelscope=(domain if "://" in domain else f"https://{domain}").rstrip("/"),
        ollama=(registry if "://" in registry else f"https://{registry}").rstrip("/"),
        source=hub.source,
        token_file=hub.token_file,
        offline=offline or hub.offline or _set("HF_HUB_OFFLINE").lower() in YES,
        configured=tuple(
            prefix
            for prefix, address in (("hf", hub.endpoint or _set("HF_ENDPOINT")), ("ms", domain))
            if address not in ("", MODELSCOPE)
        ),
        certificates=certificates(),
    )


def token(name: str, configured: str = "") -> str:
    """Return the access token from the configured file, else from the environment variable `name`; "" = none.

    Raises HostError; no message ever holds a part of the token.
    """
    if configured:
        return secret.read(configured, WHAT)
    return secret.word(_set(name), name, WHAT)


def _set(name: str) -> str:
    return os.environ.get(name, "").strip()
