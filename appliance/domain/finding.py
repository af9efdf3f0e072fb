"""What a look at the machine found wrong, and what mends it."""

from dataclasses import dataclass
from typing import Final

ERROR: Final = "error"
WARNING: Final = "warning"
INFO: Final = "info"
SEVERITIES: Final = (ERROR, WARNING, INFO)
"""The worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth to know."""

    id: str
    """Name of the check, a stable word in kebab case: `--ignore` takes it."""
    severity: str
    """`error`, `warning` or `info`."""
    subject: str
    """What it is about: `nvidia`, `nvidia:0`, a path, a model's name."""
    message: str
    """What is wrong, with the numbers."""
    remedy: tuple[str, ...] = ()
    """What mends it: commands in the order in which they are typed, or a sentence where none will do."""
    prevents: bool = False
    """An installation would fail because of it; an error that does not prevent one is no more than a warning there."""
