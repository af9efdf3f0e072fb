"""Let's Encrypt's own test authority, with certbot, both from Debian's packages, on a server of the lab."""

from __future__ import annotations

import json
import time

from appliance import certificates
from tests.integration.lab import Server
from tests.integration.typed import until

DIRECTORY = "https://localhost:14000/dir"
ROOT = "/srv/pebble/root.pem"
"""What clients trust; pebble makes another one at each start."""
HOME = "/srv/pebble"
CERTIFICATE, KEY = f"{HOME}/server.crt", f"{HOME}/server.key"
CONFIGURATION = {
    "listenAddress": "127.0.0.1:14000",
    "managementListenAddress": "127.0.0.1:15000",
    "certificate": CERTIFICATE,
    "privateKey": KEY,
    "httpPort": 80,
    "tlsPort": 443,
}
# It waits, refuses and remembers by chance otherwise.
ALWAYS = ("PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")


def packages(server: Server) -> None:
    """Install certbot and pebble."""
    server.sh(
        "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends certbot pebble",
        timeout=300,
    )


def start(server: Server, *names: str) -> None:
    """Start the authority, which finds these names here; the server trusts its API as it trusts any other."""
    now = int(time.time())
    authority = certificates.authority("pebble", now)
    pair = certificates.signed(authority, ("localhost",), now)
    server.write(CERTIFICATE, pair.certificate.decode())
    server.write(KEY, pair.key.decode(), mode="0600")
    server.write(f"{HOME}/pebble.json", json.dumps({"pebble": CONFIGURATION}))
    server.write("/usr/local/share/ca-certificates/pebble.crt", authority.certificate.decode())
    server.sh(f"update-ca-certificates && echo 127.0.0.1 {' '.join(names)} >>/etc/hosts")
    setting = [word for one in ALWAYS for word in ("--setenv", one)]
    server.run("systemd-run", "--unit=pebble", *setting, "pebble", "-config", f"{HOME}/pebble.json")
    root = ("curl", "-fsS", "-o", ROOT, "https://localhost:15000/roots/0")
    until("pebble tells its root", lambda: server.run(*root, check=False).code == 0)
