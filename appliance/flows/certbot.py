"""The gateway's certificate from an authority that speaks ACME: certbot gets it, and renews it by itself."""

import os

from appliance import certbot, codec
from appliance.certbot import Order
from appliance.detect import detect
from appliance.doctor.remedy import packages
from appliance.domain.changes import Command
from appliance.domain.host import Host
from appliance.errors import CommandError, HostError
from appliance.flows import planning
from appliance.flows.site import Site, installed, require_rights

TIMEOUT = 600
"""Seconds: an authority may have us wait, and certbot gives up by itself long before."""


def obtain(site: Site, order: Order) -> str:
    """Have certbot get a certificate, and return the directory that it lies in.

    Raises HostError before anything is asked for, CommandError with what certbot says; nothing has changed then. The
    lock is free meanwhile, for certbot may run our hook itself.
    """
    require_rights(site)
    installed(site)
    _require(site, order)
    called, noted = certbot.name(site.layout), site.machine.read(certbot.renewal(site.layout), codec.MAX_BYTES) or b""
    hosts = ", ".join(order.hosts)
    site.progress.step("certbot", f"asks {order.server} for {hosts}")
    done = site.machine.run(Command(argv=certbot.argv(order, called, noted.decode(errors="replace")), timeout=TIMEOUT))
    if done.code:
        said = certbot.essence(f"{done.stdout}\n{done.stderr}")
        raise CommandError(
            f"certbot got no certificate for {hosts}:\n{said}",
            hint=f"mend that, then the same command again; more is in {certbot.LOG}",
        )
    return certbot.lineage(site.layout)


def _require(site: Site, order: Order) -> None:
    spec, _ = planning.read_spec(site)
    if planning.access(site, spec).settings.offline:
        raise HostError(
            "offline no authority is asked for a certificate",
            hint="one of your own: llm-appliance install --tls own; or see: llm-appliance config get hub.offline",
        )
    if os.geteuid() != 0:
        raise HostError(
            f"certbot needs root, for port {certbot.PORT} and to renew by itself",
            hint="let root run certbot, and llm-appliance tls use CERTIFICATE KEY after each renewal",
        )
    host = detect(site.machine, state=site.layout.state)
    if not site.machine.which("certbot"):
        raise HostError("certbot is not installed", hint=_install(host))
    taken = next((one for one in host.ports if one.port == certbot.PORT), None)
    if taken and not order.webroot:
        by = f" by {taken.holder}" if taken.holder else ""
        other = "stop it, or name the directory that it serves: --webroot DIR"
        raise HostError(
            f"port {certbot.PORT}, where the authority asks, is taken{by}",
            hint="llm-appliance install --listen ADDRESS:443" if spec.port == certbot.PORT else other,
        )


def _install(host: Host) -> str:
    return packages(host, "certbot", apt="certbot", dnf="certbot", zypper="certbot", pacman="certbot")[0]


def renewal(site: Site, content: bytes) -> str:
    """Tell how the certificate `content` that is certbot's will be renewed, or what to type where it will not."""
    layout = site.layout
    place = certbot.lineage(layout)
    newest = site.machine.read(f"{place}/fullchain.pem", codec.MAX_BYTES)
    if newest is None:
        return f"none: {place} is gone"
    if not content.startswith(newest.rstrip()):
        return f"certbot has another one: llm-appliance tls use {place}/fullchain.pem {place}/privkey.pem"
    if site.machine.read(certbot.hook(layout)) is None:
        return f"certbot, which does not tell us: {certbot.hook(layout)} is gone; llm-appliance install"
    active = site.machine.run(Command(argv=("systemctl", "is-active", *certbot.TIMERS), timeout=5))
    timers = [timer for timer, state in zip(certbot.TIMERS, active.stdout.split(), strict=False) if state == "active"]
    if not timers and active.stdout:
        return "certbot, and none of its timers is active; unless cron runs it: systemctl enable --now certbot.timer"
    return f"certbot, by {timers[0]}" if timers else "certbot"
