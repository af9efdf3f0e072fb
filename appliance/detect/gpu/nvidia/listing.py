"""`nvidia-smi -L`: full names, UUIDs, and the MIG devices of each GPU."""

import re
from dataclasses import dataclass
from typing import Final

from appliance.detect.gpu.nvidia.cells import Seen
from appliance.domain.host import Slice

ARGUMENTS: Final = ("-L",)
_GPU: Final = re.compile(r"GPU ([0-9]{1,3}): (.*\S)\s+\(UUID: ([^()\s]+)\)")
_MIG: Final = re.compile(r"MIG (\S+)\s+Device\s+([0-9]{1,3}):\s*\(UUID: ([^()\s]+)\)")
_MEMORY: Final = re.compile(r"(?:^|\.)([0-9]{1,4})gb(?![0-9a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the list tells."""

    gpus: tuple[Seen, ...] = ()
    slices: tuple[tuple[int, Slice], ...] = ()
    """(GPU, MIG device)."""


def parse(text: str) -> Listing:
    """Read the list; a MIG device belongs to the GPU above it."""
    gpus: list[Seen] = []
    slices: list[tuple[int, Slice]] = []
    for line in text.splitlines():
        if gpu := _GPU.fullmatch(line.strip()):
            gpus.append(Seen(index=int(gpu[1]), name=gpu[2], uuid=gpu[3]))
        elif gpus and (mig := _MIG.fullmatch(line.strip())):
            part = Slice(index=int(mig[2]), uuid=mig[3], profile=mig[1], memory=profile_memory(mig[1]))
            slices.append((gpus[-1].index, part))
    return Listing(gpus=tuple(gpus), slices=tuple(slices))


def profile_memory(profile: str) -> int | None:
    """Return the bytes that a profile is named for, `1g.10gb` or `1c.3g.40gb+me`: a little more than it really has."""
    match = _MEMORY.search(profile)
    return int(match[1]) << 30 if match else None
