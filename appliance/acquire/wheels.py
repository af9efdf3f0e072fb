"""Python environments for engines that are Python programs: one for each, from pinned requirements with hashes."""

import shlex
import shutil
from pathlib import Path

from appliance.acquire import toolchain
from appliance.acquire.build import KERNELS, OPTIONS, STEP
from appliance.acquire.source import Source, refuse_offline
from appliance.catalog import DIRECTORY
from appliance.domain.changes import Command
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
    kernels = cache / "build" / f"{artifact.digest[:16]}.cmake"
    kernels.parent.mkdir(parents=True, exist_ok=True)
    kernels.write_text(KERNELS)
    extra = (
        ("CC", tools.cc),
        ("CXX", tools.cxx),
        ("CMAKE_ARGS", shlex.join((f"-DCMAKE_PROJECT_ggml_INCLUDE={kernels}", *_shared()))),
        ("CMAKE_GENERATOR", "Ninja"),
        ("PATH", tools.path),
        # One for each artifact: uv does not ask for which processor a wheel was built.
        ("UV_CACHE_DIR", str(cache / "uv" / artifact.digest[:16])),
    )
    progress.step("environment", f"{artifact.ref}, built from source where no wheel fits")
    draft = target.with_name(f".{target.name}.new")
    command = toolchain.make_environment(draft, requirements, machine, source, extra=extra)
    with work(progress, artifact.name, 0, unit="files") as bar:
        done = machine.run(command, on_line=_Ear(bar))
    if done.code:
        shutil.rmtree(draft, ignore_errors=True)
        raise ArtifactError(
            f"{artifact.ref} cannot be installed:\n" + _reason(done.stdout + done.stderr),
            hint="check the network; behind a mirror set index-url in /etc/pip.conf",
        )
    # Leaves what was built here; all else can be had again, and a build's sources are large.
    machine.run(Command(argv=(toolchain.uv(), "cache", "prune", "--ci", "--quiet"), env=extra[-1:], timeout=300))
    draft.rename(target)
    sync(target.parent)


def _shared() -> tuple[str, ...]:
    """Return the options for the Python package: shared libraries, no server, and the tools that it adds itself."""
    other = {"-DBUILD_SHARED_LIBS": "ON", "-DLLAMA_BUILD_SERVER": "OFF", "-DLLAMA_BUILD_TOOLS": "OFF"}
    pairs = (option.split("=", 1) for option in OPTIONS)
    # The kind of build is scikit-build-core's business; libstdc++ must be one for all libraries of a process.
    return tuple(
        f"{name}={other.get(name, value)}"
        for name, value in pairs
        if name not in ("-DCMAKE_BUILD_TYPE", "-DCMAKE_EXE_LINKER_FLAGS")
    )


class _Ear:
    """Counts what a build says, whatever it says."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def __call__(self, line: str) -> None:
        if STEP.search(line):
            self._bar.advance(1)


def _reason(said: str) -> str:
    """Return the lines from the first that names an error; a build's own output is long, and ends with warnings."""
    lines = said.splitlines()
    errors = [number for number, line in enumerate(lines) if "error:" in line.lower() or "CMake Error" in line]
    first = errors[0] if errors else len(lines)
    return "\n".join(lines[min(first, max(0, len(lines) - 20)) :][:20])
