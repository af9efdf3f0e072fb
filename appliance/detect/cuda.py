"""The CUDA compiler, which building an engine here would need; wheels and images bring their own libraries."""

import json
import re
from typing import Final

from appliance.domain.changes import Command
from appliance.system.machine import Machine

HOME: Final = "/usr/local"


def parse_nvcc(content: str) -> str:
    """Return `12.8` from `nvcc --version`."""
    found = re.search(r"\brelease ([0-9]{1,4}\.[0-9]{1,4})\b", content)
    return found[1] if found else ""


def parse_version_json(content: str) -> str:
    """Return the compiler's version from a toolkit's version.json, "" where it lists none."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    part = data.get("cuda_nvcc") if isinstance(data, dict) else None
    version = part.get("version") if isinstance(part, dict) else None
    found = re.match(r"[0-9]{1,4}\.[0-9]{1,4}", version) if isinstance(version, str) else None
    return found[0] if found else ""


def toolkit(machine: Machine) -> str:
    """Return the version of the compiler on the path, else of /usr/local/cuda, else of the newest beside it."""
    if (program := machine.which("nvcc")) and (version := _ask(machine, program)):
        return version
    for home in _homes(machine):
        if "nvcc" in machine.names(f"{home}/bin") and (version := _ask(machine, f"{home}/bin/nvcc")):
            return version
        if version := parse_version_json((machine.read(f"{home}/version.json") or b"").decode(errors="replace")):
            return version
    return ""


def _ask(machine: Machine, program: str) -> str:
    return parse_nvcc(machine.run(Command(argv=(program, "--version"), timeout=5)).stdout)


def _homes(machine: Machine) -> tuple[str, ...]:
    found = (re.fullmatch(r"cuda-([0-9]{1,4})(?:\.([0-9]{1,4}))?", name) for name in machine.names(HOME))
    versions = sorted(((int(one[1]), int(one[2] or 0), one[0]) for one in found if one), reverse=True)
    return (f"{HOME}/cuda", *(f"{HOME}/{name}" for _, _, name in versions))
