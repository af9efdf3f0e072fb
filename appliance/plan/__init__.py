"""Decides, from what is wanted and what is there, what will run: pure, with a reason for each decision."""

from appliance.plan.build import plan

__all__ = ["plan"]
