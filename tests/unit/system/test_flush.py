"""The thread that brings written bytes to the disk."""

import os
import threading
from pathlib import Path

from appliance.system.flush import WAITING, Flusher


def test_a_file_may_be_closed_when_all_pushes_are_done(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as stream, Flusher() as flusher:
        for number in range(3 * WAITING):
            stream.write(bytes(4096))
            stream.flush()
            flusher.push(stream.fileno(), (number + 1) * 4096)
        flusher.wait()
    assert (tmp_path / "file").stat().st_size == 3 * WAITING * 4096


def test_what_cannot_be_pushed_holds_nobody_up() -> None:
    reading, writing = os.pipe()
    try:
        with Flusher() as flusher:
            for _ in range(3 * WAITING):
                flusher.push(writing, 1)  # a pipe knows no such advice: ESPIPE
            flusher.wait()
    finally:
        os.close(reading)
        os.close(writing)


def test_its_thread_ends_with_it(tmp_path: Path) -> None:
    before = threading.active_count()
    with (tmp_path / "file").open("wb") as stream:
        flusher = Flusher()
        assert threading.active_count() == before  # nothing was to be pushed yet
        flusher.push(stream.fileno(), 1)
        flusher.close()
        flusher.close()
    assert threading.active_count() == before
