"""Recorded answers only: no program is started."""

from tests.unit.sealed import sealed

__all__ = ["sealed"]
