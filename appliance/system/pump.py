"""Moves bytes through several hands at once: one reads while others digest and write, in a fixed amount of memory."""

import queue
import threading
from collections.abc import Callable, Sequence

BLOCK = 4 << 20
"""Bytes that are handed on at a time."""
DEPTH = 6
"""Blocks that are on their way at the same time."""

Fill = Callable[[memoryview], int]
"""Puts the next bytes into a buffer and returns how many; fewer than it holds only at the end."""
Take = Callable[[memoryview], object]
"""Gets the next bytes; they are gone when it returns."""


def pump(fill: Fill, takers: Sequence[Take], size: int) -> None:
    """Hand `size` bytes to every taker, in order. Whatever one of them raises ends it and is raised here.

    The caller must not expect more than it says: `fill` has to give exactly `size` bytes, else EOFError.
    """
    if size <= BLOCK:
        block = memoryview(bytearray(size))
        _full(fill, block)
        for take in takers:
            take(block)
        return
    _Pump(fill, takers, size).run()


def _full(fill: Fill, block: memoryview) -> None:
    have = 0
    while have < len(block):
        got = fill(block[have:])
        if not got:
            raise EOFError
        have += got


class _Pump:
    def __init__(self, fill: Fill, takers: Sequence[Take], size: int) -> None:
        self._fill, self._takers, self._size = fill, takers, size
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._blocks = [memoryview(bytearray(BLOCK)) for _ in range(DEPTH)]
        self._waiting = [0] * DEPTH
        """Takers that still need each block."""
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []

    def run(self) -> None:
        for number in range(DEPTH):
            self._free.put(number)
        queues: list[queue.SimpleQueue[tuple[int, int] | None]] = [queue.SimpleQueue() for _ in self._takers]
        threads = [
            threading.Thread(target=self._serve, args=(take, line), daemon=True)
            for take, line in zip(self._takers, queues, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            self._feed(queues)
        except BaseException as error:  # noqa: BLE001 - an interruption too: the threads must end before it goes on
            self._failures.append(error)
        for line in queues:
            line.put(None)
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _feed(self, queues: list["queue.SimpleQueue[tuple[int, int] | None]"]) -> None:
        left = self._size
        while left and not self._failures:
            number = self._free.get()
            length = min(left, BLOCK)
            _full(self._fill, self._blocks[number][:length])
            self._waiting[number] = len(queues)
            for line in queues:
                line.put((number, length))
            left -= length

    def _serve(self, take: Take, line: "queue.SimpleQueue[tuple[int, int] | None]") -> None:
        while (item := line.get()) is not None:
            number, length = item
            if not self._failures:
                try:
                    take(self._blocks[number][:length])
                except BaseException as error:  # noqa: BLE001 - raised again where the pump was called
                    self._failures.append(error)
            with self._lock:
                self._waiting[number] -= 1
                free = not self._waiting[number]
            if free:
                self._free.put(number)
