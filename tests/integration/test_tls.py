"""TLS on a real server: an authority of its own, its renewal beside a stream, and certificates that others made."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from tests.integration import product
from tests.integration.conftest import Quickstart
from tests.integration.lab import Lab, Server
from tests.integration.product import SMOKE
from tests.integration.typed import reply

PROMPT, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
PEM = "/etc/llm-appliance/tls/gateway.pem"
PIDS = "systemctl show -p MainPID --value llm-appliance-gateway llm-appliance-model@smoke"
PORT = 8443


@pytest.fixture
def server(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    assert quickstart.code == 0, quickstart.output
    with product.installed(lab, quickstart.image, "tls") as booted:
        yield booted


def served(server: Server) -> str:
    """Return the fingerprint of the certificate that a client sees now."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((server.address, PORT), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="llm.example") as wrapped,
    ):
        found = wrapped.getpeercert(binary_form=True)
    assert found
    return hashlib.sha256(found).hexdigest().upper()


def fingerprint(said: str) -> str:
    found = re.search(r"sha256 +([0-9A-F:]{95})", said)
    assert found, said
    return found[1].replace(":", "")


def await_served(server: Server, wanted: str) -> None:
    """nginx takes a moment to have workers with the new certificate."""
    assert any(served(server) == wanted or server.run("sleep", "0.2").code for _ in range(50))


def openssl(server: Server, name: str, days: int) -> None:
    """A certificate of somebody else's, in a directory that only root enters."""
    server.sh(
        f"install -d -m 700 /srv/live/{name} && cd /srv/live/{name} && openssl req -x509 -newkey ec -pkeyopt "
        f"ec_paramgen_curve:prime256v1 -nodes -keyout privkey.pem -out fullchain.pem -subj /CN=llm.example "
        f"-addext subjectAltName=DNS:llm.example -days {days} 2>&1 && chmod 600 privkey.pem"
    )


def test_clients_trust_an_authority_of_the_appliances_own_and_a_renewal_ends_no_stream(
    server: Server, tmp_path: Path
) -> None:
    key = reply(server, "keys", "add", "ann").split()[0]
    before = server.sh(PIDS).stdout.split()
    install = ("install", "--tls", "own", "--listen", f"0.0.0.0:{PORT}", "--tls-name", "llm.example")
    assert "8443" in reply(server, *install, "--dry-run")
    assert not server.exists("/etc/llm-appliance/tls")
    reply(server, "install", "--tls", "own", "--tls-name", "not a name", code=3)
    reply(server, *install, "--tls-name", server.address)
    assert server.sh(PIDS).stdout.split()[1] == before[1], "no engine was restarted"

    shown = reply(server, "tls", "show")
    assert f"for          llm.example, localhost, {server.address}" in shown
    assert served(server) == fingerprint(shown)
    authority = tmp_path / "ca.pem"
    authority.write_text(server.run("llm-appliance", "tls", "show", "--ca").stdout)
    modes = server.sh("cd /etc/llm-appliance/tls && stat -c '%n %a %U' *").stdout.split("\n")
    assert modes[:3] == ["authority.crt 644 root", "authority.key 600 root", "gateway.pem 600 llm-gateway"]

    trusting = httpx2.Client(verify=ssl.create_default_context(cafile=str(authority)), timeout=120)
    base = f"https://{server.address}:{PORT}/v1"
    client = OpenAI(base_url=base, api_key=key, http_client=trusting, max_retries=0)
    messages: Any = [{"role": "user", "content": PROMPT}]
    said = client.chat.completions.create(model="smoke", messages=messages, temperature=0)
    assert said.choices[0].message.content == ANSWER
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{base}/models")

    long: Any = [{"role": "user", "content": SMOKE["endless"]["prompt"]}]
    stream = client.chat.completions.create(model="smoke", messages=long, temperature=0, max_tokens=3000, stream=True)
    pieces = [next(iter(stream))]
    renewed = reply(server, "tls", "renew")
    await_served(server, fingerprint(renewed))
    assert fingerprint(renewed) != fingerprint(shown)
    pieces += list(stream)
    assert pieces[-1].choices[0].finish_reason == "length"
    print(f"\na stream of {len(pieces)} pieces went on while the certificate was renewed")
    with httpx2.Client(verify=ssl.create_default_context(cafile=str(authority)), timeout=60) as later:
        assert later.get(f"{base}/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert "changed=0" in reply(server, "install")
    assert "left behind: /etc/llm-appliance/tls" in reply(server, "uninstall")
    assert server.read("/etc/llm-appliance/tls/authority.crt").strip() == authority.read_text().strip()


def test_a_certificate_of_somebody_else_is_taken_over_as_often_as_it_is_renewed(server: Server) -> None:
    server.sh("command -v openssl || (apt-get -q update && apt-get -q install -y --no-install-recommends openssl)")
    reply(server, "keys", "add", "ann")
    reply(server, "install", "--tls", "own", "--listen", f"0.0.0.0:{PORT}")
    for name, days in (("first", 90), ("second", 20)):
        openssl(server, name, days)
    live = "/srv/live/{}/fullchain.pem /srv/live/{}/privkey.pem"
    shown = reply(server, "tls", "use", *live.format("first", "first").split())
    await_served(server, fingerprint(shown))
    assert "CN=llm.example" in shown
    before, kept = server.sh(PIDS).stdout, server.read(PEM)

    mixed = reply(server, "tls", "use", *live.format("first", "second").split(), code=3)
    assert "do not belong together" in mixed
    server.sh("chmod 644 /srv/live/first/privkey.pem")
    assert "can be read by others" in reply(server, "tls", "use", *live.format("first", "first").split(), code=4)
    assert "not of the appliance's own authority" in reply(server, "tls", "renew", code=3)
    assert "hint:  apt-get install certbot" in reply(server, "tls", "acme", "llm.example", code=4)
    offline = server.run("llm-appliance", "tls", "acme", "llm.example", check=False, env={"HF_HUB_OFFLINE": "1"})
    assert offline.code == 4 and "offline no authority is asked" in offline.stderr
    assert server.read(PEM) == kept

    # As a hook of whatever renews it would call it.
    done = server.run("llm-appliance", "tls", "use", *live.format("second", "second").split(), "--json")
    document = json.loads(done.stdout)["data"]
    assert document["days"] in (19, 20) and document["own"] is False
    await_served(server, document["sha256"].replace(":", ""))
    assert server.sh(PIDS).stdout == before, "nothing was restarted"
    found = reply(server, "doctor")
    assert "the gateway's certificate ends in" in found
    assert "llm-appliance tls use CERTIFICATE KEY" in found
    reply(server, "install", "--tls", "off", "--listen", "127.0.0.1:8080")
    plain = server.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{product.BASE}/v1/models").stdout
    assert plain == "401", "without a key, and without TLS"
    reply(server, "uninstall", "--purge-keys")
    assert not server.exists("/etc/llm-appliance")
