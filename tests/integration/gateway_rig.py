"""A real nginx with the gateway's configuration, and engines behind it, as ordinary processes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import httpx
import jinja2

from appliance import gateway as product
from appliance.acquire import debian
from appliance.catalog import catalog
from appliance.domain.deployment import Remote
from appliance.render import quoting
from appliance.system.machine import RealMachine
from tests.integration import distributions

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATES = REPOSITORY / "templates" / "nginx"
CACHE = Path(os.environ.get("GATEWAY_CACHE", "/var/tmp/llm-appliance-gateway"))
NOBODY = 65534
ELSEWHERE = os.environ.get(distributions.VARIABLE, "")
"""Name of another distribution's release, whose nginx is tested."""

Json = dict[str, Any]
Routes = dict[str, Json]


def nginx_root() -> tuple[str, str, str, str]:
    """Return nginx's program, the directory its packages are unpacked in, LD_LIBRARY_PATH, and the library triplet."""
    packages = catalog().gateway_packages
    triplet = f"{platform.machine()}-linux-gnu"
    if ELSEWHERE:
        return "/usr/sbin/nginx", "", "", triplet
    key = hashlib.sha256(" ".join((platform.freedesktop_os_release()["PRETTY_NAME"], *packages)).encode()).hexdigest()
    root = CACHE / f"root-{key[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            debian.unpack_programs(packages, root, CACHE, RealMachine())
    libraries = ":".join(str(root / part / triplet) for part in ("usr/lib", "lib"))
    return str(root / "usr/sbin/nginx"), str(root), libraries, triplet


def missing_ability() -> str | None:
    """Return why nginx cannot be had here, or None."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return "the gateway's tests unpack nginx from Debian packages: no apt-get or dpkg-deb here"
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], object], *, timeout: float = 10.0, what: str = "it") -> None:
    """Wait for a condition; fail when it does not come true in time."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {timeout} s"
        time.sleep(0.02)


@dataclass
class Engine:
    """A dummy engine in a process of its own."""

    name: str
    model: str
    socket: Path
    switches: tuple[str, ...]
    address: str = ""
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.address = self.address or f"unix:{self.socket}"
        self.start()

    def start(self, *switches: str) -> None:
        host = self.address
        command = [sys.executable, "-m", "appliance.dummy", "--host", host, "--model", self.model]
        self.process = subprocess.Popen([*command, *self.switches, *switches], cwd=REPOSITORY, umask=0)
        until(self._listens, what=f"engine {self.name} listening")

    def _listens(self) -> bool:
        assert self.process.poll() is None, f"engine {self.name} ended with {self.process.returncode}"
        try:
            self.get("/metrics")
        except httpx.TransportError:
            return False
        return True

    def get(self, path: str) -> httpx.Response:
        if self.address.startswith("unix:"):
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket))) as client:
                return client.get(f"http://engine{path}")
        return httpx.get(f"http://{self.address}{path}")

    def metric(self, name: str) -> int:
        lines = dict(line.split(" ") for line in self.get("/metrics").text.splitlines())
        return int(lines[f"dummy_{name}"])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    @property
    def replica(self) -> Json:
        return {"name": self.name, "address": self.address}


@dataclass
class Seen:
    """A request as it arrived at the engine."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Recorder:
    """An engine in this process that notes what arrives and says what it is told to."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.seen: list[Seen] = []
        self.forget()
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say(200, b"{}", {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                recorder.seen.append(Seen(self.command, self.path, self.headers.items(), body))
                if recorder.pieces:
                    self._trickle(recorder.pieces)
                else:
                    self._say(recorder.status, recorder.reply, recorder.headers)

            def _trickle(self, pieces: tuple[bytes, ...]) -> None:
                """Neither a length nor chunks: the hardest kind of stream to pass on at once."""
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                for piece in pieces:
                    self.wfile.write(piece)
                    time.sleep(0.2)

            def _say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def address_string(self) -> str:
                return "gateway"

            def log_message(self, *_: object) -> None:
                pass

        self.server = self._listen(Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def _listen(self, handler: type[BaseHTTPRequestHandler]) -> socketserver.BaseServer:
        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 128

        server = Server(str(self.path), handler)
        self.path.chmod(0o777)
        return server

    def forget(self) -> None:
        """Be as new: one kind of answer, nothing seen."""
        self.seen.clear()
        self.status, self.reply = 200, b'{"ok":true}'
        self.headers = {"Content-Type": "application/json"}
        self.pieces: tuple[bytes, ...] = ()

    def kill(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def replica(self) -> Json:
        return {"name": self.name, "address": f"unix:{self.path}"}


class Provider(Recorder):
    """Somebody else's server on a port of this machine, with a certificate where one is given: (its file, its key's)."""

    def __init__(self, name: str, certificate: tuple[Path, Path] | None = None) -> None:
        self.certificate = certificate
        self.port = free_port()
        self.connections = 0
        super().__init__(name, Path())

    def _listen(self, handler: type[BaseHTTPRequestHandler]) -> socketserver.BaseServer:
        provider = self

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def process_request(self, request: Any, client_address: Any) -> None:
                provider.connections += 1
                super().process_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that does not like our certificate

        server = Server(("127.0.0.1", self.port), handler)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        return server

    def remote(self, host: str = "localhost", **more: str) -> Remote:
        scheme = "https" if self.certificate else "http"
        url = more.pop("url", f"{scheme}://{host}:{self.port}/api/v1")
        return Remote(url=url, model="theirs", **more)


@contextmanager
def certificates(*hosts: str) -> Iterator[tuple[Path, Path]]:
    """Yield a certificate for these hosts and its key; who trusts it takes the certificate itself for an authority."""
    # Not below pytest's own directory, which nobody else may enter.
    with tempfile.TemporaryDirectory(prefix="tls-", dir="/tmp") as place:
        Path(place).chmod(0o755)
        certificate, key = Path(place, "certificate.pem"), Path(place, "key.pem")
        names = ",".join(f"DNS:{host}" for host in hosts)
        command = [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={hosts[0]}", "-addext", f"subjectAltName={names}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ]
        subprocess.run(command, check=True, capture_output=True)
        key.chmod(0o644)
        yield certificate, key


class Gateway:
    """One nginx with its engines."""

    def __init__(
        self, *, workers: int = 1, changes: dict[str, str] | None = None, remotes: tuple[str, ...] = (),
        ca_file: str = "", tls: Json | None = None, log_at_once: bool = True,
    ) -> None:  # fmt: skip
        if log_at_once:
            changes = {" buffer=64k flush=1s": ""} | (changes or {})
        self.remotes, self.ca_file, self.tls = remotes, ca_file, tls
        self.document: Json = {"version": 1}
        self.directory = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
        self.prefix = self.directory / "nginx"
        self.run, self.log = self.directory / "run", self.directory / "access.log"
        for path in (self.directory, self.prefix, self.run):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        self.port = free_port()
        self.engines: list[Engine | Recorder] = []
        self.models: Routes = {}
        self.stderr: IO[bytes] = (self.directory / "stderr").open("wb")
        self.process: subprocess.Popen[bytes] | None = None
        self._configure(workers, changes or {})
        self.write_routes()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _configure(self, workers: int, changes: dict[str, str]) -> None:
        self.program, self.root, self.ld_library_path, triplet = nginx_root()
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters["nginx"] = quoting.nginx
        text = environment.get_template("nginx.conf.j2").render(
            root=self.root,
            triplet=triplet,
            listen=f"127.0.0.1:{self.port}",
            workers=workers,
            run=str(self.run),
            inside=f"unix:{self.run}/inside.sock",
            access_log=str(self.log),
            user="",
            remotes=[{"upstream": name} for name in sorted(self.remotes)],
            ca_file=self.ca_file,
            tls=self.tls,
            digest="0123456789ab",
        )
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (self.prefix / "nginx.conf").write_text(text)
        for name in ("gateway", "page"):
            (self.prefix / name).mkdir(exist_ok=True)
        for name in (*product.LUA, *product.PAGE):
            shutil.copy(TEMPLATES / name, self.prefix / name)

    def argv(self, *words: str) -> list[str]:
        argv = [self.program, "-e", "stderr", "-p", f"{self.prefix}/", "-c", "nginx.conf", *words]
        if not ELSEWHERE:
            return argv
        root = distributions.root_of(ELSEWHERE, catalog().gateway_packages, CACHE)
        return [*distributions.locked_in(root, NOBODY), *argv]

    def start(self) -> None:
        user = None
        if os.geteuid() == 0:
            # What root starts is no test of what an ordinary user may do.
            user = NOBODY
            for path in (self.directory, self.run):
                os.chown(path, user, user)
        environment = {"LD_LIBRARY_PATH": self.ld_library_path, "PATH": "/usr/bin:/bin"}
        words = self.argv("-g", "daemon off;")
        who = None if ELSEWHERE else user  # who is locked in changes to that user himself
        self.process = subprocess.Popen(words, env=environment, stderr=self.stderr, user=who, group=who)
        until(self._answers, what="the gateway's first answer")

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.errors()
        try:
            if not self.tls:
                return httpx.get(f"{self.url}/health").status_code == 200
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.run / "inside.sock"))) as client:
                return client.get("http://inside/health").status_code == 200
        except httpx.TransportError:
            return False

    def engine(self, name: str, *switches: str, model: str = "", address: str = "") -> Engine:
        engine = Engine(name, model or name, self.directory / f"{name}.sock", switches, address)
        self.engines.append(engine)
        return engine

    def recorder(self, name: str) -> Recorder:
        recorder = Recorder(name, self.directory / f"{name}.sock")
        self.engines.append(recorder)
        return recorder

    def route(self, name: str, *engines: Engine | Recorder, upstream: str = "", **more: Any) -> None:
        """Serve a model from these replicas; `limit` is each one's, the rest is the model's."""
        limit = {"limit": more.pop("limit")} if "limit" in more else {}
        replicas = [engine.replica | limit for engine in engines]
        self.models[name] = {"upstream_model": upstream or name, "replicas": replicas, **more}
        self.write_routes()

    def place(self, name: str, remote: Remote, *, replicas: int = 1, address: str = "", **more: Any) -> None:
        """Serve a model from a provider."""
        limit = {"limit": more.pop("limit")} if "limit" in more else {}
        self.models[name] = {
            "upstream_model": remote.model, "health": "", "remote": product.remote(remote), **more,
            "replicas": [
                {"name": f"{name}_{n}", "address": address or remote.url} | limit for n in range(1, replicas + 1)
            ],
        }  # fmt: skip
        self.write_routes()

    def write_routes(self, text: str | None = None) -> None:
        new = self.prefix / "gateway.json.new"
        new.write_text(json.dumps(self.document | {"models": self.models}) if text is None else text)
        new.rename(self.prefix / "gateway.json")

    def show(self, *, on: bool = True, **more: Any) -> None:
        """Write what the status page is told of the plan."""
        new = self.prefix / "page.json.new"
        new.write_text(json.dumps({"on": on, "models": {}, "devices": []} | more))
        new.rename(self.prefix / "page.json")

    def states(self) -> Json:
        states: Json = httpx.get(f"{self.url}/health").json()["models"]
        return states

    def wait_for(self, model: str, state: str = "up") -> None:
        until(lambda: self.states().get(model) == state, what=f"{model} {state}")

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        if body is not None:
            options["json"] = body
        return httpx.post(self.url + path, timeout=30, **options)

    def chat(self, model: str, text: str = "hello", **options: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        return self.post("/v1/chat/completions", body, **options)

    @contextmanager
    def streaming(self, model: str, **more: Any) -> Iterator[httpx.Response]:
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": True, **more}
        with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=30) as answer:
            yield answer

    def raw(self, data: bytes, *, timeout: float = 5.0) -> bytes:
        """Send bytes as they are; return all that comes until the gateway closes or is silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            connection.sendall(data)
            received = b""
            try:
                while piece := connection.recv(65536):
                    received += piece
                    connection.settimeout(0.3)
            except (TimeoutError, ConnectionResetError):
                pass
            return received

    def worker_pids(self) -> set[int]:
        assert self.process
        pid = self.process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def reload(self) -> None:
        """SIGHUP, and wait for new workers."""
        assert self.process
        before = self.worker_pids()
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.worker_pids() - before, what="new nginx workers")

    def errors(self) -> str:
        return (self.directory / "stderr").read_text()

    def logged(self) -> list[Json]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def close(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)
        for engine in self.engines:
            engine.kill()
        self.stderr.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def gateway(*, workers: int = 1, changes: dict[str, str] | None = None, **more: Any) -> Iterator[Gateway]:
    """Yield a gateway that is not started yet, and end it with its engines."""
    one = Gateway(workers=workers, changes=changes, **more)
    try:
        yield one
    finally:
        one.close()
