"""Keeps requests from replicas while they change."""

import time
from typing import Any

from appliance import verify
from appliance.domain.deployment import Deployment
from appliance.errors import UnhealthyError
from appliance.report import Progress
from appliance.system.http import call
from appliance.system.machine import Machine

DRAIN = 120
"""Seconds that a replica may take to end its requests before it is stopped."""


class Steward:
    """Speaks with the gateway while replicas change: none is stopped in the middle of an answer."""

    def __init__(self, machine: Machine, progress: Progress) -> None:
        self._machine, self._progress = machine, progress

    def drain(self, deployment: Deployment, names: tuple[str, ...]) -> None:
        """Keep new requests from these replicas, and wait until they have none any more, DRAIN seconds at most."""
        told = [name for name in names if self._tell(deployment, name)]
        until, idle, waited = time.monotonic() + DRAIN, 0, False
        # Twice, for a request may be on its way from one phase of the gateway to the next.
        while told and idle < 2:
            time.sleep(verify.PAUSE)
            seen = _replicas(deployment)
            busy = [name for name in told if seen.get(name, {}).get("in_flight")]
            if busy and not waited:
                self._progress.step("drain", f"{', '.join(busy)}: requests in progress may end, for {DRAIN} s at most")
            waited, idle = waited or bool(busy), 0 if busy else idle + 1
            if busy and time.monotonic() > until:
                self._progress.note(f"{', '.join(busy)}: still answering after {DRAIN} s, and stopped all the same")
                return

    def release(self, deployment: Deployment, names: tuple[str, ...]) -> None:
        """Let requests come to them again, as soon as they answer."""
        for name in names:
            self._tell(deployment, name, "&off=1")

    def resume(self, deployment: Deployment) -> None:
        """Let requests come to whatever a run that was killed had kept them from."""
        self.release(deployment, tuple(name for name, one in _replicas(deployment).items() if one["state"] != "up"))

    def ready(self, deployment: Deployment, name: str) -> None:
        """Return when a replica answers. Raises UnhealthyError with the log lines that matter."""
        began = time.monotonic()
        limit = next(one.start_timeout for one in deployment.services if one.name == name)
        while _replicas(deployment).get(name, {}).get("state") != "up":
            waited = time.monotonic() - began
            state = next(one for one in verify.states(deployment, self._machine) if one.name == name)
            if waited > 1 and state.state == "failed":
                raise verify.unhealthy(name, f"failed: {state.detail}", deployment, self._machine)
            if waited > limit:
                raise verify.unhealthy(name, f"not healthy after {waited:.0f} s", deployment, self._machine)
            time.sleep(verify.PAUSE if waited < 5 else 0.5)

    def answers(self, deployment: Deployment) -> str:
        """Return "" when all of it answers, or else what does not and why."""
        try:
            verify.wait(deployment, self._machine)
        except UnhealthyError as error:
            return error.message.splitlines()[0]
        return ""

    def _tell(self, deployment: Deployment, name: str, more: str = "") -> bool:
        """Tell whether the gateway knows it; one of an earlier version knows no draining."""
        return (
            call(verify.door(deployment), f"/gateway/drain?replica={name}{more}", payload={}, timeout=5).status == 200
        )


def _replicas(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Return what the gateway counts of each replica, nothing where it does not answer."""
    answer = call(verify.door(deployment), "/gateway/stat", timeout=5)
    models = (answer.json() or {}).get("models", {}) if answer.status == 200 else {}
    return {one["name"]: one for model in models.values() for one in model["replicas"]}
