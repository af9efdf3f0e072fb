"""A stand-in for a provider, which no test can call: TLS, a key, OpenAI's chat route, and what it was sent, on request.

    python provider_standin.py CERTIFICATE KEYFILE PORT API-KEY-FILE [PROXY-PORT]

With PROXY-PORT it is the proxy of a closed network too: it opens the way by CONNECT to any name, and the way leads here.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ANSWER = "I am served elsewhere."
seen: list[dict[str, Any]] = []
ways: list[str] = []


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    key = ""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Set-Cookie", "session=provider")
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.answer(200, {"seen": seen, "ways": ways})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen.append({"path": self.path, "headers": dict(self.headers.items()), "body": body})
        if self.headers.get("Authorization") != f"Bearer {self.key}":
            # As some do it: not in OpenAI's form.
            self.answer(401, {"code": "InvalidApiKey", "message": "no such key"})
        elif body.get("stream"):
            self.stream(body)
        else:
            message = {"role": "assistant", "content": ANSWER}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
            self.answer(200, {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
                              "choices": [choice], "usage": usage})  # fmt: skip

    def stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for word in ANSWER.split(" "):
            delta = {"index": 0, "delta": {"content": word + " "}, "finish_reason": None}
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
            self.wfile.write(b"data: " + json.dumps({**chunk, "choices": [delta]}).encode() + b"\n\n")
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


def copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while part := source.recv(65536):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def tunnel(client: socket.socket, port: int) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(4096)
    ways.append(head.split(b"\r\n", 1)[0].decode())
    far = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    threading.Thread(target=copy, args=(client, far), daemon=True).start()
    copy(far, client)


def proxy(port: int, target: int) -> None:
    listening = socket.create_server(("127.0.0.1", port))
    while True:
        threading.Thread(target=tunnel, args=(listening.accept()[0], target), daemon=True).start()


def main() -> None:
    certificate, key_file, port, api_key_file, *more = sys.argv[1:]
    Provider.key = Path(api_key_file).read_text().strip()
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Provider)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key_file)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    if more:
        threading.Thread(target=proxy, args=(int(more[0]), int(port)), daemon=True).start()
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
