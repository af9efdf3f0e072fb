"""Chooses the runtime, and the accounts that programs have under it."""

import itertools

from appliance.domain.deployment import Deployment, Layout, Reason, Refusal
from appliance.domain.host import Host
from appliance.domain.spec import ApplianceSpec
from appliance.errors import HostError
from appliance.plan import containers
from appliance.plan.fitness import CONTAINERS
from appliance.runtimes import runtime, runtimes

ACCOUNTS = ("llm-engine", "llm-gateway", "llm-appliance")
"""User of the engines, user of the gateway, group of both."""
NUMBERS = ("60700", "60701", "60700")
"""The same in containers, where names mean nothing: no distribution and no part of systemd gives these to anybody
(60578 to 61183 are free in systemd's list of ranges)."""


def choose(spec: ApplianceSpec, host: Host, layout: Layout, before: Deployment | None = None) -> tuple[str, Reason]:
    """Take the runtime that was asked for, else the preferred one of those that work here.

    What runs stays where it is. Containers come first where they get GPUs: an engine's own image holds what it was
    tested with, down to the C library.
    """
    if spec.runtime != "auto":
        why = runtime(spec.runtime).refuse(host, layout.prefix)
        if why:
            raise HostError(f"runtime {spec.runtime} cannot be used here: {why}", hint="leave --runtime out to choose")
        return spec.runtime, Reason(subject="runtime", chosen=spec.runtime, why="asked for")
    now = before.runtime if before else ""
    boxes = bool(host.gpus) and containers.gives_gpus(host)
    ranked = sorted(
        runtimes().values(), key=lambda one: (not (boxes and one.NAME in CONTAINERS), -one.PREFERENCE)
    )  # fmt: skip
    refusals = {module.NAME: module.refuse(host, layout.prefix) for module in ranked}
    able = [name for name, why in refusals.items() if why is None]
    chosen = now if now in able else able[0]
    # The same as the first time, or a second installation would find a plan with other reasons in it.
    passed = itertools.takewhile(lambda one: one[0] != chosen, refusals.items())
    refused = tuple(Refusal(name=name, why=why) for name, why in passed if why)
    return chosen, Reason(subject="runtime", chosen=chosen, why="the first that works here", refused=refused)


def runtime_name(spec: ApplianceSpec, host: Host, layout: Layout, before: Deployment | None = None) -> str:
    """Return the runtime that a plan would take. Raises HostError when the one asked for cannot be used."""
    return choose(spec, host, layout, before)[0]


def accounts(host: Host, layout: Layout, chosen: str) -> tuple[str, str, str]:
    """Accounts of our own for the system; under a prefix they would be a trace outside it, so all is its owner's."""
    if chosen in CONTAINERS:
        return NUMBERS
    if not host.root:
        return "", "", ""
    return ACCOUNTS if layout.prefix == "/" else ("root", "root", "root")
