"""Builds llama.cpp's server from its pinned source, with a compiler that is unpacked for it and not installed."""

import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Final

from appliance.acquire import toolchain
from appliance.acquire.source import Source, certificates, index, refuse_offline
from appliance.domain.changes import Command
from appliance.domain.deployment import Deployment
from appliance.domain.release import Artifact
from appliance.errors import ArtifactError, CommandError
from appliance.report import Bar, Progress, work
from appliance.system.download import download, file_digest, find
from appliance.system.machine import Machine, sync

SUBTREE: Final = "vendor/llama.cpp"
"""Where the source package keeps the whole of llama.cpp."""
OPTIONS: Final = (
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_COMMON=ON", "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF",
    # Off, for they would reach the network during the build.
    "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_LLGUIDANCE=OFF", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_NUMBER=0", "-DLLAMA_BUILD_COMMIT=source-package",
    "-DGGML_NATIVE=ON", "-DGGML_CCACHE=OFF",
    # ggml's own threads instead of libgomp, so that the program needs nothing but the C library.
    "-DGGML_OPENMP=OFF", "-DCMAKE_EXE_LINKER_FLAGS=-static-libstdc++ -static-libgcc",
    # Time goes to ggml's kernels, which keep -O3; the rest at -O1 builds in two thirds of the time.
    "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
)  # fmt: skip
KERNELS: Final = 'set(CMAKE_C_FLAGS_RELEASE "-O3 -DNDEBUG")\nset(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")\n'
"""CMake code that is run when the ggml part begins."""
NVCC: Final = "/usr/local/cuda/bin/nvcc"
"""Where NVIDIA's packages put the compiler, which they do not put on PATH."""
STEP: Final = re.compile(r"^\[(\d+)/(\d+)\]")
"""How ninja numbers its lines."""


def llama_server(
    artifact: Artifact, deployment: Deployment, machine: Machine, source: Source, progress: Progress
) -> None:
    """Put the built program in place; one that was built before on this machine is taken from the cache."""
    target = Path(deployment.layout.state, "engines", f"llama-cpp-{artifact.digest[:16]}")
    if target.is_dir():
        return
    cache = Path(deployment.layout.cache)
    built = cache / "built" / artifact.digest / "llama-server"
    if not _intact(built):
        refuse_offline(source, "llama-server")
        _build(artifact, cache, built, machine, source, progress)
    draft = target.with_name(f".{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "bin").mkdir(parents=True)
    shutil.copy2(built, draft / "bin" / "llama-server")
    done = machine.run(Command(argv=(str(draft / "bin" / "llama-server"), "--version"), timeout=30))
    if done.code:
        raise ArtifactError(f"the built llama-server does not start: {(done.stderr or done.stdout).strip()[-500:]}")
    draft.rename(target)
    sync(target.parent)


def fetch_source(artifact: Artifact, cache: Path, machine: Machine, source: Source, progress: Progress) -> Path:
    """Return the source package in the cache, from the index that pip is set up for. Raises ArtifactError."""
    name, _, version = artifact.ref.partition("==")
    path = cache / "sources" / f"{name}-{version}-{artifact.source_sha256[:16]}.tar.gz"
    if path.exists() and file_digest(path) == artifact.source_sha256:
        return path
    refuse_offline(source, artifact.ref)
    where = index(machine)
    progress.step("download", artifact.ref)
    url = find(artifact.ref, index=where.url, extra=where.extra, links=where.find_links, certificates=certificates())
    bar: Bar | None = None

    def on_bytes(amount: int, total: int) -> None:
        nonlocal bar
        bar = bar or progress.bar(artifact.ref, total)
        bar.advance(amount)

    try:
        download(url, path, sha256=artifact.source_sha256, certificates=certificates(), on_bytes=on_bytes)
    finally:
        if bar:
            bar.close()
    return path


def _build(artifact: Artifact, cache: Path, built: Path, machine: Machine, source: Source, progress: Progress) -> None:
    package = fetch_source(artifact, cache, machine, source, progress)
    tools = toolchain.tools(cache, machine, source, progress)
    tree = cache / "build" / artifact.digest[:16]
    if not (tree / "unpacked").exists():
        shutil.rmtree(tree, ignore_errors=True)
        progress.step("unpack", package.name)
        unpack(package, tree / "source", SUBTREE)
        (tree / "unpacked").touch()
    kernels = tree / "kernels.cmake"
    kernels.write_text(KERNELS)
    # A build that was cut off goes on: ninja knows which files were finished.
    progress.step("build", "llama-server, some minutes")
    directory = tree / "objects"
    configure = (
        tools.cmake, "-S", str(tree / "source"), "-B", str(directory),
        "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools.ninja}",
        f"-DCMAKE_C_COMPILER={tools.cc}", f"-DCMAKE_CXX_COMPILER={tools.cxx}",
        f"-DCMAKE_PROJECT_ggml_INCLUDE={kernels}", *OPTIONS, *processor(artifact), *_accelerator(artifact, machine),
    )  # fmt: skip
    environment = (("PATH", tools.path),)
    _run(Command(argv=configure, timeout=600, env=environment), machine, lambda _line: None)
    make = (tools.ninja, "-C", str(directory), "llama-server")
    with work(progress, "building llama-server", 0, unit="files") as bar:
        _run(Command(argv=make, timeout=7200, env=environment), machine, Steps(bar))
    draft = built.with_name(".llama-server.new")
    draft.parent.mkdir(parents=True, exist_ok=True)
    _run(
        Command(argv=(tools.strip, "-o", str(draft), str(directory / "bin" / "llama-server"))), machine, lambda _: None
    )
    draft.chmod(0o755)
    built.with_name("sha256").write_text(file_digest(draft))
    draft.replace(built)
    shutil.rmtree(tree, ignore_errors=True)


def processor(artifact: Artifact) -> tuple[str, ...]:
    """Return the options that take back those for this machine's processor, where it is to run on others, too."""
    return ("-DGGML_NATIVE=OFF",) if artifact.portable else ()


def _accelerator(artifact: Artifact, machine: Machine) -> tuple[str, ...]:
    """Return the options for a GPU: the catalog's, and the CUDA compiler that detection found."""
    if not artifact.pins:
        return ()
    compiler = machine.which("nvcc") or NVCC
    return (*(f"-D{pin}" for pin in artifact.pins), f"-DCMAKE_CUDA_COMPILER={compiler}")


class Steps:
    """Turns ninja's `[12/345]` lines into a bar that advances."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._done = 0

    def __call__(self, line: str) -> None:
        """Hear one line."""
        found = STEP.match(line)
        if found:
            self._bar.advance(int(found[1]) - self._done, total=int(found[2]))
            self._done = int(found[1])


def unpack(package: Path, target: Path, subtree: str) -> None:
    """Unpack the files below `subtree` of a source package; names that leave the target are refused."""
    target.mkdir(parents=True)
    with tarfile.open(package) as archive:
        for member in archive:
            _, _, inside = member.name.partition(f"/{subtree}/")
            if not inside or not (member.isfile() or member.isdir()):
                continue
            path = target / inside
            if ".." in path.parts:
                raise ArtifactError(f"{package.name}: {member.name!r} leaves its directory")
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None
            with path.open("wb") as stream:
                shutil.copyfileobj(content, stream)
            os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)  # noqa: PTH101


def _intact(built: Path) -> bool:
    digest = built.with_name("sha256")
    return built.is_file() and digest.is_file() and digest.read_text() == file_digest(built)


def _run(command: Command, machine: Machine, on_line: "Steps | object") -> None:
    assert callable(on_line)
    done = machine.run(command, on_line=on_line)
    if done.code:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise CommandError(f"{' '.join(command.argv[:6])} … ends with {done.code}:\n{said}")
