"""Replicas that change are replaced one after the other, each once it has ended its requests, while another answers."""

from typing import Final, Protocol

from appliance.domain.changes import Command, Completed
from appliance.domain.deployment import Deployment
from appliance.domain.service import Service
from appliance.errors import CommandError
from appliance.render.pages import launches
from appliance.runtimes import Runtime, runtime
from appliance.system.machine import Machine

SLACK: Final = 1.02
"""Of what is planned for a device: estimates differ that much between two releases."""


class Steward(Protocol):
    """Who speaks with the gateway while replicas change."""

    def drain(self, deployment: Deployment, names: tuple[str, ...]) -> None:
        """Keep new requests from these replicas, and return when they have none any more or it takes too long."""

    def release(self, deployment: Deployment, names: tuple[str, ...]) -> None:
        """Let requests come to them again, as soon as they answer."""

    def ready(self, deployment: Deployment, name: str) -> None:
        """Return when a replica answers. Raises UnhealthyError."""

    def answers(self, deployment: Deployment) -> str:
        """Return "" when all of it answers, or else what does not and why."""


def touched(before: Deployment, after: Deployment, changed: frozenset[str]) -> tuple[str, ...]:
    """Return the services that run now and that come into force only by a restart, in the order of the plan."""
    if before.runtime != after.runtime:
        return ()
    module = runtime(after.runtime)
    then = {unit.service.name: _started_by(unit.service, unit.launch, unit.health) for unit in launches(before)}
    found = []
    for unit in launches(after):
        name = unit.service.name
        files = module.files(name)
        differs = bool(changed.intersection(files)) if files else changed and then.get(name) != _started_by(
            unit.service, unit.launch, unit.health
        )  # fmt: skip
        if name in then and differs:
            found.append(name)
    return tuple(found)


def one_by_one(before: Deployment, after: Deployment, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those that can be replaced while another replica of their model, or its stand-in, goes on answering."""
    old = {service.name: service for service in before.started}
    found: list[str] = []
    for model in dict.fromkeys(service.model for service in after.started):
        mine = [service for service in after.started if service.model == model]
        staying = [service.name for service in mine if service.name in old]
        # There is a stand-in only where all of it fits.
        stands_in = any(service.standin for service in mine)
        if stands_in or (len(staying) > 1 and _fit_beside(before, after, {*found, *staying})):
            found += [name for name in staying if name in names]
    return tuple(found)


def stand_in(after: Deployment, machine: Machine, steward: Steward, done: list[str]) -> None:
    """Start the stand-ins, and return when they answer; `done` takes the name of each that was started.

    Raises UnhealthyError, CommandError.
    """
    for service in after.started:
        if service.standin:
            done.append(service.name)
            run_all(runtime(after.runtime).begin(after, service.name), machine)
            steward.ready(after, service.name)


def roll(
    before: Deployment, after: Deployment, names: tuple[str, ...], machine: Machine, steward: Steward, done: list[str]
) -> None:
    """Replace them one after the other; `done` takes each name as soon as its old process is gone.

    Raises UnhealthyError when one does not answer, CommandError when its runtime cannot start it.
    """
    module = runtime(after.runtime)
    for name in names:
        stop(before, (name,), module, machine, steward)
        done.append(name)
        run_all(module.begin(after, name), machine)
        steward.ready(after, name)


def stop(before: Deployment, names: tuple[str, ...], module: Runtime, machine: Machine, steward: Steward) -> None:
    """Let services end their requests, then stop them."""
    if not names:
        return
    try:
        steward.drain(before, names)
        for command in module.retire(before, names):
            machine.run(command)
    finally:
        steward.release(before, names)


def run_all(commands: tuple[Command, ...], machine: Machine) -> None:
    """Run one after the other. Raises CommandError."""
    for command in commands:
        run(command, machine)


def run(command: Command, machine: Machine) -> Completed:
    """Run a command. Raises CommandError with what it said."""
    done = machine.run(command)
    if done.code not in command.ok_codes:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise CommandError(f"{' '.join(command.argv)} ends with {done.code}:\n{said}")
    return done


def _started_by(service: Service, launch: object, health: str) -> tuple[object, ...]:
    return (service, service.container, launch, health)


def _fit_beside(before: Deployment, after: Deployment, renewed: set[str]) -> bool:
    """Whether no device has to hold more than its plan says while some are new already and the others still old."""
    old, new = _amounts(before), _amounts(after)
    for device in {device for loads in (*old.values(), *new.values()) for device in loads}:
        peak = sum(
            max(loads.get(device, 0), new.get(name, {}).get(device, 0) if name in renewed else 0)
            for name, loads in old.items()
        )  # fmt: skip
        planned = max(sum(loads.get(device, 0) for loads in those.values()) for those in (old, new))
        if peak > planned * SLACK:
            return False
    return True


def _amounts(deployment: Deployment) -> dict[str, dict[str, int]]:
    return {one.name: {load.device: load.total for load in one.loads} for one in deployment.started}
