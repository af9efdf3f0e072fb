"""The operator's settings, one by one: read them, change them in appliance.yaml, take them back."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance import codec, specfile
from appliance.acquire.hub import settings as hub_settings
from appliance.acquire.hub.settings import token
from appliance.detect.proxies import proxies
from appliance.domain.changes import File
from appliance.domain.spec import ApplianceSpec
from appliance.errors import UsageError
from appliance.flows import converge
from appliance.flows.site import Site, require_rights
from appliance.system.lock import lock

ABOUT = {
    "hub.endpoint": "Hugging Face or a mirror of it (HF_ENDPOINT)",
    "hub.modelscope": "ModelScope's domain (MODELSCOPE_DOMAIN)",
    "hub.ollama": "Ollama's registry or a mirror of it",
    "hub.source": "which hub a plain OWNER/REPO is for: auto, hf, ms",
    "hub.token-file": "file with the access token for Hugging Face, mode 0600 (HF_TOKEN)",
    "hub.offline": "never ask a hub: true, false (HF_HUB_OFFLINE)",
    "images.registry": "registry that has all container images under their own names: registry.example:5000/mirror",
    "images.base": "image that the appliance's own images are built on: debian:12-slim",
    "images.portable": "compile engines for every processor, not only this machine's, in images or not: true, false",
    "gateway.page": "the status page at /, from the next install on: true, false",
    "gateway.hosts": "names beside localhost that the gateway answers to without keys, with commas between; * = any",
    "proxy.https": "the way out, for downloads and to providers: http://HOST:PORT (https_proxy)",
    "proxy.none": "hosts that are asked directly, with commas between (no_proxy)",
}
"""Key -> what it is for, and the environment variable that holds where it is not set."""
FLAGS = ("hub.offline", "images.portable", "gateway.page")
VARIABLE = "env."
"""Beginning of the keys that are variables of every engine: `env.VLLM_LOGGING_LEVEL`."""
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def about(key: str) -> str:
    """Return what a setting is for."""
    return ABOUT.get(key, "variable of every engine, from the next install on")


def known(key: str) -> str:
    """Return the key when there is such a setting. Raises UsageError with near names."""
    if key in ABOUT or (key.startswith(VARIABLE) and key != VARIABLE):
        return key
    near = difflib.get_close_matches(key, ABOUT, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"settings: {', '.join(ABOUT)}, env.NAME"
    raise UsageError(f"no setting is called {key!r}", hint=hint)


def values(site: Site) -> dict[str, tuple[bool, str | bool]]:
    """Return key -> (whether it is set, what holds): where nothing is set, the environment or a default holds."""
    spec, _ = converge.read_spec(site)
    now = hub_settings(spec.hub)
    environ = {name.lower(): value for name, value in proxies(os.environ)}
    holding: dict[str, str | bool] = {
        "hub.endpoint": now.endpoint, "hub.modelscope": now.modelscope, "hub.ollama": now.ollama,
        "hub.source": now.source,
        "hub.token-file": now.token_file, "hub.offline": now.offline,
        "gateway.page": spec.gateway.page, "gateway.hosts": spec.gateway.hosts,
        "proxy.https": spec.proxy.https or environ.get("https_proxy", ""),
        "proxy.none": spec.proxy.none or environ.get("no_proxy", ""),
    }  # fmt: skip
    holding |= {f"images.{key}": value for key, value in codec.to_data(spec.images).items()}
    default = ApplianceSpec()
    found = {key: (_get(spec, key) != _get(default, key), holding[key]) for key in ABOUT}
    return found | {f"{VARIABLE}{name}": (True, value) for name, value in spec.environment}


def change(site: Site, key: str, text: str | None) -> bool:
    """Set one, or with None take it back; tell whether that changed anything. Raises UsageError or SpecError."""
    key = known(key)
    value: Any = _get(ApplianceSpec(), key) if text is None else _value(key, text)
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        spec, files = converge.read_spec(site)
        wanted = _with(spec, key, value)
        if wanted == spec:
            return False
        specfile.check(wanted)
        if key == "hub.token-file" and value:
            token("", value)  # a file that others can read, or that is not there, is refused now and not at night
        path = f"{site.layout.etc}/appliance.yaml"
        (content,) = (one.content for one in specfile.files(wanted, files, site.layout) if one.path == path)
        site.machine.write(File(path=path, content=content))
    return True


def _value(key: str, text: str) -> str | bool:
    if key not in FLAGS:
        return str(Path(text).expanduser().absolute()) if key == "hub.token-file" else text
    if text.lower() not in WORDS:
        raise UsageError(f"{key}: {text!r} is neither true nor false")
    return WORDS[text.lower()]


def _get(spec: ApplianceSpec, key: str) -> str | bool | None:
    """Return what is configured; a variable that is not is None."""
    part, _, name = key.partition(".")
    if key.startswith(VARIABLE):
        return dict(spec.environment).get(name)
    value: str | bool = getattr(getattr(spec, part), name.replace("-", "_"))
    return value


def _with(spec: ApplianceSpec, key: str, value: str | bool | None) -> ApplianceSpec:
    """Return the spec with one setting changed."""
    part, _, name = key.partition(".")
    if key.startswith(VARIABLE):
        others: Mapping[str, str] = {one: text for one, text in spec.environment if one != name}
        kept = dict(others) if value is None else {**others, name: str(value)}
        return replace(spec, environment=tuple(sorted(kept.items())))
    changed: Any = {name.replace("-", "_"): value}
    section: Any = getattr(spec, part)
    whole: Any = {part: replace(section, **changed)}
    return replace(spec, **whole)
