"""A model hub on this machine: the routes of Hugging Face, ModelScope and Ollama, with all that goes wrong on the way.

It answers the real clients as it does ours (test_server.py holds it to that), counts the bytes that it sends of each
file, and fails on demand.
"""

import hashlib
import json
import os
import re
import socket
import socketserver
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BLOCK = 64 << 10


@dataclass
class Repository:
    files: dict[str, Path]
    commit: str = "c0ffee" * 6 + "c0ff"
    branch: str = "main"
    gated: bool = False
    token: str = ""
    """Who shows it may read."""
    tells_commit: bool = True
    """ModelScope leaves it empty now and then."""


@dataclass
class Fault:
    what: str
    """Part of the path that it hits."""
    kind: str
    """`status`, `cut`, `stall`, `wrong`, `more`, `whole` (knows no ranges)."""
    times: int
    status: int = 503
    after: int = 0
    """Bytes that come before it."""
    headers: dict[str, str] = field(default_factory=dict)


def digest(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(4 << 20):
            sha.update(block)
    return sha.hexdigest()


class Hub:
    def __init__(self, address: str = "127.0.0.1", cdn: str = "localhost") -> None:
        self.repositories: dict[str, Repository] = {}
        self.loose: dict[str, Path] = {}
        """Files that lie on a web server, by name."""
        self.manifests: dict[str, bytes] = {}
        """Of Ollama's registry, by `library/NAME:TAG`; those that a tag stood for before stay among the blobs."""
        self.blobs: dict[str, Path | bytes] = {}
        """By `sha256:HEX`."""
        self.faults: list[Fault] = []
        self.served: Counter[str] = Counter()
        """Bytes sent, by the file's name."""
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """(method, path and query, headers with small letters)."""
        self.rate = 0
        """Bytes a second of each connection; 0 = as fast as it goes."""
        self.digests: dict[Path, str] = {}
        self._lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub

        class Server(socketserver.ThreadingMixIn, HTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients that go away are what is tested."""

        self._server = Server((address, 0), Handler)
        self.port = int(self._server.server_address[1])
        self.url = f"http://{address}:{self.port}"
        self.cdn = f"http://{cdn}:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def add(self, name: str, files: dict[str, Path], **about: Any) -> Repository:
        self.repositories[name] = Repository(files=files, **about)
        return self.repositories[name]

    def push(self, name: str, layers: dict[str, Path | bytes], config: dict[str, Any] | None = None) -> str:
        """Give a tag of Ollama's registry other layers, by their kind; return its digest."""
        rows = []
        for kind, what in [*layers.items(), ("config", json.dumps(config or {}).encode())]:
            sha = self.digest(what) if isinstance(what, Path) else hashlib.sha256(what).hexdigest()
            size = what.stat().st_size if isinstance(what, Path) else len(what)
            self.blobs[f"sha256:{sha}"] = what
            media = f"application/vnd.ollama.image.{kind.partition('-')[0]}"
            rows.append({"mediaType": media, "digest": f"sha256:{sha}", "size": size})
        docker = "application/vnd.docker"
        document = {"schemaVersion": 2, "mediaType": f"{docker}.distribution.manifest.v2+json",
                    "config": {**rows.pop(), "mediaType": f"{docker}.container.image.v1+json"}, "layers": rows}  # fmt: skip
        body = json.dumps(document).encode()
        self.manifests[name] = body
        sha = hashlib.sha256(body).hexdigest()
        self.blobs[f"sha256:{sha}"] = body
        return sha

    def fail(self, what: str, kind: str, times: int = 1, **about: Any) -> None:
        self.faults.append(Fault(what=what, kind=kind, times=times, **about))

    def fault(self, path: str) -> Fault | None:
        with self._lock:
            for one in self.faults:
                if one.times and one.what in path:
                    one.times -= 1
                    return one
        return None

    def count(self, name: str, amount: int) -> None:
        with self._lock:
            self.served[name] += amount

    def digest(self, path: Path) -> str:
        if path not in self.digests:
            self.digests[path] = digest(path)
        return self.digests[path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]


def is_lfs(path: str) -> bool:
    return path.endswith((".gguf", ".safetensors", ".bin", "tokenizer.json"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), {key: one[0] for key, one in parse_qs(parts.query).items()}
        with self.hub._lock:
            self.hub.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        fault = self.hub.fault(f"{path}?{unquote(parts.query)}")
        if fault and fault.kind == "status":
            return self._json({"error": "as the test wants it"}, fault.status, fault.headers)
        for pattern, answer in ROUTES:
            if found := re.fullmatch(pattern, path):
                return answer(self, found, query, fault)
        return self._json({"error": "no such page"}, 404)

    # Hugging Face
    def info(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        repo = self._repository(found["name"], "GatedRepo" if found["rest"] else "")
        if repo is None:
            return None
        rest = found["rest"] or ""
        if rest.startswith("/revision/") and rest.removeprefix("/revision/") not in (repo.commit, repo.branch):
            return self._json({"error": "Invalid rev"}, 404, {"X-Error-Code": "RevisionNotFound"})
        siblings = []
        for path, where in repo.files.items():
            entry: dict[str, Any] = {"rfilename": path}
            if "blobs" in query:
                entry |= {"size": where.stat().st_size, "blobId": "b" * 40}
                if is_lfs(path):
                    entry["lfs"] = {"size": where.stat().st_size, "sha256": self.hub.digest(where), "pointerSize": 134}
            siblings.append(entry)
        return self._json({
            "id": found["name"], "modelId": found["name"], "sha": repo.commit, "private": False, "tags": [],
            "gated": "auto" if repo.gated else False, "siblings": siblings, "downloads": 1, "likes": 0,
        })  # fmt: skip

    def tree(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        repo = self._repository(found["name"], "GatedRepo")
        if repo is None:
            return None
        entries = []
        for path, where in repo.files.items():
            size = where.stat().st_size
            entry: dict[str, Any] = {"type": "file", "oid": "b" * 40, "size": size, "path": path}
            if is_lfs(path):
                entry["lfs"] = {"oid": self.hub.digest(where), "size": size, "pointerSize": 134}
            entries.append(entry)
        return self._json(entries)

    def resolve(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        repo = self._repository(found["name"], "GatedRepo")
        if repo is None:
            return None
        if found["revision"] not in (repo.commit, repo.branch):
            return self._json({"error": "Invalid rev"}, 404, {"X-Error-Code": "RevisionNotFound"})
        where = repo.files.get(found["path"])
        if where is None:
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        head = {"X-Repo-Commit": repo.commit}
        if not is_lfs(found["path"]):
            return self._content(where, found["path"], fault, {**head, "ETag": '"' + "b" * 40 + '"'})
        sha = self.hub.digest(where)
        head |= {"X-Linked-ETag": f'"{sha}"', "X-Linked-Size": str(where.stat().st_size), "ETag": '"x"'}
        self.send_response(302)
        for key, value in {**head, "Location": f"{self.hub.cdn}/cdn/{found['name']}/{sha}/{found['path']}"}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def raw(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        """What git holds of a large file: where it points to."""
        repo = self._repository(found["name"], "GatedRepo")
        where = repo and repo.files.get(found["path"])
        if not where:
            return None if repo is None else self._json({"error": "Entry not found"}, 404)
        oid = f"oid sha256:{self.hub.digest(where)}\nsize {where.stat().st_size}\n"
        return self._bytes(f"version https://git-lfs.github.com/spec/v1\n{oid}".encode())

    def content(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        if "authorization" in self.headers or "cookie" in self.headers:
            return self._json({"error": "a token came to the CDN"}, 400)
        where = self.hub.repositories[found["name"]].files[found["path"]]
        return self._content(where, found["path"], fault, {"ETag": f'"{found["sha"]}"'})

    # ModelScope
    def ms_files(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        repo = self._ms_repository(found["name"])
        if repo is None:
            return None
        if query.get("Revision", "master") not in (repo.commit, "master"):
            return self._json({"Code": 10010205001, "Message": "revision not found", "Success": False}, 404)
        files = [
            {
                "Name": path.rpartition("/")[2], "Path": path, "Size": where.stat().st_size, "Type": "blob",
                "Sha256": self.hub.digest(where), "Revision": repo.commit, "IsLFS": is_lfs(path), "Mode": "100644",
            }
            for path, where in repo.files.items()
        ]  # fmt: skip
        latest = {"Id": repo.commit if repo.tells_commit else "", "ShortId": repo.commit[:8]}
        return self._json({
            "Code": 200, "Success": True, "Message": "success", "RequestId": "r",
            "Data": {"Files": files, "IsVisual": 0, "LatestCommitter": latest},
        })  # fmt: skip

    def ms_repo(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        repo = self._ms_repository(found["name"])
        if repo is None:
            return None
        where = repo.files.get(query.get("FilePath", ""))
        if where is None:
            return self._json({"Code": 10010205002, "Message": "file not found", "Success": False}, 404)
        return self._content(where, query["FilePath"], fault, {})

    def ms_revisions(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        branches = [{"Revision": "master", "CreatedAt": 1}]
        self._json({"Code": 200, "Success": True, "Data": {"RevisionMap": {"Branches": branches, "Tags": []}}})

    # Ollama's registry
    def manifest(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        body = self.hub.manifests.get(f"{found['name']}:{found['tag']}")
        if body is None:
            return self._registry_error(404, "MANIFEST_UNKNOWN")
        if "manifest.v2+json" not in self.headers.get("accept", ""):
            return self._registry_error(400, "MANIFEST_INVALID")
        return self._bytes(body)

    def blob(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        what = self.hub.blobs.get(found["digest"])
        if what is None:
            return self._registry_error(404, "BLOB_UNKNOWN")
        if isinstance(what, bytes):
            return self._bytes(what)
        self.send_response(307)
        self.send_header("Location", f"{self.hub.cdn}/blobs/{found['digest']}")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def stored_blob(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        what = self.hub.blobs[found["digest"]]
        assert isinstance(what, Path)
        self._content(what, what.name, fault, {})

    def _registry_error(self, status: int, code: str) -> None:
        self._json({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}, status)

    def _bytes(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def file(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        where = self.hub.loose.get(found["path"])
        if where is None:
            return self._json({"error": "none"}, 404)
        return self._content(where, found["path"], fault, {})

    def root(self, found: re.Match[str], query: dict[str, str], fault: Fault | None) -> None:
        self._json({"hub": "for tests"})

    def _repository(self, name: str, code: str) -> Repository | None:
        repo = self.hub.repositories.get(name)
        known = repo and (not repo.token or self.headers.get("authorization") == f"Bearer {repo.token}")
        if repo is None or (not known and not repo.gated):
            self._json({"error": "Repository not found"}, 401, {"X-Error-Code": "RepoNotFound"})
            return None
        if not known and code:  # what a gated repository holds is told to anybody
            status = 403 if "authorization" in self.headers else 401
            self._json({"error": "Access to model is restricted"}, status, {"X-Error-Code": code})
            return None
        return repo

    def _ms_repository(self, name: str) -> Repository | None:
        repo = self.hub.repositories.get(name)
        if repo is None:
            self._json({"Code": 10010205001, "Message": f"{name} not found", "Success": False}, 404)
            return None
        if repo.token and f"m_session_id={repo.token}" not in self.headers.get("cookie", ""):
            self._json({"Code": 403, "Message": "no permission", "Success": False}, 403)
            return None
        return repo

    def _json(self, data: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(data).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _content(self, where: Path, name: str, fault: Fault | None, headers: dict[str, str]) -> None:
        size = where.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        ranged = asked is not None and not (fault and fault.kind == "whole")
        start = int(asked[1]) if asked and ranged else 0
        end = min(int(asked[2]) + 1 if asked and asked[2] else size, size) if ranged else size
        if start >= size and ranged:
            return self._json({"error": "range"}, 416, {"Content-Range": f"bytes */{size}"})
        self.send_response(206 if ranged else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start + (7 if fault and fault.kind == "more" else 0)))
        self.end_headers()
        if self.command == "HEAD":
            return None
        self.wfile.flush()
        with where.open("rb") as stream:
            if not fault and not self.hub.rate:
                self.hub.count(name, self.connection.sendfile(stream, start, end - start))
            else:
                self._crooked(stream.fileno(), name, start, end, fault)
        return None

    def _crooked(self, descriptor: int, name: str, start: int, end: int, fault: Fault | None) -> None:
        at = start
        kind = fault.kind if fault else ""
        while at < end:
            block = os.pread(descriptor, min(BLOCK, end - at), at)
            if fault and kind in ("cut", "stall") and at + len(block) - start > fault.after:
                block = block[: max(0, fault.after - (at - start))]
                self.wfile.write(block)
                self.hub.count(name, len(block))
                if kind == "stall":
                    time.sleep(8)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if kind == "wrong":
                block = bytes(byte ^ 255 for byte in block[:64]) + block[64:]
                kind = ""
            self.wfile.write(block)
            self.hub.count(name, len(block))
            at += len(block)
            if self.hub.rate:
                time.sleep(len(block) / self.hub.rate)
        if kind == "more":
            self.wfile.write(b"surplus")


NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
ROUTES = (
    (rf"/api/v1/models/{NAME}/repo/files", _Handler.ms_files),
    (rf"/api/v1/models/{NAME}/repo", _Handler.ms_repo),
    (rf"/api/v1/models/{NAME}/revisions", _Handler.ms_revisions),
    (rf"/api/models/{NAME}(?P<rest>/revision/.+)?", _Handler.info),
    (rf"/api/models/{NAME}/tree/[^/]+", _Handler.tree),
    (rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    (rf"/{NAME}/raw/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.raw),
    (rf"/cdn/{NAME}/(?P<sha>[0-9a-f]+)/(?P<path>.+)", _Handler.content),
    (rf"/v2/{NAME}/manifests/(?P<tag>[^/]+)", _Handler.manifest),
    (rf"/v2/{NAME}/blobs/(?P<digest>sha256:[0-9a-f]+)", _Handler.blob),
    (r"/blobs/(?P<digest>sha256:[0-9a-f]+)", _Handler.stored_blob),
    (r"/files/(?P<path>.+)", _Handler.file),
    (r"/", _Handler.root),
)
