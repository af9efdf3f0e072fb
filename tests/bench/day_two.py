"""What an operator waits for on a booted server: `status` of many models, and the other replica when one is killed.

`python -m tests.bench.day_two [ROUNDS]` boots a server of the lab, installs the appliance, and writes
`RESULTS-day-two.md`: all times are taken inside the server, each command as a whole process.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.integration import product
from tests.integration.lab import Lab, Server, dockerd

RESULTS = Path(__file__).parent / "RESULTS-day-two.md"
MODELS = 20
AIM_STATUS, AIM_ANSWER = 0.3, 1.0
"""Seconds."""
PYTHON = "/opt/llm-appliance/venv/bin/python"
SPEC = "/etc/llm-appliance/models.d"
UNITS = " ".join(
    ("llm-appliance-gateway.service", *(f"llm-appliance-model@m{number}.service" for number in range(MODELS - 1)))
)
# Turn by turn, so that a machine that gets slower slows all alike; the first round warms up.
TIMES = """
import json, os, subprocess, sys, time
rounds, commands = int(sys.argv[1]), json.loads(sys.argv[2])
costs = {name: [] for name in commands}
for number in range(rounds + 1):
    for name, argv in commands.items():
        began = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, argv
        if number:
            costs[name].append((time.monotonic() - began, usage.ru_utime + usage.ru_stime))
print(json.dumps(costs))
"""
# Eight clients ask without a pause; one replica after the other is killed, each once all are up.
KILLS = """
import http.client, json, os, signal, subprocess, sys, threading, time
rounds, answers, failed, stop = int(sys.argv[1]), [], [], threading.Event()
body = json.dumps({"model": "smoke", "prompt": "Hi", "max_tokens": 1})
def ask():
    while not stop.is_set():
        link = http.client.HTTPConnection("127.0.0.1", 8080, timeout=20)
        began = time.monotonic()
        try:
            link.request("POST", "/v1/completions", body)
            answer = link.getresponse()
            said = answer.read()
            if answer.status != 200 or b'"choices"' not in said:
                failed.append((answer.status, said.decode()[-200:]))
            answers.append((began, time.monotonic()))
        except Exception as error:
            failed.append((0, repr(error)))
        link.close()
def up():
    link = http.client.HTTPConnection("127.0.0.1", 8080, timeout=5)
    link.request("GET", "/gateway/stat")
    seen = {one["name"]: one["state"] for one in json.load(link.getresponse())["models"]["smoke"]["replicas"]}
    link.close()
    return seen
def pid(name):
    unit = f"llm-appliance-model@{name}.service"
    return int(subprocess.run(("systemctl", "show", "-P", "MainPID", unit), capture_output=True, text=True).stdout)
def until(holds):
    while not holds():
        time.sleep(0.005)
threads = [threading.Thread(target=ask) for _ in range(8)]
for one in threads: one.start()
rows = []
for number in range(rounds):
    name = f"smoke_{number % 2 + 1}"
    until(lambda: set(up().values()) == {"up"})
    time.sleep(1)
    before = pid(name)
    killed = time.monotonic()
    os.kill(before, signal.SIGKILL)
    until(lambda: pid(name) not in (0, before))
    again = time.monotonic()
    until(lambda: set(up().values()) == {"up"})
    back = time.monotonic()
    rows.append((killed, again, back))
time.sleep(1)
stop.set()
for one in threads: one.join()
ends = sorted(end for _, end in answers)
found = []
for killed, again, back in rows:
    asked = [(began, end) for began, end in answers if began < back and end > killed]
    found.append({
        "next": next(end for end in ends if end > killed) - killed,
        "asked_after": min(end for began, end in answers if began > killed) - killed,
        "slowest": max(end - began for began, end in asked), "asked": len(asked),
        "started": again - killed, "back": back - killed,
    })
usual = sorted(end - began for began, end in answers)
print(json.dumps({"rows": found, "failed": failed, "asked": len(answers) + len(failed), "usual": usual[len(usual) // 2]}))
"""


def script(server: Server, text: str, *words: str) -> Any:
    """Run a Python script inside; return the JSON that it prints."""
    server.write("/root/bench.py", text)
    return json.loads(server.run(PYTHON, "/root/bench.py", *words, timeout=600).stdout)


def looks(server: Server, rounds: int) -> list[str]:
    """Time `status` of twenty models beside what systemd offers for the same; return the table."""
    server.sh(f"for i in $(seq 0 {MODELS - 2}); do echo 'source: builtin:smoke' >{SPEC}/m$i.yaml; done")
    server.run("llm-appliance", "install", "--offline", timeout=600)
    commands = {
        "`systemctl status` of the same units": ("systemctl", "--no-pager", "status", *UNITS.split()),
        "`llm-appliance --version`": ("llm-appliance", "--version"),
        f"`llm-appliance status`, {MODELS} models": ("llm-appliance", "status"),
        f"`llm-appliance stat`, {MODELS} models": ("llm-appliance", "stat"),
    }
    costs = script(server, TIMES, str(rounds), json.dumps(commands))
    peer = statistics.median(wall for wall, _ in costs[next(iter(commands))])
    rows = ["| | seconds | from to | processor | over systemctl |", "| --- | --- | --- | --- | --- |"]
    for name, pairs in costs.items():
        walls, cpus = zip(*pairs, strict=True)
        wall = statistics.median(walls)
        rows.append(
            f"| {name} | {wall:.3f} | {min(walls):.3f} to {max(walls):.3f} | {statistics.median(cpus):.3f} | {wall / peer:.1f} |"
        )
    server.sh(f"rm {SPEC}/m*.yaml")
    server.run("llm-appliance", "install", "--offline", timeout=600)
    return rows


def kills(server: Server, rounds: int) -> list[str]:
    """Kill one of two replicas, again and again, under load; return the table."""
    server.sh(
        f"sed -i 's/^replicas: 1$/replicas: 2/' {SPEC}/smoke.yaml; echo 'retry: before_first_byte' >>{SPEC}/smoke.yaml"
    )
    server.run("llm-appliance", "install", "--offline", timeout=600)
    found = script(server, KILLS, str(rounds))
    words = {
        "next": "the next answer to anybody",
        "asked_after": "the answer to somebody who asked after it",
        "slowest": "the slowest answer to anybody until all are up again",
        "started": "systemd has started the replica again",
        "back": "the gateway sends it requests again",
    }
    rows = ["| `kill -9` of one of two replicas, until | seconds | worst |", "| --- | --- | --- |"]
    for key, what in words.items():
        taken = [one[key] for one in found["rows"]]
        rows.append(f"| {what} | {statistics.median(taken):.3f} | {max(taken):.3f} |")
    said = f"{len(found['failed'])} of {found['asked']} requests failed, {sum(one['asked'] for one in found['rows'])} of them asked"
    rows += [
        "",
        f"{said} while one was away; {found['usual']:.3f} s is the usual answer. {found['failed'][:3] or ''}".strip(),
    ]
    return rows


def main() -> None:
    """Boot, measure, write."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    dockerd()
    with Lab().boot("bench") as server:
        product.put_checkout(server)
        product.seed(server)
        process = product.install(server)
        if process.wait(timeout=2400):
            sys.exit(process.output)
        text = "\n".join(
            (
                "# What an operator waits for",
                "",
                f"    python -m tests.bench.day_two {rounds}",
                "",
                f"On a booted server with {os.cpu_count()} processors; medians of {rounds}, one after the other. What else ran on the",
                f"machine before that: a load of {os.getloadavg()[0]:.1f}.",
                "",
                f"## A look (aimed at: {AIM_STATUS} s)",
                "",
                *looks(server, rounds),
                "",
                f"## A replica that is killed, with eight clients and `retry: before_first_byte` (aimed at: {AIM_ANSWER:g} s, none failed)",
                "",
                *kills(server, rounds),
                "",
            )
        )
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
