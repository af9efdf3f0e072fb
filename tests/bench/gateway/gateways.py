"""The rows that need nothing from elsewhere: no gateway at all, plain nginx, and ours with everything on."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.bench.gateway.programs import KEY
from tests.integration.gateway_rig import Gateway, free_port, nginx_root

MODEL = "m"
MEMORY = "/dev/shm"
"""Where bodies go that do not fit into nginx's buffer: installed, that is below /run, which is memory too."""


@dataclass(frozen=True)
class Running:
    """A gateway that answers."""

    address: str
    pid: int
    """Of the process that all others of the gateway descend from; 0: there is none."""
    note: str = ""


Start = Callable[[Sequence[str], Sequence[str]], AbstractContextManager[Running]]
"""From the addresses of the two replicas of `m`, and of the models that are only configured."""

PLAIN = """
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_buffer_size 512k;
    keepalive_requests 1000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream engines {{ {servers} keepalive 256; keepalive_requests 1000000; }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://engines;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""
"""The least that makes nginx a proxy with connections that live."""


def answers(address: str, *, body: dict[str, object] | None = None, seconds: float = 30, path: str = "") -> None:
    """Wait until a gateway serves a chat completion."""
    asked = body or {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    end, last = time.monotonic() + seconds, "nothing"
    while time.monotonic() < end:
        try:
            said = httpx.post(
                f"http://{address}{path or '/v1/chat/completions'}",
                json=asked,
                headers={"Authorization": f"Bearer {KEY}"},
                timeout=20,
                trust_env=False,
            )
            if said.status_code == 200:
                return
            last = f"{said.status_code} {said.text[:200]}"
        except httpx.TransportError as error:
            last = str(error)
        time.sleep(0.1)
    raise RuntimeError(f"no answer after {seconds:.0f} s: {last}")


@contextmanager
def direct(replicas: Sequence[str], _: Sequence[str]) -> Iterator[Running]:
    """No gateway: what the load generator and the upstream cost."""
    yield Running(replicas[0], 0)


@contextmanager
def nginx(replicas: Sequence[str], _: Sequence[str]) -> Iterator[Running]:
    """The same nginx program, and nothing but `proxy_pass` to two servers."""
    program, _root, libraries, _triplet = nginx_root()
    directory = Path(tempfile.mkdtemp(prefix="plain-", dir=MEMORY))
    address = f"127.0.0.1:{free_port()}"
    servers = " ".join(f"server {replica};" for replica in replicas)
    (directory / "nginx.conf").write_text(PLAIN.format(servers=servers, listen=address))
    directory.chmod(0o777)
    argv = (program, "-e", "stderr", "-p", f"{directory}/", "-c", "nginx.conf", "-g", "daemon off;")
    process = subprocess.Popen(argv, env={"LD_LIBRARY_PATH": libraries})
    try:
        answers(address)
        yield Running(address, process.pid)
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def ours(replicas: Sequence[str], others: Sequence[str], *, number_of_keys: int = 100) -> Iterator[Running]:
    """The product's own configuration with one nginx worker: models, keys with limits, log, counters, usage."""
    one = Gateway(workers=1, log_at_once=False)
    spilled = Path(tempfile.mkdtemp(prefix="ours-", dir=MEMORY))
    spilled.chmod(0o777)
    settings = one.prefix / "nginx.conf"
    settings.write_text(settings.read_text().replace(f"{one.run}/body", f"{spilled}/body"))
    try:
        one.document |= {"keys": str(keys(one.prefix, number_of_keys)), "open": False}
        one.models[MODEL] = model(MODEL, replicas)
        for number, address in enumerate(others):
            one.models[f"other-{number}"] = model(f"other-{number}", [address])
        one.write_routes()
        one.start()
        answers(f"127.0.0.1:{one.port}")
        assert one.process
        yield Running(f"127.0.0.1:{one.port}", one.process.pid)
        if lines := [line for line in one.errors().splitlines() if "[error]" in line or "[alert]" in line]:
            print(f"ours complains {len(lines)} times, first: {lines[0]}")
    finally:
        one.close()
        shutil.rmtree(spilled, ignore_errors=True)


def model(name: str, addresses: Sequence[str]) -> dict[str, object]:
    """Return a model of the routes; its replicas know it by its own name, so no body is rewritten."""
    replicas = [{"name": f"{name}_{number}", "address": address} for number, address in enumerate(addresses)]
    return {"upstream_model": name, "replicas": replicas, "keepalive": True}


def keys(directory: Path, number: int) -> Path:
    """Write the keys that are let in, each with limits that are counted and never reached."""
    path = directory / "keys.json"
    limits = {"rpm": 10**9, "tpm": 10**12, "parallel": 10**6}
    secrets = [KEY, *(f"sk-other-{other}-0123456789abcdef" for other in range(number - 1))]
    entries = [
        {"name": f"key-{place}", "sha256": hashlib.sha256(secret.encode()).hexdigest(), "models": [MODEL], **limits}
        for place, secret in enumerate(secrets)
    ]
    path.write_text(json.dumps({"version": 1, "keys": entries}))
    return path


OWN: dict[str, Start] = {"direct": direct, "nginx": nginx, "ours": ours}
