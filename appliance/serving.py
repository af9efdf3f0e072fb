"""What the operator may tell the gateway of a model, of its certificate and of web pages: checked here, and written."""

import re
from dataclasses import asdict
from typing import Final

from appliance.domain.spec import BALANCES, EXPOSABLE, RETRIES, ApplianceSpec, Serving, Tls
from appliance.errors import SpecError

NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
RESERVED: Final = frozenset({"v1", "api", "health", "metrics", "gateway", "llm-appliance"})
"""Names that paths of the gateway, or its directories, need themselves."""
ALIAS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")
"""Wider than a model's name: clients have names built in, such as `gpt-4o` or `whisper-1`."""
ORIGIN: Final = re.compile(r"\*|https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?")
HOST_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f$]")
"""What a path in nginx's configuration cannot hold."""


def check(serving: Serving, where: str) -> None:
    """Raise SpecError when a model cannot be served so; `where`: the file that says it."""
    words = (("balance", serving.balance, BALANCES), ("retry", serving.retry, RETRIES))
    for key, word, known in words:
        if word not in known:
            raise SpecError(f"{where}: {key}: {word!r} is none", hint=f"one of {', '.join(known)}")
    for key, number, low, high in (("limit", serving.limit, 1, 4096), ("queue", serving.queue, 0, 65536)):
        if number is not None and not low <= number <= high:
            raise SpecError(f"{where}: {key}: {number} is not between {low} and {high}")
    for name in serving.aliases:
        if not ALIAS.fullmatch(name) or name in RESERVED:
            raise SpecError(f"{where}: aliases: {name!r} cannot be a model's name")
    for word in serving.expose:
        if word not in EXPOSABLE:
            raise SpecError(f"{where}: expose: {word!r} is none", hint=f"of {', '.join(EXPOSABLE)}")


def check_names(spec: ApplianceSpec) -> None:
    """Raise SpecError when two things are called the same, or a name stands for nothing."""
    models = {name for model in spec.models for name in (model.name, *(name for name, _ in model.adapters))}
    names = [name for model in spec.models for name in (model.name, *(name for name, _ in model.adapters))]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SpecError(f"{twice[0]} is the name of two models or adapters", hint="clients ask for them by name")
    names += [alias for model in spec.models for alias in model.serving.aliases]
    names += [name for name, _ in spec.splits]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SpecError(f"{twice[0]} is the name of two things", hint="clients ask for models by name")
    for model in spec.models:
        other = model.serving.fallback
        if other and (other not in models or other == model.name):
            raise SpecError(f"models.d/{model.name}.yaml: fallback: no other model is called {other!r}")
    for name, parts in spec.splits:
        _check_split(name, parts, models)


def _check_split(name: str, parts: tuple[tuple[str, float], ...], models: set[str]) -> None:
    where = f"appliance.yaml: splits.{name}"
    if not ALIAS.fullmatch(name) or name in RESERVED:
        raise SpecError(f"{where}: cannot be a model's name")
    if unknown := sorted({model for model, _ in parts} - models):
        raise SpecError(f"{where}: no model is called {unknown[0]!r}")
    if any(not 0 <= weight <= 1e6 for _, weight in parts) or sum(weight for _, weight in parts) <= 0:
        raise SpecError(f"{where}: weights are numbers from 0 on, and not all of them are 0")


def check_tls(tls: Tls) -> None:
    """Raise SpecError when it is half of a certificate, or no path."""
    if bool(tls.certificate) != bool(tls.key):
        raise SpecError("tls: certificate and key go together", hint="--tls-certificate FILE --tls-key FILE")
    for key, path in (("certificate", tls.certificate), ("key", tls.key)):
        if path and (not path.startswith("/") or CONTROL.search(path)):
            raise SpecError(f"tls.{key}: {path!r} is not the absolute path of a file")


def check_cors(origins: tuple[str, ...]) -> None:
    """Raise SpecError for what is no web page's origin."""
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise SpecError(f"cors: {origin!r} is no origin", hint="for example https://chat.example, or * for all")


def check_hosts(hosts: str) -> None:
    """Raise SpecError for what is no list of host names."""
    for name in hosts.split(",") if hosts and hosts != "*" else ():
        if not HOST_NAME.fullmatch(name):
            raise SpecError(
                f"gateway.hosts: {name!r} is no host's name", hint="for example chat.example,chat.lan; or * for all"
            )


def asked(serving: Serving) -> dict[str, object]:
    """Return what is asked for beside the defaults, as models.d/ has it."""
    default = asdict(Serving())
    chosen = {key: value for key, value in asdict(serving).items() if value != default[key]}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in chosen.items()}
