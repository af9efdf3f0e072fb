"""Makes a model of a GGUF file in a running Ollama and loads it: run by `appliance.system.launch`.

`python -m appliance.system.prepare.ollama ADDRESS NAME FILE CONTEXT GPU_LAYERS THREADS`

The calls are those of its own client library: the file as a blob, under its digest, unless it is there already; then a
model made of it; then an empty prompt, which loads it. What came with the file from Ollama's registry, as
`ollama.template` and its like beside it, is given along; the plan's context goes before the model's own parameters.
"""

import hashlib
import http.client
import json
import sys
from pathlib import Path
from typing import Any, Final

PATIENCE: Final = 24 * 3600
"""Seconds; the runtime's own limit is the one that counts."""


DOCUMENTS: Final = {"params": "parameters", "messages": "messages"}
"""Layers that hold JSON -> what /api/create calls them."""


def main() -> int:
    """Make and load the model; 1 with what was answered when that fails."""
    address, name, file, *numbers = sys.argv[1:]
    context, gpu_layers, threads = map(int, numbers)
    path = Path(file)
    with path.open("rb") as stream:
        digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    parameters = {"num_ctx": context, "num_gpu": gpu_layers, "num_thread": threads}
    made: dict[str, Any] = {"model": name, "stream": False, "files": {path.name: digest}}
    try:
        made |= _beside(path.parent)
        made["parameters"] = {**made.get("parameters", {}), **parameters}
        if _send(address, "HEAD", f"/api/blobs/{digest}") != 200:
            _upload(address, digest, path)
        _tell(address, "/api/create", made)
        _tell(address, "/api/generate", {"model": name, "stream": False, "keep_alive": -1})
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.stderr.write(f"ollama does not take {name}: {str(error) or type(error).__name__}\n")
        return 1
    return 0


def _beside(home: Path) -> dict[str, Any]:
    """Return what else the model is made of. Raises OSError, ValueError."""
    texts = {path.name.removeprefix("ollama."): path.read_text() for path in sorted(home.glob("ollama.*"))}
    found: dict[str, Any] = {key: texts[key] for key in ("template", "system") if key in texts}
    found |= {field: json.loads(texts[key]) for key, field in DOCUMENTS.items() if key in texts}
    if licences := [text for key, text in texts.items() if key.partition("-")[0] == "license"]:
        found["license"] = licences
    config = json.loads(texts.get("config", "{}"))
    return found | {key: config[key] for key in ("renderer", "parser", "requires") if config.get(key)}


def _upload(address: str, digest: str, path: Path) -> None:
    with path.open("rb") as stream:
        headers = {"Content-Length": str(path.stat().st_size)}
        _send(address, "POST", f"/api/blobs/{digest}", stream, headers, fine=(200, 201))


def _tell(address: str, path: str, payload: dict[str, Any]) -> None:
    _send(address, "POST", path, json.dumps(payload).encode(), {"Content-Type": "application/json"}, fine=(200,))


def _send(
    address: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None,
    fine: tuple[int, ...] = (200, 404),
) -> int:  # fmt: skip
    """Return the status of an answer. Raises OSError with what it said when that is none of `fine`."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    if answer.status not in fine or b'"error"' in said:
        text = said[:500].decode(errors="replace")
        raise OSError(f"{method} {path}: HTTP {answer.status}: {text}")
    return answer.status


if __name__ == "__main__":
    sys.exit(main())
