"""Seconds from start to first token: in containers, under systemd, and `docker run` of the same image by hand.

`python -m tests.bench.compose [ROUNDS]` boots a server of the lab, installs the appliance there both ways, and prints
medians: each start is one of everything, gateway and engine, from nothing running to the first token of a stream.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable

from tests.integration import product
from tests.integration.lab import Lab, Server, docker_into, dockerd

LOCAL = "lab-base:1"
AIM = 1.5
"""Seconds that Compose may take more than `docker run`."""
FIRST = r"""
began=$1; shift
deadline=$(( $(date +%s) + 60 ))
until curl -sSN -m 20 "$@" 2>/dev/null | grep -q -m 1 '"content":"[^"]'; do
    [ "$(date +%s)" -lt "$deadline" ] || exit 1
    sleep 0.02
done
awk -v a="$began" -v b="$(date +%s.%N)" 'BEGIN { print b - a }'
"""


def first_token(server: Server, start: str, *where: str) -> float:
    """Start something and ask until the first token of a stream is there; return the seconds."""
    body = {
        "model": "smoke", "messages": [{"role": "user", "content": product.SMOKE["verify"]["prompt"]}],
        "stream": True, "temperature": 0,
    }  # fmt: skip
    script = f'began=$(date +%s.%N)\n({start}) >/dev/null 2>&1 &\nset -- "$began" "$@"\n{FIRST}\nwait'
    done = server.run("bash", "-c", script, "bash", *where, "-d", json.dumps(body), timeout=120)
    return float(done.stdout)


def measure(name: str, rounds: int, once: Callable[[], float]) -> float:
    """Take the median of some rounds after one that does not count; the best is told too, for a busy machine."""
    once()
    taken = [once() for _ in range(rounds)]
    print(f"{name:34} {statistics.median(taken):6.2f} s   ({min(taken):.2f} to {max(taken):.2f})", flush=True)
    return statistics.median(taken)


def by_hand(server: Server) -> str:
    """Return `docker run` for what Compose runs as the model: the same image, the same words, on a port."""
    inspected = json.loads(server.run("docker", "inspect", "llm-appliance-smoke-1").stdout)[0]
    words = inspected["Config"]["Entrypoint"]
    words = words[words.index("/app/llama-server") :]
    words[words.index("--host") + 1] = "0.0.0.0"
    volumes = " ".join(f"-v {one['Source']}:{one['Destination']}:ro" for one in inspected["Mounts"] if not one["RW"])
    image = inspected["Config"]["Image"]
    return f"docker run --rm -d --name hand -p 127.0.0.1:8090:8090 {volumes} --entrypoint {words[0]} {image} {' '.join(words[1:])} --port 8090"


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    dockerd()
    url = f"{product.BASE}/v1/chat/completions"
    with Lab().boot("bench") as server:
        product.put_checkout(server)
        product.seed(server)
        process = product.install(server)
        if process.wait(timeout=2400):
            sys.exit(process.output)
        docker_into(server, LOCAL)

        def appliance() -> float:
            server.run("systemctl", "stop", "llm-appliance")
            return first_token(server, "systemctl start llm-appliance", url)

        under_systemd = measure("systemd", rounds, appliance)
        server.run("llm-appliance", "config", "set", "images.base", LOCAL)
        server.run("llm-appliance", "install", "--runtime", "compose", timeout=900)
        command = by_hand(server)
        in_containers = measure("compose", rounds, appliance)
        server.run("systemctl", "stop", "llm-appliance")

        def hand() -> float:
            server.run("docker", "rm", "--force", "hand", check=False)
            return first_token(server, command, "http://127.0.0.1:8090/v1/chat/completions")

        alone = measure("docker run by hand, engine only", rounds, hand)
    print(f"compose over docker run: {in_containers - alone:+.2f} s (aim: at most {AIM} s)")
    print(f"compose over systemd:    {in_containers - under_systemd:+.2f} s")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
