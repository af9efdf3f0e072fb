"""The gateway's certificate: made by an authority of the appliance's own, or taken over from whoever else makes it."""

import os
import stat
import time
from dataclasses import dataclass, replace
from pathlib import Path

from appliance import certbot, certificates, codec, gateway, verify
from appliance.acquire.source import Source
from appliance.apply import accounts
from appliance.certbot import Order
from appliance.certificates import About, Pair
from appliance.domain.changes import Command, File, Record
from appliance.errors import CommandError, HostError, SpecError
from appliance.flows import certbot as renewals
from appliance.flows import certificate, converge, planning
from appliance.flows.site import Site, installed, require_rights
from appliance.runtimes import runtime
from appliance.system.lock import lock

USE = "llm-appliance tls use CERTIFICATE KEY"
ASK = f"sudo llm-appliance install --tls own, or: llm-appliance tls acme HOST, or: {USE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The certificate that clients see."""

    path: str
    about: About
    own: bool
    """The appliance's own authority signed it."""
    authority: str
    """Path of that authority's certificate, which clients are given."""
    days: int
    """Until it ends; negative = since."""
    renewal: str = ""
    """Who renews it, where it is certbot's; or why nobody does."""


def renew(site: Site, names: tuple[str, ...]) -> Shown:
    """Make a new certificate for the same names, or for others, and let the gateway take it over."""
    require_rights(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        now = shown(site)
        if not now.own:
            raise SpecError(
                f"{now.path} is of {now.about.issuer}, not of the appliance's own authority",
                hint=_elsewhere(site, now),
            )
        before = site.machine.read(now.path, codec.MAX_BYTES) or b""
        certificate.make(site, names or now.about.names)
        _take_over(site, installed(site), now.path, before)
        return shown(site)


def acme(site: Site, order: Order) -> Shown:
    """Have certbot get a certificate, let the gateway take it over, and each renewal of it by certbot's own hook."""
    place = renewals.obtain(site, order)
    return use(site, f"{place}/fullchain.pem", f"{place}/privkey.pem")


def use(site: Site, chain: str, key: str) -> Shown:
    """Copy a certificate and its key to where the gateway can read them, and let it take them over.

    Of the one that certbot keeps for us, renewals will be taken over too.
    """
    require_rights(site)
    certbots = os.path.dirname(os.path.abspath(chain)) == certbot.lineage(site.layout)  # noqa: PTH100, PTH120
    place = certbot.kept(site.layout) if certbots else certificate.kept(site.layout)
    record = installed(site)
    pair = Pair(certificate=_read(chain), key=_read(key, secret=True))
    certificates.check_pair(pair, chain, int(time.time()))
    content = pair.certificate.rstrip() + b"\n" + pair.key
    file = File(path=place.certificate, content=content, mode=0o600, user=record.deployment.gateway_user)
    if record.deployment.spec.tls != place:
        converge.converge(site, lambda spec: replace(spec, tls=place), Source(offline=True), secret=file)
        return shown(site)
    with lock(Path(site.layout.state, "lock"), site.command):
        before = site.machine.read(place.certificate, codec.MAX_BYTES) or b""
        site.machine.write(file)
        _take_over(site, record, place.certificate, before)
    return shown(site)


def shown(site: Site) -> Shown:
    """Return what the configured certificate says. Raises HostError where there is none, or we may not read it."""
    spec, _ = planning.read_spec(site)
    path = spec.tls.certificate
    if not path:
        raise HostError("the gateway speaks plain HTTP: no certificate is configured", hint=ASK)
    content = site.machine.read(path, codec.MAX_BYTES)
    if content is None:
        raise HostError(f"{path} cannot be read", hint="run it with sudo; if it is gone: llm-appliance install")
    about = certificates.about(content, path)
    return Shown(
        path=path,
        about=about,
        own=certificate.is_own(site, spec.tls),
        authority=certificate.authority_path(site.layout),
        days=int((about.ends - time.time()) // 86400),
        renewal=renewals.renewal(site, content) if spec.tls == certbot.kept(site.layout) else "",
    )


def authority(site: Site) -> str:
    """Return our authority's certificate, PEM. Raises HostError where there is none."""
    content = site.machine.read(certificate.authority_path(site.layout), codec.MAX_BYTES)
    if content is None:
        raise HostError("this appliance has no authority of its own", hint=ASK)
    return content.decode()


def _elsewhere(site: Site, now: Shown) -> str:
    called = certbot.name(site.layout)
    return f"certbot renew --cert-name {called} --force-renewal" if now.renewal else f"renew it there, then: {USE}"


def _take_over(site: Site, record: Record, path: str, before: bytes) -> None:
    """Let nginx read its certificate again; streams end on the old one. What it cannot read is put back."""
    deployment = record.deployment
    try:
        for command in gateway.check(deployment, site.generations.path(record.generation)):
            _must(site, command)
    except CommandError:
        site.machine.write(File(path=path, content=before, mode=0o600, user=deployment.gateway_user))
        raise
    running = any(one.name == "gateway" and one.state == "running" for one in verify.states(deployment, site.machine))
    if not running:
        return
    accounts.directories(deployment)
    for command in runtime(deployment.runtime).activate(deployment, frozenset({f"{gateway.DIRECTORY}/nginx.conf"})):
        _must(site, command)


def _must(site: Site, command: Command) -> None:
    done = site.machine.run(command)
    if done.code not in command.ok_codes:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise CommandError(f"{' '.join(command.argv)} ends with {done.code}:\n{said}")


def _read(path: str, *, secret: bool = False) -> bytes:
    """Return a PEM file. Raises HostError; no message ever holds a part of it."""
    try:
        status = Path(path).stat()
        if secret and status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise HostError(
                f"{path} can be read by others (mode {mode:04o}); it is a private key", hint=f"chmod 600 {path}"
            )
        with Path(path).open("rb") as stream:
            return stream.read(codec.MAX_BYTES)
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}", hint="PEM files: certificate, then key") from None
