"""Engines that are on the machine already, put there by somebody else: used as they are, never changed or removed."""

import re
from pathlib import Path
from typing import Final

from appliance.acquire.source import Source
from appliance.domain.changes import Command
from appliance.domain.deployment import Deployment
from appliance.domain.release import Artifact
from appliance.domain.version import version
from appliance.errors import ArtifactError
from appliance.report import Progress
from appliance.system.machine import Machine, sync

VERSION: Final = re.compile(r"\d+\.\d+[\w.+-]*")


def program(artifact: Artifact, deployment: Deployment, machine: Machine, _source: Source, progress: Progress) -> None:
    """Record where the program is and which version, and link to it. Raises ArtifactError when it is too old or gone.

    `pins` hold the lowest version that will do.
    """
    target = Path(deployment.layout.state, "engines", f"{artifact.name}-{artifact.digest[:16]}")
    path = machine.which(artifact.ref)
    if not path:
        raise ArtifactError(
            f"{artifact.ref} is not installed any more", hint=f"install {artifact.ref}, or take another"
        )
    found = _version(machine, path)
    for lowest in artifact.pins:
        if version(found) < version(lowest):
            raise ArtifactError(
                f"{path} is version {found or 'unknown'}, {lowest} is needed", hint="bring it up to date"
            )
    progress.step("program", f"{path}, version {found}: as it is installed here")
    (target / "bin").mkdir(parents=True, exist_ok=True)
    machine.link(path, str(target / "bin" / artifact.ref))
    (target / "version").write_text(f"{path} {found}\n")
    sync(target)


def _version(machine: Machine, path: str) -> str:
    """Ask the program; it may say on the way that its server does not run."""
    done = machine.run(Command(argv=(path, "--version"), timeout=20))
    numbers = VERSION.search(done.stdout + done.stderr)
    return numbers[0] if numbers else ""
