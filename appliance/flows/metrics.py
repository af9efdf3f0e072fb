"""The verbs for people who draw curves: where counters are, what Prometheus and Grafana are given, GPUs as text."""

import ipaddress
from pathlib import Path

from appliance.detect import detect
from appliance.domain.changes import File
from appliance.errors import HostError, UsageError
from appliance.flows.planning import guards, read_spec
from appliance.flows.site import Site
from appliance.render import monitoring

NAMES = ("llm-appliance.yml", "llm-appliance-dashboard.json")
"""Prometheus' configuration and Grafana's dashboard, as they are written."""


def url(site: Site) -> str:
    """Return where the gateway is asked from this machine."""
    spec, _ = read_spec(site)
    address = ipaddress.ip_address(spec.host)
    host = ("[::1]" if address.version == 6 else "127.0.0.1") if address.is_unspecified else spec.host
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{'https' if spec.tls.certificate else 'http'}://{host}:{spec.port}"


def files(site: Site, address: str, key_file: str, ca_file: str) -> dict[str, str]:
    """Return the files by name. Raises UsageError where they would be of no use."""
    if not key_file and guards(site):
        raise UsageError(
            "the gateway asks for a key, and Prometheus has none",
            hint="llm-appliance keys add prometheus --metrics, a file for Prometheus with it, and --key-file FILE",
        )
    where = address.rstrip("/") or url(site)
    if not where.startswith(("http://", "https://")) or "/" in where.partition("://")[2]:
        raise UsageError(f"--url {address!r} is no gateway's address", hint="for example https://llm.example:8080")
    for option, path in (("--key-file", key_file), ("--ca-file", ca_file)):
        if path and not path.startswith("/"):
            raise UsageError(f"{option} {path!r} is not an absolute path", hint="the path where Prometheus runs")
    texts = (monitoring.scrape(where, key_file, ca_file), monitoring.dashboard())
    return dict(zip(NAMES, texts, strict=True))


def install(site: Site, directory: str, wanted: dict[str, str], *, force: bool) -> tuple[str, ...]:
    """Write the files and return the paths of those that changed. Raises HostError where somebody's own file is."""
    home = Path(directory).absolute()
    if not home.is_dir():
        raise HostError(f"{home} is no directory", hint=f"mkdir -p {home}")
    there = {name: site.machine.read(str(home / name), 1 << 22) for name in wanted}
    changed = [name for name, text in wanted.items() if there[name] != text.encode()]
    edited = [str(home / name) for name in changed if there[name] is not None]
    if edited and not force:
        raise HostError(f"{edited[0]} is there, and says something else", hint="--force replaces it")
    for name in changed:
        site.machine.write(File(path=str(home / name), content=wanted[name].encode()))
    return tuple(str(home / name) for name in changed)


def gpus(site: Site, path: str) -> str:
    """Return what the vendors' tools tell of the GPUs; with a path it is written there, whole at any time."""
    text = monitoring.gpus(detect(site.machine, state=site.layout.state).gpus)
    if path:
        site.machine.write(File(path=str(Path(path).absolute()), content=text.encode()))
    return text
