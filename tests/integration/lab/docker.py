"""Containers inside of a server: Docker or Podman and Compose from Debian's packages, and a base image without a registry."""

from __future__ import annotations

import subprocess

from tests.integration.lab.images import base_tarball
from tests.integration.lab.machine import LabError
from tests.integration.lab.server import Server

# The suite of the server has the old Compose only; the next one's needs no newer C library.
NEWER = "trixie"
SUITE = f"""
set -e
mirror=$(sed -n 's/^deb \\([^ ]*\\) [a-z]* main$/\\1/p' /etc/apt/sources.list | head -n 1)
echo "deb $mirror {NEWER} main" >/etc/apt/sources.list.d/{NEWER}.list
printf 'Package: *\\nPin: release n={NEWER}\\nPin-Priority: 100\\n' >/etc/apt/preferences.d/{NEWER}
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
"""
DOCKER = f"""
apt-get -q install -y --no-install-recommends docker.io iptables docker-compose/{NEWER}
systemctl enable --now docker
docker compose version
"""
# Its storage on the server's own volume, for overlayfs lies on no overlayfs; and /proc/sys, which is read-only in a
# container, is not so on a server: to publish a port on loopback, a setting of the network there is written.
READY = """
mkdir -p /etc/containers /etc/systemd/system/podman.socket.d
printf '[storage]\\ndriver = "overlay"\\nrunroot = "/run/containers/storage"\\ngraphroot = "/var/lib/docker/podman"\\n' \
    >/etc/containers/storage.conf
printf '[Socket]\\nExecStartPre=/bin/mount -o remount,rw /proc/sys\\n' >/etc/systemd/system/podman.socket.d/lab.conf
"""
PODMAN_PACKAGES = ("podman", "iptables", f"docker-compose/{NEWER}")
PODMAN = f"""
apt-get -q install -y --no-install-recommends {" ".join(PODMAN_PACKAGES)}
systemctl enable --now podman.socket
"""


def docker_into(server: Server, base: str) -> None:
    """Installs and starts Docker with Compose in a server, and gives it the server's own image under a name."""
    server.sh(SUITE + DOCKER, timeout=600)
    base_into(server, base)


def base_into(server: Server, base: str, program: str = "docker") -> None:
    """Gives the Docker in a server, or the Podman, the server's own image under a name."""
    with base_tarball().open("rb") as tarball:
        words = ("docker", "exec", "-i", server.container, program, "import", "-", base)
        done = subprocess.run(words, stdin=tarball, capture_output=True, timeout=300, check=False)
    if done.returncode != 0:
        raise LabError(f"no base image in {server.container}: {done.stderr.decode(errors='replace')}")


def podman_into(server: Server, base: str) -> None:
    """Installs Podman with Compose in a server, without anything of Docker, and starts the socket that speaks like it."""
    ready_for_podman(server)
    server.sh(SUITE + PODMAN, timeout=600)
    base_into(server, base, "podman")


def ready_for_podman(server: Server) -> None:
    """Does what Podman will need in a server that is a container, before it is there."""
    server.sh(READY)
