"""Secrets planted through a whole run on a real server: afterwards each is in its own file, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from appliance import resources
from tests.hub.server import Hub
from tests.integration import test_remote
from tests.integration.lab import Server
from tests.integration.provider_standin import ANSWER

certificates, near = test_remote.certificates, test_remote.near
TOKEN = "hf_plantedTokenOfTheHub0123456789"
ETC = "/etc/llm-appliance"
PLACES = "/etc /var /run /opt /usr/local /tmp /srv /root /home"


@pytest.fixture
def hub(near: Server) -> Iterator[Hub]:
    """A hub on this machine that hands a model only to those who have the token."""
    address = near.run("ip", "-4", "route", "show", "default").stdout.split()[2]
    # Under a name of its own, which no token may be sent to.
    near.sh(f"echo {address} cdn.example >>/etc/hosts")
    served = Hub(address, cdn="cdn.example")
    served.add("gated/gguf", {"smoke-F16.gguf": resources.SMOKE / "smoke.gguf"}, token=TOKEN)
    yield served
    served.close()


def command(server: Server, *words: str, code: int = 0) -> str:
    """Type a command of ours; what it says is kept in the server too, as a terminal's log would."""
    done = server.run("llm-appliance", *words, check=False, timeout=300)
    said = done.stdout + done.stderr
    assert done.code == code, said
    return said


QUESTIONS = (
    "journalctl --no-pager", "systemctl show '*'", "systemctl cat 'llm-appliance*'", "systemctl status 'llm*'",
    *(f"llm-appliance {words} --json" for words in (
        "status", "status --env", "list", "plan", "config list", "keys list", "doctor", "detect", "logs", "tls show",
        "generations list", "verify",
    )),
    "for n in $(ls /var/lib/llm-appliance/generations); do llm-appliance generations diff $n; done",
    "llm-appliance support-bundle -o /dev/shm/bundle.tar.gz && tar -xzOf /dev/shm/bundle.tar.gz",
    "llm-appliance install --dry-run", "curl -s --unix-socket /run/llm-appliance/gateway/inside.sock http://x/metrics",
)  # fmt: skip
ASKED = "/dev/shm/asked"


def ask_everything(server: Server) -> None:
    """Keep the answer to each question, where no later question finds it."""
    lines = [f"({question}) >{ASKED}/{number} 2>&1" for number, question in enumerate(QUESTIONS)]
    server.sh("\n".join((f"mkdir -p {ASKED}", *lines, "true")), timeout=600)


def holders(server: Server, secret: str) -> set[str]:
    """Return every file and process that shows a secret, and every question whose answer did."""
    server.write("/dev/shm/planted", secret, mode="0600")
    places = f"{PLACES} {ASKED} /proc/[0-9]*/cmdline /proc/[0-9]*/environ"
    found = server.sh(f"grep -rlsaFf /dev/shm/planted {places}", check=False).stdout.split()
    return {QUESTIONS[int(one.rpartition("/")[2])] if one.startswith(ASKED) else one for one in found}


def key_line(server: Server, path: str) -> str:
    """Return a line out of the middle of a private key."""
    text = server.read(path).partition("PRIVATE KEY-----\n")[2]
    return text.splitlines()[1]


def test_every_secret_of_a_whole_run_is_in_its_own_file_and_nowhere_else(near: Server, hub: Hub) -> None:
    server = near
    test_remote.provider(server)
    server.write("/root/token", f"{TOKEN}\n", mode="0600")
    made = json.loads(server.run("llm-appliance", "keys", "add", "ann", "--json").stdout)["data"]["key"]
    rotated = json.loads(server.run("llm-appliance", "keys", "rotate", "ann", "--json").stdout)["data"]["key"]
    command(server, "config", "set", "hub.endpoint", hub.url)
    command(server, "config", "set", "hub.token-file", "/root/token")
    command(server, "add-model", "gated", "hf:gated/gguf")
    command(server, *test_remote.ADD, "--api-key-file", "/root/key")
    command(server, "install", "--tls", "own", "--listen", "0.0.0.0:8080", "--tls-name", "llm.example")
    command(server, "tls", "renew")
    ask = (
        "curl", "-fsS", "--cacert", f"{ETC}/tls/authority.crt", "https://localhost:8080/v1/chat/completions",
        "-H", "@-", "-d", json.dumps({"model": "kimi", "messages": [{"role": "user", "content": "Hello!"}]}),
    )  # fmt: skip
    assert ANSWER in server.run(*ask, input=f"Authorization: Bearer {rotated}\n").stdout
    refused = server.run(*ask, input="Authorization: Bearer sk-not-this-one\n", check=False)
    assert "401" in refused.stderr
    server.run("systemctl", "kill", "-s", "KILL", "llm-appliance-model@gated")
    server.sh("for second in $(seq 60); do llm-appliance status >/dev/null && exit; sleep 1; done; exit 1", timeout=300)
    command(server, "restart", "smoke")
    command(server, "remove-model", "gated")
    command(server, "rollback")

    planted = {
        "a client's key": (made, set()),
        "a client's key, rotated": (rotated, set()),
        "a provider's key": (test_remote.KEY, {f"{ETC}/secrets/kimi.key", "/root/key"}),
        "the hub's token": (TOKEN, {"/root/token"}),
        "the gateway's private key": (key_line(server, f"{ETC}/tls/gateway.pem"), {f"{ETC}/tls/gateway.pem"}),
        "the authority's private key": (key_line(server, f"{ETC}/tls/authority.key"), {f"{ETC}/tls/authority.key"}),
    }
    ask_everything(server)
    print()
    for what, (secret, where) in planted.items():
        found = holders(server, secret)
        print(f"{what}: {', '.join(sorted(found)) or 'nowhere'}")
        assert found == where, what
    for path in (f"{ETC}/secrets/kimi.key", f"{ETC}/tls/gateway.pem", f"{ETC}/tls/authority.key", f"{ETC}/keys.json"):
        mode, owner = server.run("stat", "-c", "%a %U", path).stdout.split()
        assert (mode, owner) == ("600", "root" if path.endswith("authority.key") else "llm-gateway"), path
    seen = server.run(
        "setpriv", "--reuid", "llm-engine", "--clear-groups", "grep", "-rlsa", "PRIVATE KEY", ETC, check=False
    )
    assert seen.stdout == "", "an engine that is taken over reads no key"


def test_what_is_looked_for_would_be_found(near: Server) -> None:
    near.sh("systemd-run --quiet --unit leak --setenv=LEAK=sk-a-leak sleep infinity; echo sk-a-leak | systemd-cat")
    near.write("/etc/llm-appliance/models.d/.leak", "sk-a-leak")
    ask_everything(near)
    found = holders(near, "sk-a-leak")
    assert {"/etc/llm-appliance/models.d/.leak", "journalctl --no-pager", "systemctl show '*'"} <= found
    assert any(place.endswith("/environ") for place in found)
