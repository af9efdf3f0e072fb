"""Outside data enters and leaves here only: strict YAML and JSON for the domain's dataclasses."""

import json
from contextlib import suppress
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, TypeVar, Union, get_args, get_origin

import yaml

from appliance.errors import SpecError

if TYPE_CHECKING:  # a look at what we wrote ourselves takes half as long without it
    from pydantic import TypeAdapter

T = TypeVar("T")
_PLAIN: Final = (str, int, float, bool)
MAX_BYTES = 4 << 20
"""No document of ours comes near this; a larger one is refused unread."""


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases (no expansion bombs) and without repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("anchors and aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse repeated keys, and those that are not text (`no:` is one)."""
        seen: set[str] = set()
        for key in (self.construct_object(key, deep=True) for key, _ in node.value):
            if not isinstance(key, str):
                raise yaml.YAMLError(f"key {key!r} is not text: put quotes around it")
            if key in seen:
                raise yaml.YAMLError(f"key given twice: {key}")
            seen.add(key)
        return super().construct_mapping(node, deep)


_adapters: dict[Any, "TypeAdapter[Any]"] = {}


def _adapter(kind: Any) -> "TypeAdapter[Any]":
    """Return the reader of a type; making one takes longer than using it."""
    from pydantic import TypeAdapter

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def load_yaml(kind: type[T], text: str, *, source: str) -> T:
    """Read `text` as `kind`. Raises SpecError with the path of what is wrong."""
    return from_data(kind, read_yaml(text, source=source), source=source)


def read_yaml(text: str, *, source: str) -> dict[str, Any]:
    """Read keys and values, whatever they are. Raises SpecError."""
    if len(text) > MAX_BYTES:
        raise SpecError(f"{source}: {len(text)} characters; at most {MAX_BYTES} are read")
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - the loader is a safe one
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # PyYAML lets the last three through: `2024-99-99`, `0x_`, `!!bool x`, `!!timestamp x`.
        raise SpecError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise SpecError(f"{source}: nested too deeply") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SpecError(f"{source}: expected keys and values, found {type(document).__name__}")
    return document


def from_data(kind: type[T], data: Any, *, source: str) -> T:
    """Read plain data as `kind`. Raises SpecError with the path of what is wrong."""
    try:
        text = json.dumps(data, default=str)
    except RecursionError as error:
        raise SpecError(f"{source}: nested too deeply") from error
    except ValueError as error:
        raise SpecError(f"{source}: a number of more than 4300 digits") from error
    return load_json(kind, text, source=source)


def load_json(kind: type[T], text: str | bytes, *, source: str, limit: int = MAX_BYTES) -> T:
    """Read `text` as `kind`: unknown keys and wrong types refused. Raises SpecError with the path in it."""
    from pydantic import ValidationError

    if len(text) > limit:
        raise SpecError(f"{source}: {len(text)} bytes; at most {limit} are read")
    try:
        value: T = _adapter(kind).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = "unknown key" if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"} else first["msg"]
        raise SpecError(f"{source}: {where}: {problem}" if where else f"{source}: {problem}") from error
    return value


def load_own(kind: type[T], content: bytes, *, source: str) -> T:
    """Read JSON that we wrote ourselves: as strict, and without making a reader for it first, which takes much longer.

    Whatever is not as it should be is left to `load_json`, which says what that is. Raises SpecError.
    """
    try:
        value: T = _built(kind, json.loads(content))
    except (TypeError, ValueError, RecursionError):
        return load_json(kind, content, source=source)
    return value


def _built(kind: Any, value: Any) -> Any:
    """Return a value of a type of the domain: dataclasses, tuples, dicts and plain values. Raises TypeError."""
    if kind in _PLAIN:
        if type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
        raise TypeError(kind)
    if is_dataclass(kind):
        types = {field.name: field.type for field in fields(kind)}
        if not isinstance(value, dict) or not value.keys() <= types.keys():
            raise TypeError(kind)
        return kind(**{name: _built(types[name], part) for name, part in value.items()})  # type: ignore[operator]
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple and isinstance(value, list):
        parts = args[:1] * len(value) if args[1:] == (...,) else args
        return tuple(_built(part, one) for part, one in zip(parts, value, strict=True))
    if origin is dict and isinstance(value, dict) and args[0] is str:
        return {name: _built(args[1], part) for name, part in value.items()}
    if origin in {Union, UnionType}:
        return None if value is None and type(None) in args else _one_of(args, value)
    raise TypeError(kind)


def _one_of(kinds: tuple[Any, ...], value: Any) -> Any:
    for kind in kinds:
        with suppress(TypeError, ValueError):
            return _built(kind, value)
    raise TypeError(kinds)


def dump_json(value: object, *, indent: int | None = 2) -> str:
    """Write a dataclass as JSON; the same value gives the same bytes."""
    return _adapter(type(value)).dump_json(value, indent=indent).decode() + "\n"


def dump_canonical(value: object) -> bytes:
    """Write a dataclass as the one JSON that stands for it: no spaces, and nothing that is as by default."""
    return _adapter(type(value)).dump_json(value, exclude_defaults=True)


def to_data(value: object, *, defaults: bool = True) -> Any:
    """Turn a dataclass into plain JSON-ready data; without `defaults` only what differs from them."""
    return _adapter(type(value)).dump_python(value, mode="json", exclude_defaults=not defaults)


def dump_yaml(data: dict[str, object]) -> str:
    """Write plain data as YAML, keys in the given order."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
