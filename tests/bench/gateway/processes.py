"""What a tree of processes costs: processor time from schedstat, memory, and a pause button."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path


def tree(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    pids, at = [root], 0
    while at < len(pids):
        with suppress(OSError):
            for task in Path(f"/proc/{pids[at]}/task").iterdir():
                pids += [int(child) for child in (task / "children").read_text().split()]
        at += 1
    return pids


def cpu(root: int) -> int:
    """Return the nanoseconds that a tree of processes was on a processor: every thread that lives."""
    total = 0
    for pid in tree(root):
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    return total


def core_busy(core: int) -> float:
    """Return the seconds that a core was busy since the machine started, to a hundredth."""
    match = re.search(rf"^cpu{core} (.*)$", Path("/proc/stat").read_text(), re.MULTILINE)
    assert match, f"no core {core}"
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in match[1].split()[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def memory(root: int) -> tuple[float, float]:
    """Return the MB (1e6 bytes) of a tree: resident, what is shared counted for each; and proportional."""
    rss = pss = 0
    for pid in tree(root):
        with suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            rss += int(re.search(r"^Rss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
            pss += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return rss * 1024 / 1e6, pss * 1024 / 1e6


def send(root: int, number: signal.Signals) -> None:
    """Send a signal to a whole tree."""
    for pid in tree(root):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
