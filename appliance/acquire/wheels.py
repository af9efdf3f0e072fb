"""Python environments for engines that are Python programs: one for each, from requirements with hashes."""

import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from appliance.acquire import debian, toolchain
from appliance.acquire.build import KERNELS, OPTIONS, STEP, processor
from appliance.acquire.source import Source, index, refuse_offline
from appliance.catalog import lock
from appliance.domain.changes import Command
from appliance.domain.deployment import Deployment
from appliance.domain.release import Artifact
from appliance.errors import ArtifactError
from appliance.report import Bar, Progress, work
from appliance.system.machine import Machine, sync

NVIDIA: Final = "lib/nvidia"
"""Directory of an environment with links to all of NVIDIA's libraries in it."""
SYSTEM: Final = "lib/system"
"""Directory of an environment with links to the distribution's libraries that it brings along."""
COMPILED: Final = ("llama-cpp-python",)
"""Artifacts that the general index has no wheels of: built here, for this processor."""

Variables = tuple[tuple[str, str], ...]


def environment(
    artifact: Artifact, deployment: Deployment, machine: Machine, source: Source, progress: Progress
) -> None:
    """Make an engine's environment from pinned, hashed requirements: those that come with us, else resolved now."""
    target = Path(deployment.layout.state, "engines", f"{artifact.name}-{artifact.digest[:16]}")
    if target.is_dir():
        return
    if not index(machine).wheelhouse:
        refuse_offline(source, artifact.ref)
    cache = Path(deployment.layout.cache)
    compiled = artifact.name in COMPILED and not artifact.indexes
    # One cache for each artifact: uv does not ask for which processor a wheel was built.
    extra: Variables = (("UV_CACHE_DIR", str(cache / "uv" / artifact.digest[:16])),)
    if compiled:
        extra = (*_compiler(artifact, cache, machine, source, progress), *extra)
    progress.step("environment", f"{artifact.ref}{', built from source where no wheel fits' if compiled else ''}")
    artifact, requirements = _locked(artifact, cache, machine, source, extra, progress)
    draft = target.with_name(f".{target.name}.new")
    # A GPU engine's files are many gigabytes: they are there once, however long the cache is kept.
    options: tuple[str, ...] = (
        ("--link-mode", "copy") if compiled else ("--link-mode", "hardlink", "--only-binary", ":all:")
    )
    # What was resolved is complete; what the packages ask for themselves has been overridden.
    options += ("--no-deps",) if artifact.overrides else ()
    where = (*_where(artifact, machine), *extra)
    command = toolchain.make_environment(draft, requirements, machine, source, extra=where, options=options)
    with work(progress, artifact.name, 0, unit="files") as bar:
        done = machine.run(command, on_line=_Ear(bar))
    if done.code:
        shutil.rmtree(draft, ignore_errors=True)
        raise _failed(artifact, done.stdout + done.stderr)
    shutil.copyfile(requirements, draft / "requirements.txt")
    _gather(draft)
    _name(draft, artifact)
    _add_libraries(draft, artifact, cache, machine)
    # Leaves what was built here; all else can be had again, and a build's sources are large.
    machine.run(Command(argv=(toolchain.uv(), "cache", "prune", "--ci", "--quiet"), env=extra[-1:], timeout=300))
    draft.rename(target)
    sync(target.parent)


def _gather(environment: Path) -> None:
    """Link NVIDIA's libraries into one directory, for engines that do not look for them in packages."""
    libraries = sorted(environment.glob("lib/python3*/site-packages/nvidia/*/lib/*.so*"))
    if not libraries:
        return
    target = environment / NVIDIA
    target.mkdir(parents=True)
    for library in libraries:
        link = target / library.name
        if not link.exists():
            link.symlink_to(Path("..", "..", library.relative_to(environment)))


def _name(environment: Path, artifact: Artifact) -> None:
    """Say what else is installed: importlib.metadata asks for nothing but name and version."""
    for packages in environment.glob("lib/python3*/site-packages"):
        for name, _, release in (one.partition("==") for one in artifact.provides):
            directory = packages / f"{name.replace('-', '_')}-{release}.dist-info"
            directory.mkdir()
            (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n")


def _add_libraries(environment: Path, artifact: Artifact, cache: Path, machine: Machine) -> None:
    """Unpack the distribution's libraries that it needs, and link them into one directory."""
    if not artifact.libraries:
        return
    packages, target = environment / "packages", environment / SYSTEM
    debian.unpack_programs(artifact.libraries, packages, cache, machine)
    target.mkdir(parents=True)
    for library in sorted(packages.glob("usr/lib/*-linux-gnu/*.so*")):
        (target / library.name).symlink_to(Path("..", "..", library.relative_to(environment)))


def _where(artifact: Artifact, machine: Machine) -> Variables:
    """Return the setting that adds the artifact's own indexes to the machine's."""
    indexes = (*artifact.indexes, *index(machine).extra)
    return (("UV_INDEX", " ".join(indexes)),) if indexes else ()


def _compiler(artifact: Artifact, cache: Path, machine: Machine, source: Source, progress: Progress) -> Variables:
    tools = toolchain.tools(cache, machine, source, progress)
    kernels = cache / "build" / f"{artifact.digest[:16]}.cmake"
    kernels.parent.mkdir(parents=True, exist_ok=True)
    kernels.write_text(KERNELS)
    return (
        ("CC", tools.cc),
        ("CXX", tools.cxx),
        ("CMAKE_ARGS", shlex.join((f"-DCMAKE_PROJECT_ggml_INCLUDE={kernels}", *_shared(), *processor(artifact)))),
        ("CMAKE_GENERATOR", "Ninja"),
        ("PATH", tools.path),
    )


def _locked(
    artifact: Artifact, cache: Path, machine: Machine, source: Source, extra: Variables, progress: Progress
) -> tuple[Artifact, Path]:
    """Return the artifact as it can be had, and its requirements: with all that makes it start sooner, else without."""
    if shipped := lock(artifact):
        return artifact, shipped
    if artifact.extras:
        whole = replace(
            artifact, pins=artifact.pins + artifact.extras, indexes=artifact.extras_indexes + artifact.indexes
        )
        try:
            return whole, _resolve(whole, cache, machine, source, extra, "-extras")
        except ArtifactError as error:
            names = " and ".join(one.partition("==")[0] for one in artifact.extras)
            progress.note(f"without {names}, so the first start takes some minutes longer: {error.message}")
    return artifact, _resolve(artifact, cache, machine, source, extra)


def _resolve(
    artifact: Artifact, cache: Path, machine: Machine, source: Source, extra: Variables, kind: str = ""
) -> Path:
    """Return the requirements with hashes of all that the artifact needs, from wheels only; kept for the next try."""
    path = cache / "locks" / f"{artifact.name}-{artifact.digest[:16]}{kind}.txt"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted, draft = path.with_suffix(".in"), path.with_suffix(".new")
    wanted.write_text("".join(f"{line}\n" for line in (artifact.ref, *artifact.pins)))
    overrides = path.with_suffix(".overrides")
    overrides.write_text("".join(f"{line}\n" for line in artifact.overrides))
    where = index(machine)
    compile_ = Command(
        argv=(
            toolchain.uv(), "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate",
            "--only-binary", ":all:", "--python", sys.executable, "--override", str(overrides),
            *where.options(source), "--output-file", str(draft), str(wanted),
        ),
        env=(*where.environment(source), *_where(artifact, machine), *extra),
        timeout=3600,
    )  # fmt: skip
    done = machine.run(compile_)
    if done.code:
        draft.unlink(missing_ok=True)
        raise _failed(artifact, done.stdout + done.stderr)
    draft.rename(path)
    return path


def _failed(artifact: Artifact, said: str) -> ArtifactError:
    return ArtifactError(
        f"{artifact.ref} cannot be installed:\n" + _reason(said),
        hint="check the network; behind a mirror set index-url in /etc/pip.conf",
    )


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
