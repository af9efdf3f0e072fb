"""Unit tests start no program and open no connection."""

from hypothesis import HealthCheck, settings

from tests.unit.sealed import sealed

__all__ = ["sealed"]

# No deadline: what is slow on a busy machine is not wrong.
# A whole record is a lot of data for one example, too, and nothing less is worth to be tried.
UNHURRIED = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("unit", deadline=None, max_examples=50, suppress_health_check=UNHURRIED)
settings.load_profile("unit")
