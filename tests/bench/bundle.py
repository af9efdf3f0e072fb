"""Bundles beside `cp`: how long it takes to write, to check and to install one, and how much memory.

    python -m tests.bench.bundle [GB ...] [--place DIR] [--results FILE]

For each size, files of random bytes as weights, 4 GiB at most each, on the disk that DIR is on; nothing of them is in the
page cache when a measurement begins. In three rounds all are measured one after the other, and all end with the bytes on
the disk: `cp` with `sync` of the files that it wrote, for a `sync` of all would wait for other programs' bytes, too. The
seconds are the best of the three; "times cp" is the median of what each round gives, for in one round the disk is as busy
for both. `install` is weights from the bundle to their place in the store, each byte checked, Python's own start with it,
from compiled files as an installation has them; what it does besides (its environment, unpacking engines, starting) takes
the same time at any size. What is written is removed in the end; at 8 GB it is 24 GB at a time.
"""

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance import report
from appliance.acquire.bundle import Bundle, chunk_size
from appliance.bundle import index as indexes
from appliance.bundle import oci, tar
from appliance.bundle.index import Index, Payload
from appliance.domain.deployment import Model
from appliance.domain.weights import WeightFile, Weights
from appliance.weights.digest import model_digest, sha256
from tests.unit.bundle import small

GB = 10**9
LARGEST = 4 << 30
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
    """Take files out of the page cache, and nothing else where they are named."""
    if not places:
        os.sync()
        with suppress(OSError):
            Path("/proc/sys/vm/drop_caches").write_text("1")
    for place in places:
        for path in [place] if place.is_file() else list(place.rglob("*")):
            if path.is_file():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
                    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass(frozen=True)
class Row:
    """One measurement."""

    what: str
    seconds: float
    processor: float
    """Seconds of processors, which other programs' work does not change."""
    memory: int = 0
    """KiB."""
    times: float = 0.0
    """As long as `cp` in the same round took."""


def timed(what: str, act: Callable[[], object], clean: Callable[[], None], *inputs: Path) -> Row:
    """Return one measurement, from a cold cache."""
    clean()
    forget(*inputs)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    act()
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Row(what, ended - began, processor, act.memory if isinstance(act, Child) else 0)


COPY = "cp + sync"
MEASURED = "<!-- measured: what follows is written by --results -->"


def best(rows: list[Row]) -> list[Row]:
    """Return the best of several rounds; in each, everything was measured after everything else."""
    names = dict.fromkeys(row.what for row in rows)
    of = {name: [row for row in rows if row.what == name] for name in names}
    return [
        Row(
            name, min(row.seconds for row in of[name]), min(row.processor for row in of[name]),
            max(row.memory for row in of[name]),
            statistics.median(row.seconds / copy.seconds for row, copy in zip(of[name], of[COPY], strict=False)),
        )
        for name in names
    ]  # fmt: skip


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
            assert reader.index.payloads
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


def compile_in(home: Path) -> None:
    """Have Python's files compiled for all steps, as they are where the appliance is installed."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(home)
    subprocess.run((sys.executable, "-c", "import tests.bench.bundle"), check=True)


def measure(total: int, place: Path, rounds: int, *, others: bool) -> list[Row]:
    """Measure one size; `others`: beside programs that compress, too, which take long."""
    home, target, bundle = place / "weights", place / "target", place / "site.llmb"

    def clean() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

    for path in weights(home, total):
        path.with_suffix(".sha256").write_text(sha256(str(path), lambda _amount: None))
    copy = shell(f"cp --reflink=never {home}/*.safetensors {target} && sync {target}/*")
    steps = (
        ("bundle create", "create", home, target / "site.llmb"),
        ("bundle verify", "verify", bundle, target),
        ("bundle inspect", "inspect", bundle, target),
        ("bundle install", "install", bundle, target / "state"),
    )
    programs = (
        ("tar, stored", "cat", "plain.tar"), ("tar, zstd -1", "zstd -1 -T0 -q", "tar.zst"), ("tar, pigz", "pigz", "tar.gz"),
    )  # fmt: skip
    rows = []
    for number in range(rounds):
        rows.append(timed(COPY, copy, clean, home))
        for title, name, source, out in steps:
            rows.append(timed(title, Child(name, source, out), clean, source))
            if name == "create":
                out.replace(bundle)
        for title, program, name in programs if others and not number else ():
            if shutil.which(program.split()[0]):
                line = f"tar -C {home} -cf - . | {program} >{target / name} && sync {target / name}"
                rows.append(timed(title, shell(line), clean, home))
        if others and not number:
            rows += docker(home, target, clean)
    rows = best(rows)
    for path in (home, target):
        shutil.rmtree(path)
    bundle.unlink()
    return rows


def docker(home: Path, target: Path, clean: Callable[[], None]) -> list[Row]:
    """Measure an image of the same bytes, which Docker has in one layer; () where none answers."""
    if subprocess.run(("docker", "version"), capture_output=True, check=False).returncode:
        print("docker: no daemon answers, so `docker save` and `docker load` are not measured")
        return []
    image = f"bench-bundle:{os.getpid()}"
    shell(f"tar -C {home} -c . | docker import - {image} >{os.devnull}")()
    try:
        save = timed("docker save", shell(f"docker save {image} >{target}/image.tar && sync {target}/image.tar"), clean)
        subprocess.run(("docker", "rmi", image), capture_output=True, check=True)
        load = timed("docker load", shell(f"docker load <{target}/image.tar"), lambda: None, target)
        return [save, load]
    finally:
        subprocess.run(("docker", "rmi", image), capture_output=True, check=False)


def inspect_large(terabytes: int, place: Path) -> float:
    """Return how long it takes to look at a bundle of so many TB; its weights are a hole in the file."""
    size = terabytes * 10**12 // 8
    chunk = chunk_size(8 * size)
    digest, place_, payloads = "a" * 64, tar.first(8 << 20), []
    for number in range(8):
        offset = tar.data(place_)
        chunks = tuple(digest for _ in range((size - 1) // chunk))
        payloads.append(Payload(digest=f"{number:064x}", size=size, offset=offset, kind="weights", chunks=chunks))
        place_ = tar.after(offset, size)
    index = Index(
        schema=indexes.SCHEMA, name="large", serial=0, appliance="0.1.0", target=small.TARGET, size=tar.end(place_),
        payloads=tuple(payloads), components=(), chunk=chunk,
    )  # fmt: skip
    last = payloads[-1]
    content = indexes.dump(index).ljust(8 << 20, b" ")
    parts = (content, b"\n" * tar.SIGNATURE_SIZE, tar.LAYOUT_CONTENT, oci.index(last.digest, last.size))
    path = place / "large.llmb"
    with path.open("wb") as stream:
        for (name, at, length), inside in zip(tar.head(8 << 20), parts, strict=True):
            stream.seek(at)
            stream.write(tar.header(name, length) + inside)
        stream.truncate(index.size)
    began = time.monotonic()
    Child("inspect", path, place)()
    return time.monotonic() - began


def table(total: int, rows: list[Row]) -> str:
    lines = [
        f"### {total / GB:g} GB",
        "",
        "| what | seconds | MB/s | times cp | CPU s | memory |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        shown = f"{row.memory / 1024:.0f} MiB" if row.memory else ""
        whole = row.what != "bundle inspect"
        speed, times = (f"{total / 1e6 / row.seconds:.0f}", f"{row.times:.2f}") if whole else ("", "")
        lines.append(f"| {row.what} | {row.seconds:.2f} | {speed} | {times} | {row.processor:.2f} | {shown} |")
    return "\n".join(lines) + "\n"


def growth(found: dict[int, list[Row]]) -> str:
    """How long a GB takes at each size: the same, where all grows as the size does."""
    what = [COPY, "bundle create", "bundle verify", "bundle install"]
    lines = ["### Growth", "", f"| GB | {' | '.join(f'{name}, s/GB' for name in what)} | install, times cp |"]
    lines.append("| --- " * (len(what) + 2) + "|")
    for total, rows in found.items():
        of = {row.what: row for row in rows}
        cells = [f"{of[name].seconds * GB / total:.2f}" for name in what]
        lines.append(f"| {total / GB:g} | {' | '.join(cells)} | {of['bundle install'].times:.2f} |")
    sizes, fits = [total / GB for total in found], []
    for name in what:
        slope, start = statistics.linear_regression(
            sizes, [row.seconds for rows in found.values() for row in rows if row.what == name]
        )
        fits.append(f"{start:.2f} s and {slope:.2f} for each")
    lines.append(f"| straight line | {' | '.join(fits)} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sizes", nargs="*", type=float, default=[1, 2, 4, 8], metavar="GB")
    parser.add_argument("--place", default=tempfile.gettempdir())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="only beside cp: neither compressed nor in Docker")
    parser.add_argument("--results", default="")
    parser.add_argument("--step", nargs=3, default=[], help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.step:
        step(told.step[0], Path(told.step[1]), Path(told.step[2]))
        return
    parts: list[str] = []
    found: dict[int, list[Row]] = {}
    with tempfile.TemporaryDirectory(dir=told.place) as directory:
        place = Path(directory)
        compile_in(place / "compiled")
        for total in (int(size * GB) for size in told.sizes):
            found[total] = measure(total, place, told.rounds, others=not found and not told.alone)
            parts.append(table(total, found[total]))
            print(parts[-1], flush=True)
        parts.append(f"`inspect` of a bundle of 4 TB: {inspect_large(4, place):.2f} s.\n")
    if len(found) > 1:
        parts.insert(0, growth(found))
        print(parts[0])
    print(parts[-1], flush=True)
    if told.results:
        about = f"{os.cpu_count()} processors, load {os.getloadavg()[1]:.0f} from other work, Linux {platform.release()}, Python {platform.python_version()}"
        path = Path(told.results)
        words = path.read_text().partition(MEASURED)[0] if path.exists() else "# Bundles beside cp\n\n"
        path.write_text(f"{words}{MEASURED}\n\n{about}.\n\n" + "\n".join(parts))


if __name__ == "__main__":
    main()
