"""What is on the disk from earlier versions: read as it was written, and brought up to what this one writes."""

import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from appliance import codec
from appliance.errors import SpecError

SCHEMA: Final = 1
"""Of the record and of a generation's plan. A field that is new and has a default needs no new one."""
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Schema -> what makes the next one of it."""
_FIRST: Final = re.compile(rb'\s*\{\s*"schema"\s*:\s*(\d{1,9})\b')
T = TypeVar("T")


def read(kind: type[T], content: bytes, *, source: str) -> T:
    """Read a document of this schema or of an earlier one. Raises SpecError, for one of a newer program, too."""
    found = schema_of(content)
    if found == SCHEMA:
        return codec.load_own(kind, content, source=source)
    if found > SCHEMA:
        raise SpecError(
            f"{source}: schema {found}, written by a newer llm-appliance; this one reads up to {SCHEMA}",
            hint="bring llm-appliance up to date",
        )
    try:
        data = json.loads(content)
    except ValueError:
        return codec.load_json(kind, content, source=source)  # which says what is wrong
    while (at := data["schema"]) < SCHEMA:
        if at not in MIGRATIONS:
            raise SpecError(
                f"{source}: no way is known from schema {at} to {SCHEMA}", hint="an older llm-appliance reads it"
            )
        data = MIGRATIONS[at](data)
    return codec.load_json(kind, json.dumps(data), source=source)


def schema_of(content: bytes) -> int:
    """Return the schema that a document says it has; this one's where it says none, for its reader to complain."""
    found = _FIRST.match(content)
    return int(found[1]) if found else SCHEMA
