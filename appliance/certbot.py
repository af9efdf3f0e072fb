"""certbot: how it is asked for the gateway's certificate, and the hook by which its renewals come into force."""

import re
from dataclasses import dataclass
from typing import Final

from appliance.domain.changes import Page
from appliance.domain.deployment import Deployment
from appliance.domain.layout import Layout
from appliance.domain.spec import Tls
from appliance.errors import SpecError

HOME: Final = "/etc/letsencrypt"
LOG: Final = "/var/log/letsencrypt/letsencrypt.log"
LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"
PORT: Final = 80
"""Where an authority asks (RFC 8555, section 8.3)."""
TIMERS: Final = ("certbot.timer", "certbot-renew.timer", "snap.certbot.renew.timer")
"""Of Debian's package, of Fedora's, and of the snap."""
SAID: Final = re.compile(
    r"Saving debug log to |Account registered\.|Requesting a certificate for |Renewing an existing certificate |"
    r"Ask for help or search for solutions |\s*$"
)
"""Lines of certbot's that say nothing of a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A certificate that an authority is asked for."""

    hosts: tuple[str, ...]
    """Names in the DNS that lead to this machine."""
    server: str = LETS_ENCRYPT
    """URL of the authority's ACME directory."""
    email: str = ""
    """Where the authority writes to; "" = nowhere."""
    agreed: bool = False
    """The operator agrees to the authority's terms of service."""
    webroot: str = ""
    """Directory that somebody serves on port 80; "" = certbot answers there itself."""


def check_host(host: str) -> str:
    """Return a name that an authority can find a server by. Raises SpecError."""
    if "*" in host or ":" in host or host.rpartition(".")[2].isdigit():
        raise SpecError(
            f"{host!r}: an authority asks port {PORT} of a name, not of an address or of many names",
            hint="for example llm.example.com; else certbot by DNS, then: llm-appliance tls use CERTIFICATE KEY",
        )
    return host


def name(layout: Layout) -> str:
    """Return what certbot calls our certificate; each appliance on a machine has its own."""
    return f"llm-appliance{layout.prefix.rstrip('/').replace('/', '-')}"


def lineage(layout: Layout) -> str:
    """Return the directory in which certbot keeps the newest of our certificates: fullchain.pem, privkey.pem."""
    return f"{HOME}/live/{name(layout)}"


def renewal(layout: Layout) -> str:
    """Return the path of what certbot notes down of our certificate."""
    return f"{HOME}/renewal/{name(layout)}.conf"


def hook(layout: Layout) -> str:
    """Return the path of what certbot runs after each renewal."""
    return f"{HOME}/renewal-hooks/deploy/{name(layout)}"


def kept(layout: Layout) -> Tls:
    """Return where the appliance keeps its copy; who configures that one wants its renewals, too."""
    path = f"{layout.etc}/tls/certbot.pem"
    return Tls(certificate=path, key=path)


def pages(deployment: Deployment) -> tuple[Page, ...]:
    """Return the hook where the gateway's certificate is certbot's."""
    layout = deployment.layout
    if deployment.spec.tls != kept(layout):
        return ()
    names = {"lineage": lineage(layout), "python": deployment.python, "prefix": layout.prefix}
    return (Page(path=hook(layout), template="certbot/renewed.j2", names=names, mode=0o755),)


def argv(order: Order, called: str, noted: str) -> tuple[str, ...]:
    """Return what gets the certificate `called` so, or leaves the one that is there while it need not be renewed.

    `noted`: what certbot has noted down of it, "" = nothing yet. It does not look itself whether that was another
    authority, such as one for trials only.
    """
    before = re.search(r"^server = (\S+)$", noted, re.MULTILINE)
    other = before is not None and before[1] != order.server
    return (
        "certbot", "certonly", "--non-interactive", f"--cert-name={called}", f"--server={order.server}",
        *(f"--domain={host}" for host in order.hosts), "--renew-with-new-domains",
        "--force-renewal" if other else "--keep-until-expiring",
        *(("--webroot", f"--webroot-path={order.webroot}") if order.webroot else ("--standalone",)),
        *((f"--email={order.email}", "--no-eff-email") if order.email else ("--register-unsafely-without-email",)),
        *(("--agree-tos",) if order.agreed else ()),
    )  # fmt: skip


def essence(said: str) -> str:
    """Return the lines of certbot's output that tell why it failed."""
    return "\n".join(line.rstrip() for line in said.splitlines() if not SAID.match(line))
