"""The command line: parse, call a flow, print its Result; the one boundary where errors become text."""

from appliance.cli.app import run

__all__ = ["run"]
