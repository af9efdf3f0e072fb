"""The operator's settings, one by one: read them, change them in appliance.yaml, take them back."""

import difflib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from appliance import specfile
from appliance.acquire.hub import settings as hub_settings
from appliance.acquire.hub.settings import token
from appliance.domain.changes import File
from appliance.domain.spec import Hub, Images
from appliance.errors import UsageError
from appliance.flows import converge
from appliance.flows.site import Site, require_rights
from appliance.system.lock import lock

ABOUT = {
    "hub.endpoint": "Hugging Face or a mirror of it (HF_ENDPOINT)",
    "hub.modelscope": "ModelScope's domain (MODELSCOPE_DOMAIN)",
    "hub.source": "which hub a plain OWNER/REPO is for: auto, hf, ms",
    "hub.token-file": "file with the access token for Hugging Face, mode 0600 (HF_TOKEN)",
    "hub.offline": "never ask a hub: true, false (HF_HUB_OFFLINE)",
    "images.registry": "registry that has all container images under their own names: registry.example:5000/mirror",
    "images.base": "image that the appliance's own images are built on: debian:12-slim",
    "images.portable": "build them for every processor, not only this machine's: true, false",
}
"""Key -> what it is for, and the environment variable that holds where it is not set."""
ROOMS: dict[str, Hub | Images] = {"hub": Hub(), "images": Images()}
"""Part of the file that a key's first word names, as it is where nothing is set."""
FLAGS = ("hub.offline", "images.portable")
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def known(key: str) -> str:
    """Return the key when there is such a setting. Raises UsageError with near names."""
    if key in ABOUT:
        return key
    near = difflib.get_close_matches(key, ABOUT, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"settings: {', '.join(ABOUT)}"
    raise UsageError(f"no setting is called {key!r}", hint=hint)


def values(site: Site) -> dict[str, tuple[bool, str | bool]]:
    """Return key -> (whether it is set, what holds): where nothing is set, the environment or a default holds."""
    spec, _ = converge.read_spec(site)
    now = hub_settings(spec.hub)
    holding: dict[str, str | bool] = {
        "endpoint": now.endpoint, "modelscope": now.modelscope, "source": now.source,
        "token_file": now.token_file, "offline": now.offline,
    }  # fmt: skip
    holding |= asdict(spec.images)
    configured, default = asdict(spec.hub) | asdict(spec.images), asdict(Hub()) | asdict(Images())
    fields = {key: _field(key) for key in ABOUT}
    return {key: (configured[name] != default[name], holding[name]) for key, name in fields.items()}


def change(site: Site, key: str, text: str | None) -> bool:
    """Set one, or with None take it back; tell whether that changed anything. Raises UsageError or SpecError."""
    key = known(key)
    room = key.partition(".")[0]
    value: Any = getattr(ROOMS[room], _field(key)) if text is None else _value(key, text)
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        spec, files = converge.read_spec(site)
        changed: Any = {room: replace(getattr(spec, room), **{_field(key): value})}
        wanted = replace(spec, **changed)
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


def _field(key: str) -> str:
    return key.rpartition(".")[2].replace("-", "_")
