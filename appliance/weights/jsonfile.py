"""JSON objects from outside: bounded in size, strict about form, every failure in words."""

import json
from pathlib import Path

from appliance.errors import ArtifactError
from appliance.weights.files import AGAIN, open_regular
from appliance.weights.sniff import foreign, is_lfs_pointer

Object = dict[str, object]


class _TwiceError(ValueError):
    """A key is there twice in one object."""


def _once(pairs: list[tuple[str, object]]) -> Object:
    found: Object = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(f"key {key[:80]!r} is there twice")
        found[key] = value
    return found


def parse_object(data: bytes, name: str, *, once: bool) -> Object:
    """Read `data` as one JSON object; `name` is for messages. The caller bounds the length.

    `once` refuses a key that is there twice. Headers need that; in configurations people wrote by hand the last one
    holds, as it does for the engines. Raises ArtifactError: not UTF-8, not JSON, not an object, nested too deeply.
    """
    try:
        found: object = json.loads(data.decode(), object_pairs_hook=_once if once else None)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name} is not valid JSON: {_reason(error)}", hint=AGAIN) from None
    if not isinstance(found, dict):
        raise ArtifactError(f"{name} is not a JSON object", hint=AGAIN)
    return found


def read_object(path: Path, limit: int) -> Object:
    """Read the JSON object in the file at `path`, which may have `limit` bytes at most. Raises ArtifactError."""
    with open_regular(path) as (stream, size):
        if size > limit:
            raise ArtifactError(f"{path} has {size:,} bytes; {limit:,} are allowed", hint=AGAIN)
        data = stream.read(limit)
    if not data or is_lfs_pointer(data):
        raise foreign(path, data, size)
    return parse_object(data, str(path), once=False)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} in line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start:,} is not UTF-8"
    if isinstance(error, _TwiceError):
        return str(error)
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is out of range"
