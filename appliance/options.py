"""What every engine calls the options that are the same for all: who knows one, what it says for it, and why not."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Final

from appliance.catalog import flags
from appliance.domain.service import Service
from appliance.domain.spec import ModelSpec, Tuning

Value = str | int | float | bool | tuple[tuple[str, str], ...] | None

SPELLING: Final = {"quantisation": "--quantisation", "adapters": "--lora", "gpus": "--gpus"}
"""Uniform options whose flag of ours is not their name with dashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """How one engine says one uniform option; with `no`, why it does not."""

    name: str = ""
    """`--max-model-len`, or the name of a variable; "" = `values` hold all words, and no other value is known."""
    beside: tuple[str, ...] = ()
    """Words that are needed with it."""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Value -> what is said for it instead."""
    only: bool = False
    """No other value is known."""
    no: str = ""
    """Why it has no such option, and what would do."""


Flags = Mapping[str, Flag]
"""Uniform option -> how it is said, in the order in which the words are to stand."""


def said(name: str, *beside: str, **values: tuple[str, ...]) -> Flag:
    """Make a flag that takes the value as it is, but for those `values` that it calls otherwise."""
    return Flag(name=name, beside=beside, values=values)


def refused(why: str) -> Flag:
    """Make an option that an engine does not know."""
    return Flag(no=why)


def words(known: Flags, service: Service, **changed: Value) -> tuple[str, ...]:
    """Return everything uniform as words of a command line, then the operator's own flags."""
    return (*uniform(known, service, **changed), *own(service))


def uniform(known: Flags, service: Service, **changed: Value) -> tuple[str, ...]:
    """Return everything uniform as words of a command line; `changed` options have another value for this engine."""
    return tuple(word for option, value in _values(service, changed) for word in _words(known.get(option), value))


def own(service: Service) -> tuple[str, ...]:
    """Return the operator's own flags, which stand last and so have the last word."""
    return tuple(word for name, value in service.options for word in (f"--{name}", value) if word)


def variables(known: Flags, service: Service, **changed: Value) -> tuple[tuple[str, str], ...]:
    """Return everything uniform for an engine whose settings are variables, then the operator's own ones."""
    pairs = ((known.get(option), value) for option, value in _values(service, changed))
    return (
        *((flag.name, flag.values.get(str(value), (_text(value),))[0]) for flag, value in pairs if flag and flag.name),
        *((name.replace("-", "_").upper(), value) for name, value in service.options),
    )


def _values(service: Service, changed: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """Yield the uniform options that something is to be said for, whatever the engine."""
    setting = service.setting
    found: dict[str, Value] = {
        "context": setting.context,
        "dtype": setting.dtype,
        "kv_type": setting.kv_type,
        "gpus": setting.tensor_parallel if service.gpus else None,
        "pipeline_parallel": setting.pipeline_parallel if setting.pipeline_parallel > 1 else None,
        "memory_share": f"{setting.memory_share:.3f}" if setting.memory_share else None,
        "parallel": setting.parallel if setting.parallel > 1 else None,
        "batched_tokens": setting.batched_tokens or None,
    }
    found |= {name: value for name, value in asked(service.tuning).items() if name not in found}
    found |= {"adapters": service.adapters} | dict(changed)
    yield from ((option, value) for option, value in found.items() if value not in (None, "", False, ()))


def asked(tuning: Tuning) -> dict[str, Value]:
    """Return what is not as it is by itself."""
    pairs = ((one.name, getattr(tuning, one.name), one.default) for one in fields(tuning))
    return {name: value for name, value, default in pairs if value != default}


def _words(flag: Flag | None, value: Value) -> tuple[str, ...]:
    if flag is None or flag.no:
        return ()
    if isinstance(value, tuple):
        return (*flag.beside, flag.name, *(f"{name}={path}" for name, path in value))
    if str(value) in flag.values:
        return flag.values[str(value)]
    return (*flag.beside, flag.name) if value is True else (*flag.beside, flag.name, _text(value))


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# What cannot be


def problem(
    known: Flags, owned: Mapping[str, str], item: ModelSpec, engine: str, version: str = "",
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> str:  # fmt: skip
    """Return why an engine cannot do what is asked for; "" when it can.

    `owned`: flag -> who decides on it; `elsewhere`: what other engines call an option -> the option.
    """
    uniform = asked(item.tuning) | ({"adapters": item.adapters} if item.adapters else {})
    found = [_uniform(known.get(option), option, value, engine, version) for option, value in uniform.items()]
    for name, value in item.options:
        why, other = _option(known, owned, name, value, engine, version), elsewhere.get(plain(name))
        found.append(
            f"{why}; {spelling(other)} says it for every engine" if why.endswith("no such flag") and other else why
        )
    return next(filter(None, found), "")


def spelling(option: str) -> str:
    """Return how people type a uniform option."""
    return SPELLING.get(option, f"--{option.replace('_', '-')}")


def _uniform(flag: Flag | None, option: str, value: Value, engine: str, version: str) -> str:
    if flag is None:
        return f"has no {spelling(option)}"
    if flag.no:
        return f"has no {spelling(option)}: {flag.no}"
    if (flag.only or not flag.name) and str(value) not in flag.values:
        return f"has no {spelling(option)} {value}, only {', '.join(flag.values)}"
    if not flag.name or str(value) in flag.values or not isinstance(value, str):
        return ""
    row = _row(plain(flag.name), engine, version)
    return _choice(row, value, spelling(option)) if row else ""


def _option(known: Flags, owned: Mapping[str, str], name: str, value: str, engine: str, version: str) -> str:
    """Judge one flag of the engine's own."""
    normal = plain(name)
    ours = decides(known, owned, normal, engine, version)
    if ours:
        return f"--set {name}: {ours}"
    row, there = _row(normal, engine, version), flags.tables(engine, version)
    if not there:
        return ""
    if row is None:
        return f"--set {name}: {_unknown(normal, engine, there)}"
    if row.takes == "none" and value:
        return f"--set {name}: takes no value; say {name}="
    if row.takes == "one" and not value:
        return f"--set {name}: takes a value"
    return _choice(row, value, f"--set {name}") if row.takes == "one" else ""


def decides(known: Flags, owned: Mapping[str, str], name: str, engine: str, version: str = "") -> str:
    """Return who else decides on a flag of an engine; "" = the operator may."""
    row = _row(name, engine, version)
    names = {name, *(row.names if row else ())}
    if why := next((why for flag, why in owned.items() if flag in names), ""):
        return f"is set by the appliance itself: {why}"
    for option, flag in known.items():
        if flag.name and plain(flag.name) in names:
            return f"is set by the appliance itself: say {spelling(option)}"
        if not flag.name and names & _flat(flag):
            return f"is set by the appliance itself: say {spelling(option)}"
    return ""


def plain(name: str) -> str:
    """Return a flag's name as the tables write it, however a guide does."""
    return name.lstrip("-").replace("_", "-").lower() if len(name.lstrip("-")) > 1 else name.lstrip("-")


def _flat(flag: Flag) -> set[str]:
    return {plain(word) for said_words in flag.values.values() for word in said_words if word.startswith("--")}


def _row(name: str, engine: str, version: str) -> flags.Flag | None:
    """Find a flag; where the release has no table of its own, any of the engine's will do."""
    found = (table.find(name) for table in reversed(flags.tables(engine, version)))
    return next(filter(None, found), None)


def _choice(row: flags.Flag, value: str, what: str) -> str:
    if not row.choices or value in row.choices:
        return ""
    near = difflib.get_close_matches(value, row.choices, n=3)
    listed = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(row.choices)}"
    return f"{what} knows no {value!r}; {listed}"


def _unknown(name: str, engine: str, there: tuple[flags.Table, ...]) -> str:
    """Say what takes the place of a flag that is not there."""
    if instead := flags.former(engine).get(name):
        return instead
    names = [one for table in there for flag in table.flags for one in flag.names]
    near = difflib.get_close_matches(name, dict.fromkeys(names), n=3, cutoff=0.7)
    which = f"{engine} {there[0].version}" if len(there) == 1 else engine
    return f"{which} has no such flag" + (f"; did you mean {' or '.join(near)}?" if near else "")
