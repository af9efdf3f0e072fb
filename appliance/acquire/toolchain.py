"""What a build needs: cmake and ninja from wheels, and this machine's compiler or one unpacked into the cache."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.acquire import debian
from appliance.acquire.source import Source, index, refuse_offline
from appliance.catalog import DIRECTORY, load
from appliance.domain.changes import Command
from appliance.errors import ArtifactError
from appliance.report import Progress
from appliance.system.machine import PATH, Machine

WRAPPER: Final = """#!/bin/sh
# The unpacked tool with the unpacked libraries, whatever the system has or has not.
LD_LIBRARY_PATH="{libraries}" COMPILER_PATH="{root}/usr/bin" PATH="{root}/usr/bin:/usr/bin:/bin"
export LD_LIBRARY_PATH COMPILER_PATH PATH
unset GCC_EXEC_PREFIX LIBRARY_PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH
exec "{root}/usr/bin/{tool}"{flags} "$@"
"""
LIBRARIES: Final = (
    "libisl", "libmpc", "libmpfr", "libgmp", "libz.so", "libzstd", "libbfd", "libopcodes", "libctf", "libjansson",
    "libsframe", "libgprofng", "libcc1", "libstdc++",
)  # fmt: skip
"""What compiler and binutils link to, less the C library: the running system's own must be used with its loader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Absolute paths of what a build calls."""

    cc: str
    cxx: str
    cmake: str
    ninja: str
    strip: str
    path: str
    """PATH for the build."""


def tools(cache: Path, machine: Machine, source: Source, progress: Progress) -> Tools:
    """Return a working set, made when it is not there. Raises ArtifactError."""
    python_tools = _python_tools(cache, machine, source, progress)
    compiler = _system(machine) or _unpacked(cache, machine, source, progress)
    cc, cxx, strip = compiler
    return Tools(
        cc=cc,
        cxx=cxx,
        cmake=f"{python_tools}/bin/cmake",
        ninja=f"{python_tools}/bin/ninja",
        strip=strip,
        path=f"{python_tools}/bin:{os.path.dirname(cc)}:{PATH}",  # noqa: PTH120
    )


def discard(cache: Path) -> None:
    """Remove compiler and tools: nobody who is not building wants them on a server."""
    for name in ("toolchain", "build-tools", "build"):
        shutil.rmtree(cache / name, ignore_errors=True)


def uv() -> str:
    """Return uv's path: it comes with the appliance."""
    return f"{os.path.dirname(sys.executable)}/uv"  # noqa: PTH120


def make_environment(
    target: Path,
    requirements: Path,
    machine: Machine,
    source: Source,
    *,
    extra: tuple[tuple[str, str], ...] = (),
    options: tuple[str, ...] = ("--link-mode", "copy"),
) -> Command:
    """Create an empty Python environment and return the command that fills it from pinned, hashed requirements."""
    shutil.rmtree(target, ignore_errors=True)
    where = index(machine)
    environment = where.environment(source)
    create = Command(
        # It is filled under another name than it will have: its scripts must not name the Python by its path.
        argv=(uv(), "venv", "--quiet", "--relocatable", "--python", sys.executable, str(target)),
        env=environment,
        timeout=120,
    )
    done = machine.run(create)
    if done.code:
        raise ArtifactError(f"no Python environment can be made in {target}: {done.stderr.strip()}")
    return Command(
        argv=(
            uv(), "pip", "install", "--python", str(target), "--require-hashes", *options, *where.options(source),
            "--requirements", str(requirements),
            "--build-constraints", str(DIRECTORY / "requirements" / "build-tools.txt"),
        ),
        env=(*environment, *extra),
        timeout=7200,
    )  # fmt: skip


def _python_tools(cache: Path, machine: Machine, source: Source, progress: Progress) -> Path:
    target = cache / "build-tools"
    if (target / "complete").exists():
        return target
    refuse_offline(source, "cmake")
    progress.step("tools", "cmake and ninja")
    done = machine.run(make_environment(target, DIRECTORY / "requirements" / "build-tools.txt", machine, source))
    if done.code:
        raise ArtifactError(
            f"cmake and ninja cannot be fetched: {done.stderr.strip()[-800:]}",
            hint="check the network; behind a mirror set index-url in /etc/pip.conf",
        )
    (target / "complete").touch()
    return target


def _system(machine: Machine) -> tuple[str, str, str] | None:
    """Return this machine's own compiler when it compiles, links and finds its headers."""
    cc, cxx, strip = (machine.which(name) for name in ("cc", "c++", "strip"))
    if not (cc and cxx and strip):
        return None
    program = b"#include <thread>\nint main() { std::thread t([]{}); t.join(); }\n"
    trial = Command(
        argv=(cxx, "-std=c++17", "-x", "c++", "-", "-o", "/dev/null", "-static-libstdc++", "-pthread"), input=program
    )
    return (cc, cxx, strip) if machine.run(trial).code == 0 else None


def _unpacked(cache: Path, machine: Machine, source: Source, progress: Progress) -> tuple[str, str, str]:
    """Return gcc from the distribution's packages, unpacked below the cache."""
    home = cache / "toolchain"
    if not (home / "complete").exists():
        refuse_offline(source, "a compiler")
        progress.step("tools", "a compiler, unpacked for this build only")
        archives = debian.fetch(load(state=source.state).toolchain_packages, cache, machine)
        shutil.rmtree(home, ignore_errors=True)
        debian.unpack(archives, home / "root", machine)
        shutil.rmtree(archives[0].parents[1], ignore_errors=True)
        _wrap(home)
        (home / "complete").touch()
    return str(home / "bin" / "cc"), str(home / "bin" / "c++"), str(home / "bin" / "strip")


def _wrap(home: Path) -> None:
    root = home / "root"
    compilers = sorted(path for path in (root / "usr/lib/gcc").glob("*/*") if path.name.isdigit())
    if not compilers:
        raise ArtifactError("the compiler's packages hold no compiler")
    triplet, version = compilers[-1].parent.name, compilers[-1].name
    libraries = home / "lib"
    libraries.mkdir()
    for path in (root / "usr/lib" / triplet).iterdir():
        if ".so" in path.name and path.name.startswith(LIBRARIES):
            (libraries / path.name).symlink_to(path)
    wrappers = {
        "cc": (f"{triplet}-gcc-{version}", f' --sysroot="{root}"'),
        "c++": (f"{triplet}-g++-{version}", f' --sysroot="{root}"'),
        # Never gcc-ar and its like: they look `ar` up in PATH, find their own wrapper and call it without end.
        **{name: (f"{triplet}-{name}", "") for name in ("ar", "ranlib", "nm", "ld", "as", "strip", "objcopy")},
    }
    (home / "bin").mkdir()
    for name, (tool, flags) in wrappers.items():
        path = home / "bin" / name
        path.write_text(WRAPPER.format(libraries=libraries, root=root, tool=tool, flags=flags))
        path.chmod(0o755)
