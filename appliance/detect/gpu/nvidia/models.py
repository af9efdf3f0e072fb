"""What follows from a GPU's name, a driver's number or a Jetson's chip where no tool tells it."""

import re
from typing import Final

CAPABILITIES: Final = (
    # The name of the generation stands in the name of the workstation cards and decides first.
    (r"Blackwell|RTX PRO [0-9]{3,4}|RTX 50[5-9]0", "12.0"),
    (r"G?B300", "10.3"),
    (r"GB10", "12.1"),
    (r"G?B[12]00", "10.0"),
    (r"G?H[12]00|H100[LX]|H800L?|H20L?", "9.0"),
    (r"Ada|RTX 40[5-9]0|L40[SG]?|L20|L4|L2", "8.9"),
    (r"A100[DXBC]?|A800[DX]?|A30X?|CMP 170HX|PG506|DRIVE-PG199|GA100", "8.0"),
    (r"Orin", "8.7"),
    (r"Thor", "11.0"),
    (r"RTX A[0-9]{3,4}|RTX 30[5-9]0|RTX 2050|A10[GM]?|A16|A2|A40|MX570", "8.6"),
    (r"T4G?|RTX 20[6-8]0|TITAN RTX|Quadro RTX|RTX [3-8]000|GTX 16[35-6]0|T[0-9]{3,4}|MX[45]50|CMP [3-5]0HX", "7.5"),
    (r"Xavier", "7.2"),
    (r"V100(?:DX|[SDLX])?|TITAN V|GV100", "7.0"),
    (r"TX2", "6.2"),
    (r"P100X?|GP100", "6.0"),
    (r"P40|P4|P6|GTX 10[1-8]0|GT 10[13]0|TITAN Xp?|Quadro P[0-9]{3,4}|P[0-9]{4}|MX[1-3][1-5]0", "6.1"),
    (r"Tegra X1|Jetson Nano", "5.3"),
    (r"M60|M40|M4|M6|GTX 9[5-8]0|GTX TITAN X|Quadro M[456]000", "5.2"),
    (r"M10|GTX 75[05]|GTX 745|Quadro M[12]000|Quadro K[12]200|Quadro K620", "5.0"),
    (r"K80", "3.7"),
    (r"K40[cdmst]?|K20[cmsX]?m?|GTX TITAN|GTX 780", "3.5"),
    (r"K10|K520|K340|K2|K1", "3.0"),
)  # fmt: skip
"""Names as nvidia-smi prints them -> compute capability (developer.nvidia.com/cuda-gpus, cuda-legacy-gpus).
Needed for drivers before 510 or so, and for GPUs that only the kernel module tells of. A vGPU's name is that of its
card with the profile behind: `GRID V100D-8Q`, `NVIDIA A40-48Q`."""
_SPECIAL: Final = (("GTX TITAN X", "5.2"),)
"""Maxwell, where `TITAN X (Pascal)` and `TITAN Xp` are 6.1."""
_KNOWN: Final = tuple(
    (re.compile(rf"(?<![A-Za-z0-9])(?:{pattern})(?![0-9A-Za-z])"), capability)
    for pattern, capability in (*_SPECIAL, *CAPABILITIES)
)

_INTEGRATED: Final = re.compile(r"\bGB10\b|\bOrin\b|\bThor\b|\bXavier\b|\bTegra\b|\bJetson\b|nvgpu|\bTX[12]\b")
_INTEGRATED_CAPABILITIES: Final = frozenset({"5.3", "6.2", "7.2", "8.7", "11.0", "12.1"})
"""Of systems on a chip alone: TX1 and Nano, TX2, Xavier, Orin, Thor, GB10."""

APIS: Final = {
    615: "13.4", 610: "13.3", 595: "13.2", 590: "13.1", 580: "13.0", 575: "12.9", 570: "12.8", 565: "12.7", 560: "12.6",
    555: "12.5", 550: "12.4", 545: "12.3", 535: "12.2", 530: "12.1", 525: "12.0", 520: "11.8", 515: "11.7",
    510: "11.6", 495: "11.5", 470: "11.4", 465: "11.3", 460: "11.2", 455: "11.1", 450: "11.0", 440: "10.2",
    418: "10.1", 410: "10.0", 396: "9.2", 390: "9.1", 384: "9.0",
}  # fmt: skip
"""Branch of the Linux driver -> newest CUDA (release notes of the CUDA toolkit, table of driver versions)."""

CHIPS: Final = {
    "tegra264": ("Thor", "11.0"), "tegra234": ("Orin", "8.7"), "tegra194": ("Xavier", "7.2"),
    "tegra186": ("TX2", "6.2"), "tegra210": ("Tegra X1", "5.3"),
}  # fmt: skip
"""Chip as the device tree has it -> (name, compute capability)."""
JETSON_APIS: Final = (
    ("39", "13.2"), ("38", "13.0"), ("36.4", "12.6"), ("36.5", "12.6"), ("36", "12.2"), ("35", "11.4"), ("34", "11.4"),
    ("32", "10.2"),
)  # fmt: skip
"""Release of Jetson Linux -> CUDA that JetPack brings for it; the first that fits."""


def capability(name: str) -> str:
    """Return the compute capability of a GPU of that name, "" where it is not in the list."""
    return next((capability for pattern, capability in _KNOWN if pattern.search(name)), "")


def integrated(name: str, capability: str) -> bool:
    """Tell whether it is part of a system on a chip and so has no memory of its own.

    A missing number is no evidence: the parent of MIG slices, a vGPU or a lack of permission may be the cause.
    GH200 and GB200 have memory of their own beside the processor's.
    """
    return capability in _INTEGRATED_CAPABILITIES or _INTEGRATED.search(name) is not None


def api(driver: str) -> str:
    """Return the newest CUDA that a driver of that version can do, "" where it is not in the list."""
    branch = driver.partition(".")[0]
    return APIS.get(int(branch), "") if branch.isascii() and branch.isdigit() and len(branch) < 5 else ""


def jetson_api(release: str) -> str:
    """Return the CUDA that belongs to a release of Jetson Linux, `36.4.3`."""
    return next((cuda for start, cuda in JETSON_APIS if f"{release}.".startswith(f"{start}.")), "")
