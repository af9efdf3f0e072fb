"""Who serves models over OpenAI's routes: providers.yaml as data, and the sources that name a model of theirs."""

import difflib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from appliance import codec
from appliance.domain.service import Remote
from appliance.errors import SpecError

SCHEME: Final = "remote:"
URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?P<port>:[0-9]{1,5})?"
    r"(?P<path>(/[A-Za-z0-9._~-]+)*)/?(\?(?P<query>[A-Za-z0-9._~=&-]*))?"
)
MODEL: Final = re.compile(r"[A-Za-z0-9][\w.:/@+-]{0,127}")
"""As providers call their models: `moonshot-v1-32k`, `deepseek-ai/DeepSeek-V3`, `ep-2026…`."""
FORMS: Final = "remote:PROVIDER/MODEL, remote:https://HOST/v1#MODEL, or remote:PROVIDER@https://HOST/v1#MODEL"
CLEAR: Final = ("127.0.0.1", "localhost", "[::1]")
"""Hosts whose key does not leave the machine, whatever the scheme."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Somebody who serves models."""

    name: str
    title: str
    url: str
    """"" = everybody has an address of their own there."""
    header: str = "authorization"
    """The header that carries the key."""
    aliases: tuple[str, ...] = ()
    regions: dict[str, str] | None = None
    example: str = ""
    """What such an own address looks like."""


@cache
def providers() -> dict[str, Provider]:
    """Return every provider by each of its names."""
    text = Path(__file__).with_name("providers.yaml").read_text()
    rows = codec.load_yaml(dict[str, tuple[Provider, ...]], text, source="catalog providers.yaml")["providers"]
    found = {row.name: row for row in rows} | {alias: row for row in rows for alias in row.aliases}
    for row in rows:
        for region, url in (row.regions or {}).items():
            found[f"{row.name}-{region}"] = Provider(
                name=f"{row.name}-{region}", title=row.title, url=url, header=row.header
            )
    return found


def names() -> tuple[str, ...]:
    """Return what each provider is called first."""
    return tuple(dict.fromkeys(row.name for row in providers().values()))


def provider(name: str) -> Provider:
    """Return the provider of that name. Raises SpecError with near names."""
    known = providers()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"{', '.join(sorted(known))}; or say --base-url"
    raise SpecError(f"no provider is called {name!r}", hint=hint)


def is_remote(source: str) -> bool:
    """Tell whether a source names a model with a provider."""
    return source.startswith(SCHEME)


def source(name: str, url: str, model: str) -> str:
    """Return the source of a model: with a known provider, at an address, or both. Raises SpecError."""
    if not model:
        raise SpecError("which of the provider's models?", hint="--model NAME, as the provider calls it")
    if name:
        name = provider(name).name
    text = f"{SCHEME}{name}{'@' if name and url else ''}{url}{'#' if url else '/'}{model}"
    place(text)
    return text


def place(text: str, key_file: str = "") -> Remote:
    """Return where a source says that its model is. Raises SpecError with the forms that there are."""
    rest = text.removeprefix(SCHEME)
    if "://" in rest:
        before, scheme, after = rest.partition("://")
        name, _, scheme_name = before.rpartition("@")
        url, _, model = f"{scheme_name}{scheme}{after}".partition("#")
    else:
        url, (name, _, model) = "", rest.partition("/")
    if not MODEL.fullmatch(model):
        raise SpecError(f"{text!r} names no model of a provider", hint=FORMS)
    known = provider(name) if name else None
    url = url or (known.url if known else "")
    if not url and known:
        raise SpecError(f"everybody has an address of their own with {known.name}", hint=f"--base-url {known.example}")
    found = URL.fullmatch(url)
    if not found:
        raise SpecError(f"{url!r} is no address of a provider", hint="--base-url https://HOST/v1")
    bare = f"{found['scheme']}://{found['host'].lower()}{found['port'] or ''}{found['path']}"
    header = known.header if known else "authorization"
    return Remote(url=bare, header=header, query=found["query"] or "", model=model, key_file=key_file)


def host(remote: Remote) -> str:
    """Return `HOST:PORT` of a provider."""
    found = URL.fullmatch(remote.url)
    assert found, "place() has read it"
    return f"{found['host']}{found['port'] or (':443' if found['scheme'] == 'https' else ':80')}"


def in_the_clear(remote: Remote) -> bool:
    """Tell whether the key would leave this machine unencrypted."""
    found = URL.fullmatch(remote.url)
    return bool(remote.key_file and found and found["scheme"] == "http" and found["host"] not in CLEAR)
