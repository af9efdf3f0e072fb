"""Downloads into the store: resumed after whatever breaks them, refused when wrong, shared, and never half there."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance import acquire, resources
from appliance.acquire import hub as hubs
from appliance.acquire import models, store
from appliance.acquire.hub import keep
from appliance.domain.deployment import Model
from appliance.errors import ArtifactError
from appliance.report import Plain
from appliance.system import transfer
from tests.hub.conftest import GGUF, SAFETENSORS, Here
from tests.hub.server import Hub, digest
from tests.unit.weights import build


def model(here: Here, source: str = "hf:small/safe", name: str = "m") -> Model:
    return models.from_hub(name, source, here.access())


def home(here: Here, wanted: Model) -> Path:
    return store.home(wanted, str(here.state))


def whole(here: Here, wanted: Model) -> bool:
    return {path.name: digest(path) for path in home(here, wanted).iterdir()} == {
        file.name: file.sha256 for file in wanted.weights.files
    }


def drafts(here: Here) -> list[str]:
    return [path.name for path in here.state.rglob("*") if path.name.endswith((".part", ".new"))]


@pytest.mark.parametrize("source", ["hf:small/safe", "ms:small/safe", "hf:small/gguf", "ms:small/gguf"])
def test_a_model_comes_into_the_store(here: Here, hub: Hub, source: str) -> None:
    wanted = model(here, source)
    assert store.missing(wanted, str(here.state)) == wanted.weights.size
    acquire.add(wanted, here.access())
    assert whole(here, wanted)
    assert not keep.room(str(here.state)).exists()
    assert store.missing(wanted, str(here.state)) == 0
    # Side files came once, with the headers; tensors once, less what the headers took.
    assert hub.served["config.json"] == (SAFETENSORS / "config.json").stat().st_size or source.endswith("gguf")
    served = sum(hub.served.values())
    acquire.add(wanted, here.access())
    assert sum(hub.served.values()) == served


def test_a_file_on_the_web_comes_into_the_store(here: Here, hub: Hub) -> None:
    wanted = model(here, f"{hub.url}/files/smoke.gguf#sha256={digest(GGUF)}")
    acquire.add(wanted, here.access())
    assert whole(here, wanted)


def test_what_was_pulled_is_found_again_without_any_hub(here: Here, hub: Hub) -> None:
    wanted = model(here)
    acquire.add(wanted, here.access())
    asked = len(hub.asked)
    again = models.from_hub("other", "small/safe", here.access(offline=True))
    assert again.digest == wanted.digest
    assert len(hub.asked) == asked


@pytest.mark.parametrize("kind", ["cut", "stall"])
def test_a_broken_download_goes_on_where_it_broke(here: Here, hub: Hub, kind: str) -> None:
    wanted = model(here)
    before = hub.served["model.safetensors"]
    hub.fail("/cdn/small/safe", kind, times=1, after=1_000_000)
    hub.fail("/cdn/small/safe", "status", times=2, status=503)
    acquire.add(wanted, here.access())
    assert whole(here, wanted)
    # A reset connection loses what the kernel still held; never a whole file.
    lost = hub.served["model.safetensors"] - before - (SAFETENSORS / "model.safetensors").stat().st_size
    assert lost == 0 if kind == "stall" else lost < 1_000_000


def test_a_busy_hub_is_waited_for(here: Here, hub: Hub) -> None:
    wanted = model(here)
    hub.fail("model.safetensors", "status", times=1, status=429, headers={"Retry-After": "1"})
    began = time.monotonic()
    acquire.add(wanted, here.access())
    assert time.monotonic() - began > 0.9


def test_wrong_bytes_are_refused_and_nothing_of_them_stays(here: Here, hub: Hub) -> None:
    wanted = model(here)
    hub.fail("/cdn/small/safe", "wrong", times=99)
    with pytest.raises(ArtifactError, match=r"sent sha256 [0-9a-f]{64}, [0-9a-f]{64} was promised; it was thrown away"):
        acquire.add(wanted, here.access())
    assert not store.has(wanted, str(here.state))
    assert not [name for name in drafts(here) if wanted.weights.files[0].sha256 in name]
    hub.faults.clear()
    acquire.add(wanted, here.access())
    assert whole(here, wanted)


def test_more_bytes_than_promised_are_refused(here: Here, hub: Hub) -> None:
    wanted = model(here, "hf:small/gguf")
    keep.room(str(here.state)).mkdir(parents=True)
    hub.fail("/cdn/", "more", times=99)
    with pytest.raises(ArtifactError, match="3,179,495 bytes, 3,179,488 bytes was promised"):
        acquire.add(wanted, here.access())
    assert drafts(here) == []


def test_rubbish_from_an_earlier_run_costs_one_more_try(here: Here, hub: Hub) -> None:
    wanted = model(here, "hf:small/gguf")
    half = transfer.part(keep.waiting(wanted.weights.files[0], str(here.state)))
    half.parent.mkdir(parents=True)
    half.write_bytes(b"\0" * 100_000)
    acquire.add(wanted, here.access())
    assert whole(here, wanted)


def test_a_server_without_ranges_starts_anew(here: Here, hub: Hub) -> None:
    wanted = model(here, "hf:small/gguf")
    hub.fail("/cdn/", "cut", times=1, after=1_000_000)
    hub.fail("/cdn/", "whole", times=99)
    acquire.add(wanted, here.access())
    assert whole(here, wanted)


def test_a_file_that_another_model_waits_for_is_shared(here: Here, hub: Hub) -> None:
    files = dict(hub.repositories["small/safe"].files)
    files["model-00001-of-00002.safetensors"] = files.pop("model.safetensors")
    first = model(here, "hf:small/safe", "a")
    acquire.add(first, here.access())
    same = model(here, "ms:small/safe", "b")
    served = hub.served["model.safetensors"]
    acquire.add(same, here.access())
    assert hub.served["model.safetensors"] == served
    assert len(list(Path(here.state, "store", "models").iterdir())) == 1


def test_offline_nothing_is_fetched(here: Here, hub: Hub) -> None:
    wanted = model(here)
    with pytest.raises(ArtifactError, match="offline no hub is asked"):
        acquire.add(wanted, here.access(offline=True))


def test_the_bar_is_told_of_every_byte(here: Here, hub: Hub) -> None:
    heard: list[int] = []

    class Listening(Plain):
        def bar(self, label: str, total: int, *, unit: str = "bytes") -> "Listening":
            self.total = total
            return self

        def advance(self, amount: int, *, total: int = 0) -> None:
            heard.append(amount)

        def close(self) -> None:
            pass

    wanted = model(here, "hf:small/gguf")
    hub.fail("/cdn/", "cut", times=1, after=1_000_000)
    access = here.access()
    hubs.bring("m", wanted.weights.files, hubs.Access(
        settings=access.settings, cache=access.cache, state=access.state, progress=Listening()))  # fmt: skip
    assert sum(heard) == wanted.weights.size


PULL = """
import sys
from appliance import acquire, report
from appliance.acquire import hub, models
from appliance.domain.spec import Hub
url, cache, state = sys.argv[1:]
here = hub.access(hub.settings(Hub(endpoint=url)), cache=cache, state=state, progress=report.progress())
acquire.add(models.from_hub("m", "hf:small/large", here), here)
"""


def test_kill_in_the_middle_then_only_the_rest_comes(here: Here, hub: Hub, tmp_path: Path) -> None:
    large = tmp_path / "large.gguf"
    large.write_bytes(GGUF.read_bytes() + os.urandom(40 << 20))
    hub.add("small/large", {"large.gguf": large})
    hub.rate = 30 << 20
    argv = (sys.executable, "-c", PULL, hub.url, str(here.cache), str(here.state))
    root = str(resources.data("templates").parent)
    process = subprocess.Popen(argv, cwd=root, stderr=subprocess.DEVNULL)
    half = None
    while half is None or half.stat().st_size < 10 << 20:
        time.sleep(0.02)
        half = next(iter(here.state.rglob("*.part")), None)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    got = half.stat().st_size
    assert not Path(here.state, "store", "models").exists()
    hub.rate = 0
    time.sleep(0.2)
    before = hub.served["large.gguf"]
    assert subprocess.run(argv, cwd=root, stderr=subprocess.DEVNULL, check=False).returncode == 0
    again = hub.served["large.gguf"] - before
    assert again == large.stat().st_size - got + header(again, hub)
    assert whole(here, model(here, "hf:small/large"))


def header(_again: int, hub: Hub) -> int:
    """Bytes that reading the header once more takes: what is not pinned is asked for again."""
    asked = [headers["range"] for _, path, headers in hub.asked if "/cdn/" in path and "range" in headers]
    ends = [re.fullmatch(r"bytes=(\d+)-(\d+)", one) for one in asked[len(asked) // 2 :]]
    return sum(int(one[2]) - int(one[1]) + 1 for one in ends if one)


def test_an_interrupt_is_not_held_up_by_a_silent_server(here: Here, hub: Hub, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        code = PULL.replace(
            "acquire.add(models", "import signal; signal.alarm(2); signal.signal(14, lambda *_: 1/0); (models"
        )
        argv = (
            sys.executable,
            "-c",
            code,
            f"http://127.0.0.1:{silent.getsockname()[1]}",
            str(here.cache),
            str(here.state),
        )
        began = time.monotonic()
        done = subprocess.run(argv, cwd=str(resources.data("templates").parent), capture_output=True, check=False)
        assert done.returncode == 1
        assert time.monotonic() - began < 8


def test_all_shards_of_a_split_gguf_come_whichever_is_named(here: Here, hub: Hub, tmp_path: Path) -> None:
    paths = build.shards(tmp_path, 3)
    hub.add("small/split", {f"Q4_K_M/{path.name}": path for path in paths} | {"other-Q8_0.gguf": GGUF})
    for source in ("hf:small/split:Q4_K_M", f"ms:small/split/Q4_K_M/{paths[1].name}"):
        wanted = model(here, source)
        assert [file.name for file in wanted.weights.files] == [path.name for path in paths]
        acquire.add(wanted, here.access())
        assert whole(here, wanted)
    del hub.repositories["small/split"].files[f"Q4_K_M/{paths[2].name}"]
    with pytest.raises(ArtifactError, match="2 of 3 shards are there"):
        model(here, "hf:small/split:Q4_K_M")


def test_the_shards_that_the_index_names_come_and_no_others(here: Here, hub: Hub, tmp_path: Path) -> None:
    where = build.directory(tmp_path / "sharded", count=3)
    files = {path.name: path for path in where.iterdir()}
    hub.add("small/sharded", {**files, "consolidated.safetensors": SAFETENSORS / "model.safetensors"})
    wanted = model(here, "hf:small/sharded")
    acquire.add(wanted, here.access())
    assert whole(here, wanted)
    assert not hub.served["consolidated.safetensors"]
    assert len([file for file in wanted.weights.files if file.name.endswith(".safetensors")]) == 3
