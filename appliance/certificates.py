"""Certificates of the gateway: an authority of the appliance's own, what it signs, and what one that was given says."""

import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.errors import SpecError

AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 397
"""The longest that browsers take."""
HOST: Final = re.compile(
    r"(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
HERE: Final = ("localhost", "127.0.0.1", "::1")
"""What the machine itself calls it."""

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a certificate says of itself."""

    names: Names
    """Hosts and addresses that it is good for."""
    issuer: str
    begins: int
    """Seconds since 1970."""
    ends: int
    """Seconds since 1970."""
    sha256: str
    """Fingerprint, as openssl and browsers write it: AA:BB:…"""


def check_name(name: str) -> str:
    """Return a host's name or address when a certificate can hold it. Raises SpecError."""
    place = _address(name)
    if place:
        return str(place)
    if len(name) > 253 or not HOST.fullmatch(name):
        raise SpecError(f"{name!r} is neither a host's name nor an address", hint="for example llm.example or 10.0.0.7")
    return name.lower()


def found_names(hosts: Names, listen: str, addresses: Names) -> Names:
    """Return what clients may call this machine: `hosts`, and the `addresses` at which it listens."""
    here = _address(listen)
    outside = addresses if here is None or here.is_unspecified else (listen,)
    kept = (one for one in outside if (place := _address(one)) and not (place.is_loopback or place.is_link_local))
    names = (one.lower() for one in hosts if HOST.fullmatch(one))
    return tuple(dict.fromkeys((*names, *kept, *HERE)))


def authority(host: str, now: int) -> Pair:
    """Make a certificate authority that signs for one appliance."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"llm-appliance on {host}"[:64])])
    usage = x509.KeyUsage(
        key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        _begun(name, name, key, now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate=made.public_bytes(serialization.Encoding.PEM), key=_pem(key))


def signed(by: Pair, names: Names, now: int) -> Pair:
    """Make a server's certificate for names and addresses; the authority's own follows it in the PEM."""
    issuer = x509.load_pem_x509_certificate(by.certificate)
    issuer_key = serialization.load_pem_private_key(by.key, password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    general = [x509.IPAddress(place) if (place := _address(one)) else x509.DNSName(one) for one in names]
    subject_key = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    made = (
        _begun(name, issuer.subject, key, now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(general), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return Pair(certificate=made.public_bytes(serialization.Encoding.PEM) + by.certificate, key=_pem(key))


def about(certificate: bytes, source: str) -> About:
    """Read the first certificate of a PEM file. Raises SpecError."""
    found = _first(certificate, source)
    try:
        general = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = (*general.get_values_for_type(x509.DNSName), *map(str, general.get_values_for_type(x509.IPAddress)))
    except x509.ExtensionNotFound:
        names = ()
    digest = found.fingerprint(hashes.SHA256()).hex(":").upper()
    return About(
        names=names, issuer=found.issuer.rfc4514_string(), begins=int(found.not_valid_before_utc.timestamp()),
        ends=int(found.not_valid_after_utc.timestamp()), sha256=digest,
    )  # fmt: skip


def is_signed_by(certificate: bytes, authority_certificate: bytes, source: str) -> bool:
    """Tell whether an authority signed the first certificate of a PEM file."""
    try:
        _first(certificate, source).verify_directly_issued_by(_first(authority_certificate, source))
    except Exception:  # noqa: BLE001 - whatever it says, it is no yes
        return False
    return True


def check_pair(pair: Pair, source: str, now: int) -> None:
    """Raise SpecError when a key is not the certificate's, or the certificate is not valid now."""
    found = _first(pair.certificate, source)
    try:
        key = serialization.load_pem_private_key(pair.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SpecError(
            f"{source}: its key cannot be read", hint="a PEM file without a passphrase: nobody is there to type it"
        ) from None
    if _public(key.public_key()) != _public(found.public_key()):
        raise SpecError(f"{source}: certificate and key do not belong together")
    if found.not_valid_after_utc.timestamp() <= now:
        raise SpecError(f"{source}: not valid since {found.not_valid_after_utc:%Y-%m-%d}", hint="renew it first")
    if found.not_valid_before_utc.timestamp() > now:
        raise SpecError(
            f"{source}: not valid before {found.not_valid_before_utc:%Y-%m-%d}",
            hint="look at this machine's clock, or wait for that day",
        )


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: int, days: int
) -> x509.CertificateBuilder:
    moment = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(hours=1))  # clients' clocks are not all right
        .not_valid_after(moment + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _first(certificate: bytes, source: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate)
    except ValueError:
        raise SpecError(
            f"{source}: holds no certificate", hint="PEM: it begins with -----BEGIN CERTIFICATE-----"
        ) from None


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _public(key: object) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, form)  # type: ignore[attr-defined]
    return encoded


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
