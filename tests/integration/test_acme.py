"""A certificate by certbot from a real ACME authority: issued, taken over, renewed beside a stream, and left in peace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from tests.integration import pebble, product
from tests.integration.conftest import Quickstart
from tests.integration.faults import SLOW
from tests.integration.lab import Lab, Server
from tests.integration.product import SMOKE
from tests.integration.test_tls import PORT, await_served, fingerprint, served
from tests.integration.typed import reply

HOOK = "/etc/letsencrypt/renewal-hooks/deploy/llm-appliance"
LIVE = "/etc/letsencrypt/live/llm-appliance"
LOCK = "/var/lib/llm-appliance/lock"
ACME = ("tls", "acme", "--server", pebble.DIRECTORY)
PIDS = "systemctl show -p MainPID --value llm-appliance-gateway llm-appliance-model@smoke"
RENEWAL = "/etc/letsencrypt/renewal/llm-appliance.conf"
FORCED = ("certbot", "renew", "--force-renewal", "--no-random-sleep-on-renew")

pytestmark = SLOW


@pytest.fixture
def server(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """One that serves by a certificate of its own authority, and has certbot and an authority beside it."""
    assert quickstart.code == 0, quickstart.output
    with product.installed(lab, quickstart.image, "acme") as booted:
        pebble.packages(booted)
        pebble.start(booted, "llm.example", "www.llm.example")
        yield booted


def issued(server: Server) -> str:
    """Return the fingerprint of the newest certificate that certbot has."""
    said = server.run("openssl", "x509", "-in", f"{LIVE}/cert.pem", "-noout", "-fingerprint", "-sha256").stdout
    return said.strip().partition("=")[2].replace(":", "")


def answers(server: Server, key: str, host: str) -> bool:
    """Tell whether a client that trusts nobody but the authority is answered under that name."""
    url = f"https://{host}:{PORT}/v1/models"
    done = server.run("curl", "-sS", "--cacert", pebble.ROOT, "-H", f"Authorization: Bearer {key}", url, check=False)
    return '"smoke"' in done.stdout


def test_a_certificate_is_issued_and_each_renewal_comes_into_force_and_ends_no_stream(server: Server) -> None:
    key = reply(server, "keys", "add", "ann").split()[0]
    reply(server, "install", "--tls", "own", "--listen", f"0.0.0.0:{PORT}")
    own, engine = served(server), server.sh(PIDS).stdout.split()[1]
    spec = server.read("/etc/llm-appliance/appliance.yaml")

    # Nobody agrees for the operator; and what the authority found is told in its own words.
    assert "(You can set this with the --agree-tos flag)" in reply(server, *ACME, "llm.example", code=6)
    assert "no such host" in reply(server, *ACME, "nobody.example", "--agree-tos", code=6)
    assert "of a name, not of an address" in reply(server, *ACME, "127.0.0.1", "--agree-tos", code=3)
    server.run("systemd-run", "--unit=site", "--property=WorkingDirectory=/srv", "python3", "-m", "http.server", "80")
    server.sh("until curl -fsS -o /dev/null http://llm.example/; do sleep 0.1; done 2>/dev/null")
    taken = reply(server, *ACME, "llm.example", code=4)
    assert "port 80, where the authority asks, is taken by python3 (pid" in taken and "--webroot DIR" in taken
    assert (served(server), server.read("/etc/llm-appliance/appliance.yaml")) == (own, spec)
    assert not server.exists(HOOK) and not server.exists(LIVE)

    # Whoever has port 80 can serve what certbot writes.
    shown = reply(server, *ACME, "llm.example", "--webroot", "/srv", "--email", "ops@llm.example")
    assert "for          llm.example\n" in shown and "issuer       CN=Pebble Intermediate CA" in shown
    assert "renewal      certbot, by certbot.timer" in shown
    await_served(server, fingerprint(shown))
    assert fingerprint(shown) == issued(server)
    assert answers(server, key, "llm.example") and not answers(server, key, "www.llm.example")
    assert server.sh(PIDS).stdout.split()[1] == engine, "no engine was restarted"
    server.run("systemctl", "stop", "site")
    again = reply(server, *ACME, "llm.example")
    assert fingerprint(again) == fingerprint(shown), "there is no need for another one yet"
    wider = reply(server, *ACME, "llm.example", "www.llm.example")
    await_served(server, fingerprint(wider))
    assert answers(server, key, "www.llm.example")

    # certbot's own service renews what is due, while a stream runs, and while another run of ours is at work.
    server.sh(f"sed -i 's/^# renew_before_expiry.*/renew_before_expiry = 3650 days/' {RENEWAL}")
    base = f"https://{server.address}:{PORT}/v1"
    client = OpenAI(base_url=base, api_key=key, http_client=httpx2.Client(verify=False, timeout=120), max_retries=0)
    long: Any = [{"role": "user", "content": SMOKE["endless"]["prompt"]}]
    before = server.sh(PIDS).stdout
    stream = client.chat.completions.create(model="smoke", messages=long, temperature=0, max_tokens=3000, stream=True)
    pieces = [next(iter(stream))]
    there = server.run("readlink", f"{LIVE}/cert.pem").stdout.strip()
    while_there = f'while [ "$(readlink {LIVE}/cert.pem)" = {there} ]; do sleep 0.1; done; sleep 3'
    other = server.popen("flock", LOCK, "sh", "-c", while_there)
    server.run("systemctl", "start", "certbot.service")
    other.wait(timeout=60)
    renewed = issued(server)
    assert renewed != fingerprint(wider)
    await_served(server, renewed)
    pieces += list(stream)
    assert pieces[-1].choices[0].finish_reason == "length"
    print(f"\na stream of {len(pieces)} pieces went on while certbot renewed the certificate")
    assert server.sh(PIDS).stdout == before, "nothing was restarted"
    assert answers(server, key, "llm.example")
    assert fingerprint(reply(server, "tls", "show")) == renewed
    assert "certbot renew --cert-name llm-appliance" in reply(server, "tls", "renew", code=3)
    assert "changed=0" in reply(server, "install")


def test_the_hook_comes_and_goes_with_the_certificate_and_certbot_keeps_what_is_its_own(server: Server) -> None:
    reply(server, *ACME, "llm.example", "--agree-tos")
    shown = reply(server, "tls", "show")
    assert server.run("stat", "-c", "%a %U", HOOK).stdout == "755 root\n"
    assert server.sh(f"certbot certonly -n --standalone --server {pebble.DIRECTORY} -d www.llm.example").code == 0
    assert fingerprint(reply(server, "tls", "show")) == fingerprint(shown)
    server.run("certbot", "renew", "--cert-name", "www.llm.example", *FORCED[2:])
    assert fingerprint(reply(server, "tls", "show")) == fingerprint(shown), "another one's renewal is none of ours"

    # To a certificate of our own and back: the hook goes and comes, and so do the files that the gateway reads.
    reply(server, "install", "--tls", "own")
    assert not server.exists(HOOK)
    assert "llm-appliance on " in reply(server, "tls", "show")
    server.run(*FORCED)
    assert "llm-appliance on " in reply(server, "tls", "show")
    reply(server, "rollback")
    newest = (f"{LIVE}/fullchain.pem", f"{LIVE}/privkey.pem")
    assert f"certbot has another one: llm-appliance tls use {' '.join(newest)}" in reply(server, "tls", "show")
    reply(server, "tls", "use", *newest)
    assert fingerprint(reply(server, "tls", "show")) == issued(server)

    server.run("rm", HOOK)
    assert f"{HOOK} is gone; llm-appliance install" in reply(server, "tls", "show")
    reply(server, "install")
    server.run(*FORCED)
    assert fingerprint(reply(server, "tls", "show")) == issued(server)

    said = reply(server, "uninstall")
    assert f"left behind: {LIVE}" in said
    assert not server.exists(HOOK)
    renewed = server.run(*FORCED)
    assert "error" not in renewed.stdout + renewed.stderr
    assert server.sh("certbot certificates").stdout.count("Certificate Name:") == 2
