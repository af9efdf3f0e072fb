"""The gateway while things break and change: a replica is killed, models and keys come and go, and nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.bench.gateway.programs import compiled, load_argv, parse_load
from tests.campaign.losses import told
from tests.integration.gateway_rig import Gateway, gateway, missing_ability, until

CLIENTS = 64
STREAMS, BUSY = 200, 32
INTERVAL = 50
"""Milliseconds between two tokens of a stream."""
CHANGING = 60 if os.environ.get("LLM_APPLIANCE_SLOW") == "1" else 15
"""Seconds for which models and keys change: the whole minute only where LLM_APPLIANCE_SLOW=1 says so."""
KEY = "sk-faults-9e107d9d372bb6826bd81d3542a419d6"


@pytest.fixture(scope="module", autouse=True)
def _nginx() -> None:
    reason = missing_ability() or (None if shutil.which("cc") else "the load generator is in C: no cc here")
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


# A replica is killed.


@dataclass
class Outcome:
    """How one request went."""

    began: float
    status: int = 0
    """0: not one byte came."""
    whole: bool = False
    ended: float = 0.0


async def ask(port: int, body: bytes, outcome: Outcome) -> None:
    """Send one request over a connection of its own and note how it goes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        received = await reader.readline()
        outcome.status = int(received.split(b" ")[1]) if received else 0
        rest = await reader.read()
        outcome.whole = rest.rstrip().endswith((b"}", b"0\r\n\r\n".rstrip())) and b"event: error" not in rest
    except ConnectionError:
        pass
    finally:
        outcome.ended = time.monotonic()
        writer.close()


async def ask_until(port: int, bodies: list[bytes], end: float) -> list[Outcome]:
    """Keep as many clients busy as there are bodies."""
    outcomes: list[Outcome] = []

    async def client(body: bytes) -> None:
        while time.monotonic() < end:
            outcomes.append(Outcome(time.monotonic()))
            await ask(port, body, outcomes[-1])

    await asyncio.gather(*(client(body) for body in bodies))
    return outcomes


def chat(model: str, *, stream: bool) -> bytes:
    return json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "x"}]}).encode()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_replica_loses_no_request_that_had_not_begun_to_be_answered(workers: int) -> None:
    """Sent again, once, when a model's `retry` allows it; a stream that had begun ends with an error event."""
    with gateway(workers=workers) as one:
        switches = ("--first-token-delay", "0.02", "--token-delay", "0.01", "--text", "word " * 8)
        first, second = (one.engine(f"a_{number}", *switches, model="a") for number in (1, 2))
        one.route("a", first, second, retry="before_first_byte")
        one.start()
        one.wait_for("a")
        killed: list[float] = []

        def kill() -> None:
            until(lambda: first.metric("in_flight") > 8, what="many requests at the replica")
            killed.append(time.monotonic())
            first.kill()

        assassin = threading.Timer(1.0, kill)
        assassin.start()
        bodies = [chat("a", stream=number % 2 == 0) for number in range(CLIENTS)]
        outcomes = asyncio.run(ask_until(one.port, bodies, time.monotonic() + 3.0))
        assassin.join()
        [at] = killed
        in_flight = [outcome for outcome in outcomes if outcome.began < at < outcome.ended]
        answered = [outcome for outcome in outcomes if outcome.status == 200 and outcome.whole]
        cut = [outcome for outcome in outcomes if outcome.status == 200 and not outcome.whole]
        failed = [outcome for outcome in outcomes if outcome.status != 200]
        print(
            f"{workers} nginx workers: {len(answered)} answered, {len(failed)} failed before their first byte, "
            f"{len(cut)} streams cut after it, {len(in_flight)} in flight at the kill"
        )
        told("requests", len(failed), len(outcomes))
        assert len(in_flight) >= CLIENTS // 2
        assert [(outcome.status, outcome.began - at) for outcome in failed] == []
        assert all(outcome.began < at for outcome in cut)
        assert sum(outcome.began > at for outcome in answered) > CLIENTS


# Models and keys come and go.


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[str]:
    """An engine in C, whose streams last as long as the models change."""
    address = f"unix:/tmp/gw-upstream-{os.getpid()}.sock"
    process = subprocess.Popen((compiled("upstream"), str(CHANGING * 1000 // INTERVAL), str(INTERVAL), address))
    until(lambda: Path(address.removeprefix("unix:")).exists(), what="the upstream's socket")
    yield address
    process.kill()
    process.wait()
    Path(address.removeprefix("unix:")).unlink(missing_ok=True)


class Changes:
    """Each second another model and another key, and everything else as it was."""

    def __init__(self, one: Gateway, upstream: str) -> None:
        self.one, self.upstream = one, upstream
        self.keys = one.prefix / "keys.json"
        one.document["keys"] = str(self.keys)
        one.models["steady"] = self.model("steady")
        self.write_keys({"steady": KEY})
        one.write_routes()

    def model(self, name: str) -> dict[str, object]:
        # Its name tells it from the one before: an address that is new has not been asked how it is.
        return {"upstream_model": "m", "replicas": [{"name": name, "address": self.upstream}]}

    def write_keys(self, keys: dict[str, str]) -> None:
        entries = [{"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in keys.items()]
        new = self.keys.with_suffix(".new")
        new.write_text(json.dumps({"version": 1, "keys": entries}))
        new.chmod(0o644)
        new.rename(self.keys)

    def status(self, model: str, key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(
            f"{self.one.url}/v1/embeddings", json={"model": model, "input": "x"}, headers=headers
        ).status_code

    def turn(self, number: int) -> None:
        """One change: what is new is there, what is old is gone, without a reload."""
        model, key = f"passing-{number}", f"sk-passing-{number}-0123456789abcdef"
        before, key_before = f"passing-{number - 1}", f"sk-passing-{number - 1}-0123456789abcdef"
        self.one.models.pop(before, None)
        self.one.models[model] = self.model(model)
        self.one.write_routes()
        self.write_keys({"steady": KEY, "passing": key})
        until(lambda: self.status(model, key) == 200, timeout=5, what=f"{model} with its key")
        until(lambda: self.status(before, key) == 404, timeout=5, what=f"{before} gone")
        until(lambda: self.status("steady", key_before) == 401, timeout=5, what="the key before refused")


def test_models_and_keys_change_each_second_and_nothing_is_cut_or_lost(upstream: str, tmp_path: Path) -> None:
    body, stream = tmp_path / "body.json", tmp_path / "stream.json"
    body.write_bytes(chat("steady", stream=False))
    stream.write_text('{"stream":true,"model":"steady","messages":[]}')
    with gateway(workers=2) as one:
        changes = Changes(one, upstream)
        one.start()
        until(lambda: changes.status("steady", KEY) == 200, what="the first answer")
        workers, address = one.worker_pids(), f"127.0.0.1:{one.port}"
        commands = (
            load_argv("streams", address, stream, STREAMS, 500, KEY),
            load_argv("requests", address, body, BUSY, CHANGING, KEY),
        )
        loads = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
        began, number = time.monotonic(), 0
        while any(process.poll() is None for process in loads):
            number += 1
            changes.turn(number)
            time.sleep(max(0.0, began + number - time.monotonic()))
        streams, busy = (parse_load(process.communicate()[0]) for process in loads)
        print(
            f"{number} changes in {time.monotonic() - began:.0f} s: {streams.delay.count} tokens of {STREAMS} streams, "
            f"{streams.failed} cut; {busy.latency.count} requests of {BUSY} clients over {busy.connections} connections, "
            f"{busy.failed} lost"
        )
        told("requests", streams.failed + busy.failed, STREAMS + busy.latency.count)
        assert number > CHANGING // 2
        assert (streams.failed, streams.complaint) == (0, "")
        assert streams.delay.count == STREAMS * CHANGING * 1000 // INTERVAL
        assert (busy.failed, busy.complaint) == (0, "")
        assert busy.latency.count > BUSY
        assert one.worker_pids() == workers


# Clients that vanish, and clients that dawdle.


async def vanish(port: int, data: bytes, dice: random.Random) -> None:
    """Send a part of a request, or all of it, read a part of the answer, and be gone without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    whole = dice.random() < 0.7
    writer.write(data if whole else data[: dice.randrange(len(data))])
    with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
        await asyncio.wait_for(reader.readexactly(dice.choice((1, 200, 400, 2000))), dice.random() * 0.3)
    if dice.random() < 0.5:
        # A reset, not an orderly end.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def in_flight(one: Gateway) -> int:
    models = httpx.get(f"{one.url}/gateway/stat").json()["models"]
    return sum(model["queue"] + sum(replica["in_flight"] for replica in model["replicas"]) for model in models.values())


@pytest.mark.parametrize("seed", [1, 2])
def test_clients_that_vanish_leave_nothing_behind(seed: int) -> None:
    """Neither a place in the queue nor one at the engine: with four places, four requests at once are let in."""
    dice = random.Random(seed)
    with gateway(workers=2) as one:
        engine = one.engine("a", "--first-token-delay", "0.05", "--token-delay", "0.01", "--text", "word " * 20)
        one.route("a", engine, limit=4, queue=1000)
        one.start()
        one.wait_for("a")

        async def all_of_them() -> None:
            bodies = [chat("a", stream=dice.random() < 0.5) for _ in range(300)]
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
            await asyncio.gather(*(vanish(one.port, head % len(body) + body, dice) for body in bodies))

        asyncio.run(all_of_them())
        until(lambda: in_flight(one) == 0, timeout=30, what="nothing in flight and nobody queued")
        until(lambda: engine.metric("in_flight") == 0, what="the engine idle")
        outcomes = asyncio.run(ask_until(one.port, [chat("a", stream=False)] * 4, time.monotonic() + 1))
        assert {(outcome.status, outcome.whole) for outcome in outcomes} == {(200, True)}
        assert "lua" not in one.errors()


def test_clients_that_dawdle_hold_nobody_up_and_are_cut_off() -> None:
    changes = {
        "client_header_timeout 10s": "client_header_timeout 1s",
        "client_body_timeout 30s": "client_body_timeout 1s",
    }
    with gateway(changes=changes) as one:
        engine = one.engine("a")
        one.route("a", engine)
        one.start()
        one.wait_for("a")

        async def dawdle(data: bytes) -> bytes:
            """One byte each 50 ms, which is in time for each byte, but never for the whole."""
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            answer = asyncio.ensure_future(reader.read())
            for byte in data:
                if answer.done():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
            with contextlib.suppress(ConnectionError):
                return await asyncio.wait_for(answer, 20)
            return b""

        async def both() -> tuple[list[bytes], list[Outcome]]:
            heads = [b"GET /v1/models HTTP/1.1\r\nX-Slow: " + b"s" * 1000] * 200
            slow = [asyncio.ensure_future(dawdle(head)) for head in heads]
            outcomes = await ask_until(one.port, [chat("a", stream=False)] * 2, time.monotonic() + 2)
            return await asyncio.gather(*slow), outcomes

        answers, outcomes = asyncio.run(both())
        assert {outcome.status for outcome in outcomes} == {200}
        assert {answer.split(b" ")[1] for answer in answers if answer} <= {b"408"}
