"""An engine that this project knows nothing of, as somebody else would publish it: it repeats what it is asked.

The upper half is what the appliance asks an engine; the lower one is the program that it starts.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from appliance.domain.changes import Page
from appliance.domain.deployment import Model
from appliance.domain.host import Gpu, Host
from appliance.domain.release import Release
from appliance.domain.service import Launch, Load, Service, Setting

NAME = "parrot"
HEALTH = "/health"
PARALLEL = 4
ADDRESS = "tcp"
FILLS = False


def refuse(model: Model, host: Host, release: Release) -> str | None:
    return None if model.weights.format == "gguf" else f"reads GGUF, {model.name} is {model.weights.format}"


def unfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    return "has never seen a GPU" if gpus else None


def spreads(model: Model, most: int) -> tuple[int, ...]:
    return ()


def caches(model: Model, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    return ()


def layers(model: Model) -> int:
    return 0


def estimate(model: Model, setting: Setting, gpus: tuple[Gpu, ...]) -> tuple[Load, ...]:
    return (Load(device="ram", items=(("feathers", 32 << 20),)),)


def share(load: Load, gpu: Gpu, memory: int) -> float:
    return 0


def program(release: Release, state: str, python: str) -> str:
    return python


def launch(service: Service) -> Launch:
    return Launch(argv=(service.program, "-m", "parrot", str(service.port), service.model, service.weights))


def pages(service: Service) -> tuple[Page, ...]:
    return ()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer({"status": "ok"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = asked["messages"][-1]["content"] if "messages" in asked else asked["prompt"]
        message = {"role": "assistant", "content": f"{said} Squawk!"}
        choice = {"index": 0, "finish_reason": "stop", "message": message, "text": message["content"]}
        self.answer({"object": "chat.completion", "model": sys.argv[2], "choices": [choice]})

    def answer(self, data: object) -> None:
        content = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    with open(sys.argv[3], "rb") as weights:
        assert weights.read(4) == b"GGUF"
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
