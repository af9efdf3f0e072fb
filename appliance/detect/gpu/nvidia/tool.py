"""nvidia-smi: where it is, and asking it without ever waiting for it."""

import threading
import time
from dataclasses import dataclass, replace
from typing import Final

from appliance.detect.gpu.nvidia import failure, listing, query, table, topology
from appliance.detect.gpu.nvidia.cells import Seen
from appliance.detect.gpu.nvidia.kernel import WSL, Kernel
from appliance.domain.changes import Command, Completed
from appliance.system.machine import Machine

NAME: Final = "nvidia-smi"
PLACES: Final = (WSL, "/usr/local/nvidia/bin", "/opt/bin", "/run/current-system/sw/bin")
"""Where it lies beside PATH: WSL2, Kubernetes nodes, Flatcar, NixOS."""
PATIENCE: Final = 5.0
"""Seconds for one answer."""
TOGETHER: Final = 9.0
"""Seconds for all of them."""
GRACE: Final = 0.5
"""Seconds after which a program that cannot be killed is left behind; it waits in the kernel for the driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """All that the tool answered; None = it was not asked."""

    gpus: Completed
    fields: tuple[str, ...] = query.FIELDS
    banner: Completed
    apps: Completed
    listing: Completed | None = None
    topology: Completed | None = None

    @property
    def silent(self) -> bool:
        """Some answer did not come."""
        answers = (self.gpus, self.banner, self.apps, self.listing, self.topology)
        return any(answer.code == 124 for answer in answers if answer)

    @property
    def text(self) -> str:
        """What tells of failures."""
        return "\n".join(text for done in (self.gpus, self.banner) for text in (done.stdout, done.stderr))


def find(machine: Machine) -> str:
    """Return how to start it, "" where it is not."""
    if machine.which(NAME):
        return NAME
    return next((f"{place}/{NAME}" for place in PLACES if NAME in machine.names(place)), "")


def ask(machine: Machine, program: str, kernel: Kernel) -> Said:
    """Ask for what is told always, then for what only MIG or several GPUs make worth asking."""
    tool = _Tool(machine, program)
    gpus, banner, apps = tool.ask(query.gpus(), (), query.APPS)
    said = _known(tool, Said(gpus=gpus, banner=banner, apps=apps))
    if said.silent:
        return said
    said = _reachable(tool, said, kernel)
    more = _more(query.parse(said.gpus.stdout, said.fields), table.parse(said.banner.stdout).gpus)
    answers = dict(zip(more, tool.ask(*more.values()), strict=True))
    return replace(said, listing=answers.get("listing"), topology=answers.get("topology"))


def _more(rows: tuple[Seen, ...], drawn: tuple[Seen, ...]) -> dict[str, tuple[str, ...]]:
    """Return what is still worth to be asked: the table alone has no UUIDs and shortens names."""
    seen = rows or drawn
    unnamed = any(gpu.mig or not gpu.uuid or gpu.name.endswith("...") for gpu in seen)
    questions: dict[str, tuple[str, ...]] = {"listing": listing.ARGUMENTS} if unnamed else {}
    return {**questions, "topology": topology.ARGUMENTS} if len(seen) > 1 else questions


class _Tool:
    """The program, asked several things at once: it needs a second for each on some machines."""

    def __init__(self, machine: Machine, program: str) -> None:
        self._machine, self._program = machine, program
        self._until = time.monotonic() + TOGETHER

    def ask(self, *questions: tuple[str, ...]) -> list[Completed]:
        """Run it once for each, and return the answers in that order."""
        timeout = max(0.1, min(PATIENCE, self._until - time.monotonic()))
        answers = [
            Completed(argv=(self._program, *words), code=124, stdout="", stderr="", seconds=timeout)
            for words in questions
        ]
        threads = [
            threading.Thread(target=self._run, args=(answers, number, timeout), daemon=True)
            for number in range(len(questions))
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + timeout + GRACE
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return list(answers)

    def _run(self, answers: list[Completed], number: int, timeout: float) -> None:
        argv = answers[number].argv
        try:
            answers[number] = self._machine.run(Command(argv=argv, timeout=timeout))
        except OSError as error:  # `Exec format error`
            answers[number] = Completed(argv=argv, code=126, stdout="", stderr=str(error), seconds=0)


def _known(tool: _Tool, said: Said) -> Said:
    """Leave out what an old driver does not know."""
    while refused := query.unknown(said.gpus.stdout + said.gpus.stderr) & set(said.fields):
        fields = tuple(field for field in said.fields if field not in refused)
        (gpus,) = tool.ask(query.gpus(fields))
        said = replace(said, gpus=gpus, fields=fields)
    return said


def _reachable(tool: _Tool, said: Said, kernel: Kernel) -> Said:
    """Ask for the others where an older tool ends at the first GPU that it cannot reach."""
    away = {gpu.bus_id for gpu in failure.lost(said.gpus.stdout + said.gpus.stderr, kernel)}
    others = [gpu.bus_id for gpu in kernel.gpus if gpu.bus_id not in away]
    if not away or not others or query.parse(said.gpus.stdout, said.fields):
        return said
    (gpus,) = tool.ask(query.gpus(said.fields, others))
    return replace(said, gpus=gpus) if query.parse(gpus.stdout, said.fields) else said
