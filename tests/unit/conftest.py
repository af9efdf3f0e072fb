"""Unit tests start no program and open no connection."""

from hypothesis import HealthCheck, settings

from tests.unit.sealed import sealed

__all__ = ["sealed"]

# No deadline: what is slow on a busy machine is not wrong.
settings.register_profile("unit", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")
