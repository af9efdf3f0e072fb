"""Other people's gateways, each from the package index into an environment of its own."""

from __future__ import annotations

from tests.bench.gateway.gateways import Start


class Unavailable(Exception):
    """A gateway that cannot be had or does not start here; the message says why."""


PEERS: dict[str, Start] = {}
