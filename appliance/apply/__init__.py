"""Makes the machine match a Changeset: new generation, checks, one flip, restart of what differs, return on failure."""

from appliance.apply.converge import Report, apply, differences, remove_everything
from appliance.apply.generation import Generations

__all__ = ["Generations", "Report", "apply", "differences", "remove_everything"]
