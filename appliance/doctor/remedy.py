"""What to type on which distribution."""

from typing import Final

from appliance.domain.host import Host
from appliance.domain.version import version

FAMILIES: Final = {
    "apt": ("debian", "ubuntu", "linuxmint", "pop", "kali", "raspbian", "devuan", "neon"),
    "dnf": ("rhel", "rocky", "almalinux", "centos", "fedora", "ol", "amzn", "azurelinux"),
    "zypper": ("sles", "sled", "suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed"),
    "pacman": ("arch", "manjaro", "endeavouros"),
}
"""`ID` of /etc/os-release by the program that installs packages."""
PROGRAMS: Final = {"apt": "apt-get", "dnf": "dnf", "zypper": "zypper", "pacman": "pacman"}
INSTALL: Final = {
    "apt": "apt-get install", "dnf": "dnf install", "zypper": "zypper install", "pacman": "pacman -S",
}  # fmt: skip
BOOT_IMAGE: Final = {
    "apt": "update-initramfs -u", "dnf": "dracut --force", "zypper": "dracut --force", "pacman": "mkinitcpio -P",
}  # fmt: skip
DRIVERS: Final = "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/"
TOOLKIT: Final = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"


def family(host: Host) -> str:
    """Return `apt`, `dnf`, `zypper` or `pacman`; "" where neither the name nor the programs tell."""
    by_name = next((name for name, systems in FAMILIES.items() if host.os in systems), "")
    there = {name for name, _ in host.tools}
    return by_name or next((name for name, program in PROGRAMS.items() if program in there), "")


def as_root(host: Host, command: str) -> str:
    """Return the command as this user types it."""
    return command if host.root else f"sudo {command}"


def packages(host: Host, words: str, **names: str) -> tuple[str, ...]:
    """Return what installs a package, named for each family; else `words`, which say what is wanted."""
    kind = family(host)
    name = names.get(kind, "")
    return (as_root(host, f"{INSTALL[kind]} {name}"),) if name else (f"install {words}",)


def boot_image(host: Host) -> str:
    """Return what makes the initramfs anew."""
    command = BOOT_IMAGE.get(family(host), "")
    return as_root(host, command) if command else "make the initramfs anew"


def nvidia_driver(host: Host, *, branch: int, legacy: bool) -> tuple[str, ...]:
    """Return what installs NVIDIA's driver of a branch; `legacy`: for GPUs that only the closed modules know.

    Package names from NVIDIA's driver installation guide; Ubuntu's from its own archive.
    """
    if host.container == "wsl":
        return (f"install driver {branch} or newer in Windows, never in WSL itself; then in Windows: wsl --shutdown",)
    if host.container:
        return (f"on the machine that runs this container: install NVIDIA's driver {branch} or newer, then reboot",)
    repository = f"# NVIDIA's package repository must be set up: {DRIVERS}"
    lines = {
        "apt": (repository, as_root(host, f"apt-get install {f'cuda-drivers-{branch}' if legacy else 'nvidia-open'}")),
        "dnf": (repository, *_dnf(host, branch, legacy=legacy)),
        "zypper": (repository, as_root(host, f"zypper install {'cuda-drivers' if legacy else 'nvidia-open'}")),
    }
    chosen = lines.get(family(host), (f"install NVIDIA's driver {branch} or newer: {DRIVERS}",))
    if host.os == "ubuntu":
        chosen = (as_root(host, f"apt-get install nvidia-driver-{branch}-server{'' if legacy else '-open'}"),)
    elif family(host) == "pacman" and not legacy:
        chosen = (as_root(host, "pacman -S nvidia-open nvidia-utils"),)
    return (*chosen, as_root(host, "reboot"))


def fabric_manager(host: Host, version: str) -> tuple[str, ...]:
    """Return what installs the fabric manager of exactly the driver's version."""
    branch = version.split(".", maxsplit=1)[0]
    start = as_root(host, "systemctl enable --now nvidia-fabricmanager")
    commands = {
        "apt": (as_root(host, f"apt-get install 'nvidia-fabricmanager-{branch}={version}-*'"),),
        "dnf": (as_root(host, f"dnf install nvidia-fabricmanager-{version}"),),
        "zypper": (as_root(host, f"zypper install nvidia-fabricmanager={version}"),),
    }
    return (*commands.get(family(host), (f"install NVIDIA's fabric manager {version}",)), start)


def _dnf(host: Host, branch: int, *, legacy: bool) -> tuple[str, ...]:
    install = as_root(host, f"dnf install {'cuda-drivers' if legacy else 'nvidia-open'}")
    if host.os == "fedora" or version(host.os_version)[:1] >= (10,):
        return (install,)
    stream = f"{branch}{'' if legacy else '-open'}"
    return (as_root(host, f"dnf module enable nvidia-driver:{stream}"), install)
