"""One JSON object of a configuration, read leniently: what has the wrong form counts as absent.

Keys that only sizing needs must not refuse a model that an engine can load.
"""

from collections.abc import Mapping

from appliance.weights.jsonfile import Object

_MOST = 2**32
"""Numbers in configurations are below this."""


class Part:
    """Values of `found`; `defaults` are those of the model's configuration class, for keys that are not there."""

    def __init__(self, found: Object, defaults: Mapping[str, int] | None = None) -> None:
        self._found = found
        self._defaults = defaults or {}

    def has(self, key: str) -> bool:
        """Whether the key is there with a value, whatever it is."""
        return self._found.get(key) is not None

    def number(self, *keys: str) -> int:
        """Get the first positive number among the keys, or 0."""
        values = (self._found.get(key, self._defaults.get(key)) for key in keys)
        return next((number for value in values if (number := _natural(value))), 0)

    def numbers(self, key: str) -> tuple[int, ...]:
        """Get a list of numbers from 0 on; () where the value is anything else."""
        value = self._found.get(key)
        numbers = [_natural(one) for one in value] if isinstance(value, list) else []
        return () if None in numbers else tuple(one or 0 for one in numbers)

    def words(self, key: str) -> tuple[str, ...]:
        """Get a list of strings; () where the value is anything else."""
        value = self._found.get(key)
        words = value if isinstance(value, list) else []
        return tuple(words) if all(isinstance(one, str) for one in words) else ()

    def word(self, key: str) -> str:
        """Get a string, or ""."""
        value = self._found.get(key)
        return value if isinstance(value, str) else ""

    def flag(self, key: str) -> bool | None:
        """Get true or false; None where the value is anything else."""
        value = self._found.get(key)
        return value if isinstance(value, bool) else None

    def part(self, key: str) -> "Part":
        """Get the object under the key, or an empty one."""
        value = self._found.get(key)
        return Part(value if isinstance(value, dict) else {})

    def parts(self, key: str) -> tuple["Part", ...]:
        """Get a list of objects; () where the value is anything else."""
        value = self._found.get(key)
        return tuple(Part(one if isinstance(one, dict) else {}) for one in value) if isinstance(value, list) else ()


def _natural(value: object) -> int | None:
    """The number; a list inside, a float or a negative number is none."""
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, int) and 0 <= value < _MOST else None
