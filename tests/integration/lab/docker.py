"""A Docker inside of a server: daemon and Compose from Debian's packages, and a base image without a registry."""

from __future__ import annotations

import subprocess

from tests.integration.lab.images import base_tarball
from tests.integration.lab.machine import LabError
from tests.integration.lab.server import Server

# The suite of the server has the old Compose only; the next one's needs no newer C library.
NEWER = "trixie"
INSTALL = f"""
set -e
mirror=$(sed -n 's/^deb \\([^ ]*\\) [a-z]* main$/\\1/p' /etc/apt/sources.list | head -n 1)
echo "deb $mirror {NEWER} main" >/etc/apt/sources.list.d/{NEWER}.list
printf 'Package: *\\nPin: release n={NEWER}\\nPin-Priority: 100\\n' >/etc/apt/preferences.d/{NEWER}
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install -y --no-install-recommends docker.io iptables docker-compose/{NEWER}
systemctl enable --now docker
docker compose version
"""


def docker_into(server: Server, base: str) -> None:
    """Installs and starts Docker with Compose in a server, and gives it the server's own image under a name."""
    server.sh(INSTALL, timeout=600)
    base_into(server, base)


def base_into(server: Server, base: str) -> None:
    """Gives the Docker in a server the server's own image under a name."""
    with base_tarball().open("rb") as tarball:
        words = ("docker", "exec", "-i", server.container, "docker", "import", "-", base)
        done = subprocess.run(words, stdin=tarball, capture_output=True, timeout=300, check=False)
    if done.returncode != 0:
        raise LabError(f"no base image in {server.container}: {done.stderr.decode(errors='replace')}")
