"""Models of providers on a real server: real nginx, TLS and resolver; the provider is a stand-in under its real name."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import product
from tests.integration.conftest import Quickstart
from tests.integration.lab import Lab, Process, Server
from tests.integration.provider_standin import ANSWER
from tests.integration.typed import reply

PROVIDER = "api.moonshot.cn"
KEY = "sk-planted-5e9b1c"
PYTHON = "/opt/llm-appliance/venv/bin/python"
ADD = ("add-model", "kimi", "--engine", "remote", "--provider", "moonshot", "--model", "moonshot-v1-32k")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and the provider's certificate that it has signed."""
    home = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(("openssl", *words), cwd=home, check=True, capture_output=True, timeout=60)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=lab", "-days", "30")
    openssl("req", *curve, "-keyout", "provider.key", "-out", "provider.csr", "-subj", f"/CN={PROVIDER}")
    (home / "names").write_text(f"subjectAltName=DNS:{PROVIDER}\n")
    openssl("x509", "-req", "-in", "provider.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-out", "provider.crt",
            "-days", "30", "-extfile", "names")  # fmt: skip
    return home


def know(server: Server) -> None:
    """Lead the provider's name to the stand-in; a container's file is made anew when it boots."""
    server.sh(f"echo 127.0.0.1 {PROVIDER} >> /etc/hosts")


@pytest.fixture
def near(appliance: Server, certificates: Path) -> Iterator[Server]:
    """A server that knows the authority; the provider's name leads to the stand-in on it."""
    appliance.put(certificates / "ca.crt", "/usr/local/share/ca-certificates/lab.crt")
    appliance.run("update-ca-certificates")
    for name in ("provider.crt", "provider.key"):
        appliance.put(certificates / name, f"/srv/provider/{name}")
    appliance.put(Path(__file__).with_name("provider_standin.py"), "/srv/provider/standin.py")
    know(appliance)
    appliance.write("/root/key", f"{KEY}\n", mode="0600")
    yield appliance


@pytest.fixture(scope="module")
def steady(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """One server for all that changes nothing."""
    assert quickstart.code == 0, quickstart.output
    with product.installed(lab, quickstart.image) as server:
        yield server


def provider(server: Server, *more: str) -> Process:
    started = server.popen(PYTHON, "/srv/provider/standin.py", "/srv/provider/provider.crt",
                           "/srv/provider/provider.key", "443", "/root/key", *more)  # fmt: skip
    started.wait_for("ready")
    return started


def asked(server: Server) -> dict[str, Any]:
    said = server.run("curl", "-fsS", "--resolve", f"{PROVIDER}:443:127.0.0.1", f"https://{PROVIDER}/seen").stdout
    found: dict[str, Any] = json.loads(said)
    return found


def ask(server: Server, *more: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    payload = {"model": "kimi", "messages": [{"role": "user", "content": "Hello!"}]} | (body or {})
    words = ("curl", "-sS", "-w", "\n%{http_code}", f"{product.BASE}/v1/chat/completions", "-d", json.dumps(payload))
    text, _, status = server.run(*words, *more).stdout.rpartition("\n")
    return int(status), text


def test_a_providers_model_is_served_under_our_name_and_its_key_is_nowhere(near: Server) -> None:
    provider(near)
    before = near.sh("systemctl show -p MainPID --value llm-appliance-model@smoke").stdout
    said = reply(near, *ADD, "--api-key-file", "/root/key")
    assert f"kimi answers: {ANSWER}" in said
    assert near.sh("systemctl show -p MainPID --value llm-appliance-model@smoke").stdout == before

    status, text = ask(near, "-H", "Authorization: Bearer of-the-client", "-H", "Cookie: a=b", "-i")
    assert status == 200
    assert "session=provider" not in text
    last = asked(near)["seen"][-1]
    assert last["path"] == "/v1/chat/completions"
    sent = {name.lower(): value for name, value in last["headers"].items()}
    assert sent["host"] == PROVIDER
    assert sent["authorization"] == f"Bearer {KEY}"
    assert "cookie" not in sent
    assert last["body"]["model"] == "moonshot-v1-32k"
    assert "data: [DONE]" in ask(near, body={"stream": True})[1]
    assert product.chat(near, "Hello!", model="kimi", path="/kimi/v1") == ANSWER

    assert "remote" in reply(near, "status")
    assert f"https://{PROVIDER}/v1" in reply(near, "status")
    assert "changed=0" in reply(near, "install")
    near.reboot()
    know(near)
    provider(near)
    patience = ("--retry", "30", "--retry-all-errors", "--retry-delay", "1")
    assert ANSWER in ask(near, *patience, "-f")[1], "the name is asked for again"
    found = near.sh(
        "grep -rlsaFf /root/key /etc /var /run /opt /tmp /root /usr/local /proc/[0-9]*/cmdline /proc/[0-9]*/environ; "
        "journalctl --no-pager | grep -Ff /root/key",
        check=False,
    ).stdout.split()
    assert found == ["/etc/llm-appliance/secrets/kimi.key", "/root/key"]
    kept = near.run("stat", "-c", "%a %U", "/etc/llm-appliance/secrets/kimi.key").stdout
    assert kept.strip() == "600 llm-gateway"

    reply(near, "remove-model", "kimi")
    assert ask(near)[0] == 404


def test_a_key_that_the_provider_refuses_changes_nothing(near: Server) -> None:
    provider(near)
    near.write("/root/wrong", "sk-not-the-one\n", mode="0600")
    said = reply(near, *ADD, "--api-key-file", "/root/wrong", code=7)
    assert "no such key" in said
    assert "is back" in said
    assert not near.exists("/etc/llm-appliance/secrets/kimi.key")
    assert not near.exists("/etc/llm-appliance/models.d/kimi.yaml")
    reply(near, *ADD, "--api-key-file", "/root/key")
    reply(near, *ADD, "--api-key-file", "/root/wrong", code=7)
    assert product.chat(near, "Hello!", model="kimi") == ANSWER, "the key that worked is back"
    near.write("/root/newer", f"{KEY}\n", mode="0600")
    assert "changed=0" in reply(near, *ADD, "--api-key-file", "/root/newer")


def test_a_provider_that_is_down_or_somebody_else_is_told_and_disturbs_nobody(near: Server) -> None:
    there = provider(near)
    reply(near, *ADD, "--api-key-file", "/root/key")
    there.signal("KILL")
    there.wait()
    status, text = ask(near)
    assert status == 502
    assert json.loads(text)["error"]["type"] == "server_error"
    assert product.chat(near, product.SMOKE["verify"]["prompt"]) == product.SMOKE["verify"]["answer"]
    assert "changed=0" in reply(near, "install"), "what is down elsewhere is not ours to roll back"
    # Somebody else under that name: a certificate that nobody trusts.
    near.sh(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout /srv/provider/provider.key -out /srv/provider/provider.crt "
        f"-subj /CN={PROVIDER} -days 2 2>&1"
    )
    provider(near)
    assert ask(near)[0] == 502


def test_behind_a_proxy_a_tunnel_leads_to_it(near: Server) -> None:
    near.sh(f"sed -i /{PROVIDER}/d /etc/hosts 2>/dev/null || sed /{PROVIDER}/d /etc/hosts > /h && cat /h > /etc/hosts")
    provider(near, "3128")
    reply(near, "config", "set", "proxy.https", "http://127.0.0.1:3128")
    reply(near, *ADD, "--api-key-file", "/root/key", "--replicas", "2")
    assert product.chat(near, "Hello!", model="kimi") == ANSWER
    found = asked(near)
    assert set(found["ways"]) == {f"CONNECT {PROVIDER}:443 HTTP/1.1"}
    assert f"Bearer {KEY}" in found["seen"][-1]["headers"].values()
    assert "kimi_1" in reply(near, "status")
    tunnel = "systemctl show -p MainPID --value llm-appliance-model@kimi_1"
    near.sh(
        f"was=$({tunnel}); kill -9 $was; until now=$({tunnel}); [ $now != $was ] && [ $now != 0 ]; do sleep 0.2; done"
    )
    near.sh("until [ -S /run/llm-appliance/kimi_1/engine.sock ]; do sleep 0.2; done")
    assert product.chat(near, "Hello!", model="kimi") == ANSWER


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--provider", "moonshoot", "--model", "m"), "did you mean moonshot"),
        (("--provider", "moonshot"), "which of the provider's models?"),
        (("--provider", "azure", "--model", "m"), "NAME.openai.azure.com"),
        (("--base-url", "https://a:b@c.example/v1", "--model", "m"), "is no address of a provider"),
        (("--provider", "moonshot", "--model", "m", "--gpus", "1"), "the provider decides on that"),
        (("--provider", "moonshot", "--model", "m", "--set", "temp=1"), "the provider decides on that"),
        (("--provider", "moonshot", "--model", "m", "--api-key-file", "/nowhere"), "cannot be read"),
        (("--provider", "moonshot", "--model", "m", "--api-key-file", "/etc/hostname"), "can be read by others"),
    ],
)
def test_what_cannot_be_meant_is_told_and_changes_nothing(words: tuple[str, ...], said: str, steady: Server) -> None:
    done = steady.run("llm-appliance", "add-model", "kimi", *words, check=False)
    print(f"\n# llm-appliance add-model kimi {' '.join(words)}\n{done.stderr}", end="", flush=True)
    assert done.code in (2, 3, 4)
    assert said in done.stderr
    assert not steady.exists("/etc/llm-appliance/models.d/kimi.yaml")
    assert not steady.exists("/etc/llm-appliance/secrets/kimi.key")
