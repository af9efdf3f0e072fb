"""A stand-in for Ollama's program, whose real one no registry has: speaks the routes that its documentation describes
and its client library calls, keeps blobs and models below HOME as that does, and writes down what it was asked.

It computes nothing: a chat is answered with the bytes' digest that the model was made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERSION = "0.33.0"
HOME = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama/models")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: object = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def note(self, body: object) -> None:
        with (HOME / "asked.jsonl").open("a") as stream:
            stream.write(json.dumps([self.command, self.path, body]) + "\n")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":  # the client library sends files so
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_HEAD(self) -> None:
        self.note(None)
        self.answer(200 if blob(self.path.rpartition("/")[2]).exists() else 404)

    def do_GET(self) -> None:
        if self.path == "/api/version":
            self.answer(200, {"version": VERSION})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": name(one), "object": "model"} for one in models()]})
        elif self.path.startswith("/v1/models/"):
            there = named(self.path.rpartition("/")[2]).exists()
            self.answer(
                200 if there else 404, {"id": self.path.rpartition("/")[2]} if there else {"error": "not found"}
            )
        elif self.path == "/api/tags":
            self.answer(200, {"models": [{"model": name(one), "name": name(one)} for one in models()]})
        else:
            self.answer(404, {"error": "no such route"})

    def do_POST(self) -> None:
        content = self.body()
        if self.path.startswith("/api/blobs/"):
            self.note(len(content))
            digest = self.path.rpartition("/")[2]
            if digest != f"sha256:{hashlib.sha256(content).hexdigest()}":
                self.answer(400, {"error": f"digest mismatch, expected {digest!r}"})
                return
            blob(digest).write_bytes(content)
            self.answer(201)
            return
        asked = json.loads(content)
        self.note(asked)
        {"/api/create": self.create, "/api/generate": self.generate, "/v1/chat/completions": self.chat}[self.path](
            asked
        )

    def create(self, asked: dict[str, Any]) -> None:
        for file, digest in asked["files"].items():
            if "/" in file or not blob(digest).exists():
                self.answer(400, {"error": f"invalid file {file} {digest}"})
                return
            if blob(digest).read_bytes()[:4] != b"GGUF":
                self.answer(400, {"error": "unsupported file type"})
                return
        named(asked["model"]).write_text(json.dumps(asked))
        self.answer(200, {"status": "success"})

    def generate(self, asked: dict[str, Any]) -> None:
        if not named(asked["model"]).exists():
            self.answer(404, {"error": f"model '{asked['model']}' not found"})
            return
        self.answer(200, {"model": asked["model"], "response": "", "done": True, "done_reason": "load"})

    def chat(self, asked: dict[str, Any]) -> None:
        (digest,) = json.loads(named(asked["model"]).read_text())["files"].values()
        message = {"role": "assistant", "content": digest}
        self.answer(
            200, {"model": asked["model"], "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        )


def blob(digest: str) -> Path:
    return HOME / "blobs" / digest.replace(":", "-")


def named(model: str) -> Path:
    return HOME / "manifests" / (model if ":" in model else f"{model}:latest")


def models() -> list[Path]:
    return sorted((HOME / "manifests").iterdir())


def name(path: Path) -> str:
    return path.name


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print(f"Warning: could not connect to a running Ollama instance\nWarning: client version is {VERSION}")
        return
    assert sys.argv[1:] == ["serve"], sys.argv
    for part in ("blobs", "manifests"):
        (HOME / part).mkdir(parents=True, exist_ok=True)
    (HOME / "environment").write_text(json.dumps({k: v for k, v in os.environ.items() if k.startswith("OLLAMA")}))
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
