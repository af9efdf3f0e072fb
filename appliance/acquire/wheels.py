"""Python environments for engines that are Python programs: one for each, from pinned requirements with hashes."""

import shutil
from pathlib import Path

from appliance.acquire import toolchain
from appliance.acquire.build import OPTIONS, STEP
from appliance.acquire.source import Source, refuse_offline
from appliance.catalog import DIRECTORY
from appliance.domain.deployment import Artifact, Deployment
from appliance.errors import ArtifactError
from appliance.report import Bar, Progress, work
from appliance.system.machine import Machine, sync


def environment(
    artifact: Artifact, deployment: Deployment, machine: Machine, source: Source, progress: Progress
) -> None:
    """Make an engine's environment: wheels where some fit, else built here; wheels built once stay in uv's cache."""
    target = Path(deployment.layout.state, "engines", f"{artifact.name}-{artifact.digest[:16]}")
    if target.is_dir():
        return
    refuse_offline(source, artifact.ref)
    cache = Path(deployment.layout.cache)
    tools = toolchain.tools(cache, machine, source, progress)
    name, _, version = artifact.ref.partition("==")
    requirements = DIRECTORY / "requirements" / f"{name.partition('[')[0]}-{version}.txt"
    extra = (
        ("CC", tools.cc),
        ("CXX", tools.cxx),
        ("CMAKE_ARGS", " ".join(_shared(option) for option in OPTIONS if " " not in option)),
        ("CMAKE_GENERATOR", "Ninja"),
        ("PATH", tools.path),
        ("UV_CACHE_DIR", str(cache / "uv")),
    )
    progress.step("environment", f"{artifact.ref}, built from source where no wheel fits")
    draft = target.with_name(f".{target.name}.new")
    command = toolchain.make_environment(draft, requirements, machine, source, extra=extra)
    with work(progress, artifact.name, 0, unit="files") as bar:
        done = machine.run(command, on_line=_Ear(bar))
    if done.code:
        shutil.rmtree(draft, ignore_errors=True)
        raise ArtifactError(
            f"{artifact.ref} cannot be installed:\n" + "\n".join(done.stdout.splitlines()[-20:]),
            hint="check the network; behind a mirror set index-url in /etc/pip.conf",
        )
    draft.rename(target)
    sync(target.parent)


def _shared(option: str) -> str:
    """The Python package loads llama.cpp as shared libraries and needs no server of its own."""
    return option.replace("BUILD_SHARED_LIBS=OFF", "BUILD_SHARED_LIBS=ON").replace("SERVER=ON", "SERVER=OFF")


class _Ear:
    """Counts what a build says, whatever it says."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def __call__(self, line: str) -> None:
        if STEP.search(line):
            self._bar.advance(1)
