"""Clients that ask a model without a pause while something is changed, and what they lost by it."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.campaign.losses import told
from tests.integration.lab import Process, Server

CLIENTS = """
import http.client, json, sys, threading, time
model = sys.argv[1]
until, good, lost = time.time() + 120, [], []
def ask(number):
    stream = number % 2 == 0
    body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "?"}],
        "max_tokens": 20})
    while time.time() < until and not stop.is_set():
        try:
            link = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
            link.request("POST", "/v1/chat/completions", body)
            answer = link.getresponse()
            text = answer.read()
            whole = b"[DONE]" in text and b'"error"' not in text if stream else b"choices" in text
            (good if answer.status == 200 and whole else lost).append((answer.status, text[-200:]))
        except Exception as error:
            lost.append((0, repr(error)))
stop = threading.Event()
threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
for one in threads: one.start()
print("asking", flush=True)
sys.stdin.readline()
stop.set()
for one in threads: one.join()
print("answered", len(good), "lost", len(lost), lost[:3], flush=True)
"""


def lose_nothing(server: Server, model: str, change: Callable[[], object]) -> None:
    """Make a change while eight clients ask: each of them gets whole answers, every time."""
    server.write("/root/clients.py", CLIENTS)
    server.run("mkfifo", "/root/end", check=False)
    clients: Process = server.popen("sh", "-c", f"python3 /root/clients.py {model} <> /root/end")
    clients.wait_for("asking")
    try:
        change()
    finally:
        server.sh("echo >> /root/end")
        clients.wait(timeout=60)
    print(clients.output)
    answered, lost = (int(number) for number in re.findall(r"(?:answered|lost) (\d+)", clients.output))
    told("requests", lost, answered + lost)
    assert lost == 0, clients.output
    assert answered > 20
