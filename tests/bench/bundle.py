"""Bundles beside `cp`: how long it takes to write, to check and to install one, and how much memory.

    python -m tests.bench.bundle [GB ...] [--place DIR] [--results FILE]

For each size, files of random bytes as weights, 4 GiB at most each, on the disk that DIR is on; nothing of them is in the
page cache when a measurement begins. Each line is the best of two runs, and all end with the bytes on the disk.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from appliance import report
from appliance.acquire.bundle import Bundle
from appliance.domain.deployment import Model
from appliance.domain.weights import WeightFile, Weights
from appliance.weights.digest import model_digest, sha256
from tests.unit.bundle import small

GB = 10**9
LARGEST = 4 << 30
RUNS = 2
QUIET = report.Plain(open(os.devnull, "w"))


def weights(home: Path, total: int) -> list[Path]:
    """Write random files."""
    home.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    with open("/dev/urandom", "rb", buffering=0) as source:
        block = bytearray(source.read(64 << 20))
        while total:
            size = min(total, LARGEST)
            path = home / f"weights-{len(paths)}.safetensors"
            with path.open("wb") as stream:
                left = size
                while left:
                    block[:8] = left.to_bytes(8, "little")  # no two blocks are the same
                    left -= stream.write(block[: min(left, len(block))])
            paths.append(path)
            total -= size
    return paths


def forget(*places: Path) -> None:
    """Take files out of the page cache."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        for place in places:
            for path in [place] if place.is_file() else list(place.rglob("*")):
                if path.is_file():
                    with path.open("rb") as stream:
                        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(act: Callable[[], None], clean: Callable[[], None], *inputs: Path) -> float:
    best = float("inf")
    for _ in range(RUNS):
        clean()
        forget(*inputs)
        began = time.monotonic()
        act()
        best = min(best, time.monotonic() - began)
    return best


def shell(line: str) -> Callable[[], None]:
    def run() -> None:
        subprocess.run(("bash", "-c", line), check=True)

    return run


class Child:
    """A step in a process of its own, whose memory can be told."""

    def __init__(self, step: str, source: Path, target: Path) -> None:
        self.words = (sys.executable, "-m", "tests.bench.bundle", "--step", step, str(source), str(target))
        self.memory = 0

    def __call__(self) -> None:
        done = subprocess.run(self.words, check=True, capture_output=True, text=True)
        self.memory = max(self.memory, int(done.stdout.split()[-1]))


def step(name: str, source: Path, target: Path) -> None:
    if name == "create":
        small.write_of(target, small.Recipe(secret=b""), source, model(source))
    elif name == "verify":
        small.check(source, allow_unsigned=True)
    elif name == "install":
        with small.opened(source, allow_unsigned=True) as reader:
            bundle = Bundle(reader, str(target), ())
            bundle.weights(bundle.models[0], QUIET)
    elif name == "inspect":
        with small.opened(source, allow_unsigned=True) as reader:
            assert reader.index.components
    # Not ru_maxrss: a new process begins with its parent's.
    (peak,) = (
        line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    print(peak)


def model(home: Path) -> Model:
    """A model of the files in a directory; their digests are known, as those of a store are."""
    files = []
    for path in sorted(home.glob("*.safetensors")):
        digest = path.with_suffix(".sha256").read_text()
        files.append(WeightFile(name=path.name, path=str(path), size=path.stat().st_size, sha256=digest))
    shape = Weights(format="safetensors", architecture="qwen3", files=tuple(files))
    return Model(name="tiny", source="/srv/tiny", weights=shape, digest=model_digest(tuple(files)))


def measure(total: int, place: Path) -> list[tuple[str, float, int]]:
    """Return (what, seconds, KiB of memory) for one size."""
    home, target, bundle = place / "weights", place / "target", place / "site.llmb"

    def clean() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

    for path in weights(home, total):
        path.with_suffix(".sha256").write_text(sha256(str(path), lambda _amount: None))
    rows = [("cp + sync", timed(shell(f"cp --reflink=never {home}/*.safetensors {target} && sync"), clean, home), 0)]
    steps = (
        ("bundle create", "create", home, target / "site.llmb", home),
        ("bundle verify", "verify", bundle, target, bundle),
        ("bundle inspect", "inspect", bundle, target, bundle),
        ("bundle install", "install", bundle, target / "state", bundle),
    )
    for title, name, source, out, cold in steps:
        child = Child(name, source, out)
        rows.append((title, timed(child, clean, cold), child.memory))
        if name == "create":
            out.rename(bundle)
    clean()
    for title, program, file in (
        ("tar, stored", "cat", "plain.tar"), ("tar | zstd -1", "zstd -1 -T0 -q", "tar.zst"), ("tar | pigz", "pigz", "tar.gz"),
    ):  # fmt: skip
        if shutil.which(program.split()[0]):
            line = f"tar -C {home} -cf - . | {program} >{target / file} && sync"
            rows.append((title, timed(shell(line), clean, home), 0))
    for path in (home, target):
        shutil.rmtree(path)
    bundle.unlink()
    return rows


def table(total: int, rows: list[tuple[str, float, int]]) -> str:
    base = rows[0][1]
    lines = [
        f"### {total / GB:g} GB",
        "",
        "| what | seconds | MB/s | times cp | memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    for what, seconds, memory in rows:
        shown = f"{memory / 1024:.0f} MiB" if memory else ""
        speed = "" if what == "bundle inspect" else f"{total / 1e6 / seconds:.0f}"
        lines.append(f"| {what} | {seconds:.2f} | {speed} | {seconds / base:.2f} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sizes", nargs="*", type=float, default=[1, 2, 4], metavar="GB")
    parser.add_argument("--place", default=tempfile.gettempdir())
    parser.add_argument("--results", default="")
    parser.add_argument("--step", nargs=3, default=[], help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.step:
        step(told.step[0], Path(told.step[1]), Path(told.step[2]))
        return
    parts = []
    for size in told.sizes:
        with tempfile.TemporaryDirectory(dir=told.place) as directory:
            parts.append(table(int(size * GB), measure(int(size * GB), Path(directory))))
            print(parts[-1], flush=True)
    if told.results:
        about = f"{os.cpu_count()} processors, Linux {platform.release()}, Python {platform.python_version()}"
        Path(told.results).write_text(f"# Bundles beside cp\n\n{about}.\n\n" + "\n".join(parts))


if __name__ == "__main__":
    main()
