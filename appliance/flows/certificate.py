"""The certificate of the appliance's own authority: made where the spec wants one, for the names of this machine."""

import time
from typing import TYPE_CHECKING

from appliance import certbot, codec
from appliance.doctor.validity import Validity, day, validity
from appliance.domain.changes import Command, File
from appliance.domain.layout import Layout
from appliance.domain.spec import ApplianceSpec, Tls
from appliance.errors import HostError, SpecError
from appliance.flows.site import Site

if TYPE_CHECKING:  # what reads certificates takes its time to be imported, and most runs need none of it
    from appliance.certificates import Pair


def kept(layout: Layout) -> Tls:
    """Return where the appliance keeps certificate and key: both in one file, so that they change together."""
    path = f"{layout.etc}/tls/gateway.pem"
    return Tls(certificate=path, key=path)


def authority_path(layout: Layout) -> str:
    """Return the path of our authority's certificate; its key lies beside it."""
    return f"{layout.etc}/tls/authority.crt"


def is_own(site: Site, tls: Tls) -> bool:
    """Tell whether our own authority signed a certificate."""
    content = site.machine.read(tls.certificate, codec.MAX_BYTES) if tls.certificate else None
    ours = site.machine.read(authority_path(site.layout), codec.MAX_BYTES)
    if content is None or ours is None:
        return False
    from appliance import certificates

    return certificates.is_signed_by(content, ours, tls.certificate)


def validity_of(site: Site, tls: Tls) -> Validity | None:
    """Return when a certificate is valid; None where there is none, or we may not read it."""
    content = site.machine.read(tls.certificate, codec.MAX_BYTES) if tls.certificate else None
    return validity(content) if content else None


def require_valid(site: Site, tls: Tls) -> None:
    """Raise SpecError when no client would accept a certificate today."""
    found, now = validity_of(site, tls), time.time()
    if found and found.ends <= now:
        raise SpecError(f"{tls.certificate}: not valid since {day(found.ends)}", hint="renew it first")
    if found and found.begins > now:
        raise SpecError(
            f"{tls.certificate}: not valid before {day(found.begins)}, and today is {day(int(now))}",
            hint="look at this machine's clock, or wait for that day",
        )


def ensure(site: Site, spec: ApplianceSpec, names: tuple[str, ...] = ()) -> None:
    """Make a certificate where the spec wants one of our own and none is there, or one for other `names`.

    Raises HostError where it wants the one that certbot got, and that is gone.
    """
    if spec.tls == certbot.kept(site.layout) and site.machine.read(spec.tls.certificate, 1) is None:
        raise HostError(
            f"tls: {spec.tls.certificate} is not there",
            hint="llm-appliance install --tls own, then: llm-appliance tls acme HOST",
        )
    if spec.tls != kept(site.layout):
        return
    from appliance import certificates

    there = site.machine.read(spec.tls.certificate, codec.MAX_BYTES)
    if there is None or (
        names and set(certificates.about(there, spec.tls.certificate).names) != {*names, *certificates.HERE}
    ):
        make(site, names or _detected(site, spec.host))


def make(site: Site, names: tuple[str, ...]) -> None:
    """Write a certificate for names. Raises HostError where our authority's key is gone."""
    from appliance import certificates

    now = int(time.time())
    names = tuple(dict.fromkeys((*names, *certificates.HERE)))
    by = _authority(site, names[0], now)
    site.progress.step("certificate", f"for {', '.join(names)}")
    pair = certificates.signed(by, names, now)
    record = site.generations.record()
    # Its reader does not exist before the first installation, which hands the file over then.
    owner = record.deployment.gateway_user if record else ""
    place = kept(site.layout).certificate
    site.machine.write(File(path=place, content=pair.certificate + pair.key, mode=0o600, user=owner))


def _authority(site: Site, host: str, now: int) -> "Pair":
    """Return our authority; made where there is none, or where it would not outlive what it signs."""
    from appliance import certificates

    path = authority_path(site.layout)
    key_path = f"{path.removesuffix('.crt')}.key"
    certificate, key = (site.machine.read(one, codec.MAX_BYTES) for one in (path, key_path))
    if certificate and certificates.about(certificate, path).ends > now + certificates.SERVER_DAYS * 86400:
        if key is None:
            raise HostError(
                f"{key_path} is gone: nothing can be signed for those who trust {path}",
                hint=f"put it back, or begin with a new authority: rm {path}",
            )
        return certificates.Pair(certificate=certificate, key=key)
    site.progress.step("certificate", "an authority of this appliance's own")
    made = certificates.authority(host, now)
    site.machine.write(File(path=key_path, content=made.key, mode=0o600))
    site.machine.write(File(path=path, content=made.certificate))
    return made


def _detected(site: Site, listen: str) -> tuple[str, ...]:
    """Return the names and addresses of this machine."""
    from appliance import certificates

    def said(*argv: str) -> tuple[str, ...]:
        done = site.machine.run(Command(argv=argv, timeout=5))
        return tuple(done.stdout.split()) if not done.code else ()

    hosts = (*said("hostname", "-f"), *said("hostname"))
    return certificates.found_names(hosts, listen, said("hostname", "-I"))
