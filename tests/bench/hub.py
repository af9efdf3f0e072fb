"""Download of 2 GB from a hub on this machine: ours with digests, beside curl, huggingface_hub and RamaLama's pull.

    python -m tests.bench.hub [MIB]

All in one run on the same loopback, three rounds each, the best counts; bytes a second, and ratios. curl checks no digest
and huggingface_hub none either; ours digests every byte while it writes, and has it on the disk before it says so. The
hub is Python's own, and sends with sendfile. RamaLama comes from the package index and takes one file at a time.

2 cores that others use too, kept off by `chrt -r 5`, one round, each beside curl (800 and 831 MB/s):

    2048 MiB in      llm-appliance    huggingface_hub    ramalama
    1 file           1.45             0.27               0.33
    4 files          1.40             0.41               0.30

Where other programs want both cores all the time, it is 0.77 for one file: the digest costs what curl does not do.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.cli import peer as install

ROUNDS = 3
SERVER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.hub.server import Hub
hub = Hub()
hub.add("bench/model", {{name: Path({home!r}, name) for name in {names!r}}})
print(hub.url, flush=True)
time.sleep(3600)
"""
OURS = """
import resource, sys, time
from pathlib import Path
from appliance.acquire.hub import huggingface
from appliance.acquire.hub.reference import parse
from appliance.acquire.hub.settings import settings
from appliance.domain.spec import Hub
from appliance.system.transfer import Wanted, transfer
told = settings(Hub(endpoint=sys.argv[1]))
listing = huggingface.look(parse("hf:bench/model"), told)
began = time.monotonic()
transfer([Wanted(remote=huggingface.remote(listing.reference, one.path, told), target=Path(sys.argv[2], one.path),
                 size=one.size, sha256=one.sha256) for one in listing.files], certificates="", on_bytes=lambda n: None)
print(time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
THEIRS = """
import resource, sys, time
import huggingface_hub
began = time.monotonic()
huggingface_hub.snapshot_download("bench/model", endpoint=sys.argv[1], local_dir=sys.argv[2], max_workers=3)
print(time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    amount = (int(sys.argv[1]) if len(sys.argv) > 1 else 2048) << 20
    root = str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as directory:
        home = Path(directory, "hub")
        home.mkdir()
        ramalama = install(Path(directory, "peer"))
        one, several = ("model.gguf",), tuple(f"model-{number}.gguf" for number in range(1, 5))
        for names in (one, several):
            for name in names:
                make(home / name, amount // len(names))
            measure(root, home, names, amount, Path(directory), ramalama)
            for name in names:
                (home / name).unlink()


def measure(root: str, home: Path, names: tuple[str, ...], amount: int, directory: Path, peer: str) -> None:
    code = SERVER.format(root=root, home=str(home), names=names)
    server = subprocess.Popen((sys.executable, "-c", code), stdout=subprocess.PIPE, text=True)
    assert server.stdout
    url = server.stdout.readline().strip()
    # The digests are made when the first asks; that is not what is measured.
    program(OURS, url, directory / "out", root)
    try:
        ways: dict[str, Callable[[Path], tuple[float, int]]] = {
            "curl": lambda out: curl(url, names, out),
            "llm-appliance": lambda out: program(OURS, url, out, root),
            "huggingface_hub": lambda out: program(THEIRS, url, out, root),
            "ramalama": lambda out: pull(peer, url, names, out),
        }
        best: dict[str, tuple[float, int]] = {}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                shutil.rmtree(directory / "out", ignore_errors=True)
                (directory / "out").mkdir()
                best[name] = min(best.get(name, (1e9, 0)), way(directory / "out"))
        print(f"{amount >> 20} MiB in {len(names)} file{'s' * (len(names) > 1)}")
        for name, (seconds, memory) in best.items():
            ratio = best["curl"][0] / seconds
            resident = f"  {memory >> 10:5} MiB resident" if memory else ""
            print(f"  {name:16} {amount / seconds / 1e6:7.0f} MB/s  {ratio:5.2f} of curl{resident}")
    finally:
        server.kill()
        server.wait()


def pull(peer: str, url: str, names: tuple[str, ...], out: Path) -> tuple[float, int]:
    """RamaLama, less the start of its Python, which the others are not charged for either."""
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1"}
    began = time.monotonic()
    subprocess.run((peer, "version"), check=True, stdout=subprocess.DEVNULL)
    start = (time.monotonic() - began) * len(names)
    began = time.monotonic()
    for name in names:
        argv = (peer, "--quiet", "--store", str(out), "--nocontainer", "pull", f"hf://bench/model/{name}")
        subprocess.run(argv, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began - start, 0


def curl(url: str, names: tuple[str, ...], out: Path) -> tuple[float, int]:
    words = [word for name in names for word in ("-o", str(out / name), f"{url}/bench/model/resolve/main/{name}")]
    began = time.monotonic()
    argv = ("curl", "-sSfL", "--no-progress-meter", "--parallel", "--parallel-max", "3", *words)
    subprocess.run(argv, check=True)
    return time.monotonic() - began, 0


def program(code: str, url: str, out: Path, root: str) -> tuple[float, int]:
    environment = {**os.environ, "PYTHONPATH": root, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment |= {"HF_HOME": str(out.parent / "hf")}
    argv = (sys.executable, "-c", code, url, str(out))
    said = subprocess.run(argv, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout.split()
    shutil.rmtree(out.parent / "hf", ignore_errors=True)
    return float(said[0]), int(said[1])


def make(path: Path, amount: int) -> None:
    block = os.urandom(1 << 20)
    with path.open("wb") as stream:
        for _ in range(amount >> 20):
            stream.write(block)


if __name__ == "__main__":
    main()
