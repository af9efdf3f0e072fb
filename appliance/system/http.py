"""Small HTTP calls to what runs here: over TCP and over unix sockets."""

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer read whole."""

    status: int
    """HTTP status; 0 when nobody answered."""
    body: bytes
    error: str = ""
    """Why nobody answered."""

    def json(self) -> Any:
        """Return the body as JSON, None when it is not."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(
    address: str, path: str, *, payload: object = None, body: bytes = b"", kind: str = "text/xml", timeout: float = 5
) -> Response:
    """GET `path`, or POST `payload` as JSON or `body` of that `kind`, at `unix:/path` or `host:port`."""
    connection: http.client.HTTPConnection
    if address.startswith("unix:"):
        connection = _UnixConnection(address.removeprefix("unix:"), timeout)
    else:
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout)
    content = body if payload is None else json.dumps(payload).encode()
    headers = {"Content-Type": kind if body else "application/json"} if content else {}
    try:
        connection.request("POST" if content else "GET", path, content or None, headers)
        response = connection.getresponse()
        return Response(status=response.status, body=response.read())
    except (OSError, http.client.HTTPException) as error:
        return Response(status=0, body=b"", error=str(error) or type(error).__name__)
    finally:
        connection.close()


def port_is_free(host: str, port: int) -> bool:
    """Tell whether `host:port` could be bound now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
