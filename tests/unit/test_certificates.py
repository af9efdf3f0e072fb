"""Certificates of the appliance's own, held against Python's TLS in its strictest mode, without a socket."""

import ssl
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from appliance import certificates
from appliance.certificates import Pair
from appliance.errors import SpecError

NOW = 1_795_000_000
DAY = 86400
NAMES = ("llm.example", "10.0.0.7", "localhost", "127.0.0.1", "::1")


@pytest.fixture(scope="module")
def authority() -> Pair:
    return certificates.authority("server", NOW)


@pytest.fixture(scope="module")
def server(authority: Pair) -> Pair:
    return certificates.signed(authority, NAMES, NOW)


def shake_hands(server: Pair, trusted: bytes, name: str) -> str:
    """Return the version of TLS that both agree on. Raises ssl.SSLError where the client refuses."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(server.certificate + server.key)
        file.flush()
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.load_cert_chain(file.name)
    ours = ssl.create_default_context(cadata=trusted.decode())
    ours.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    ours.verify_flags &= ~ssl.VERIFY_CRL_CHECK_LEAF
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, host = ours.wrap_bio(one, two, server_hostname=name), theirs.wrap_bio(two, one, server_side=True)
    for _ in range(4):
        for side in (client, host):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return client.version() or ""


@pytest.fixture(scope="module")
def today() -> Pair:
    """An authority that is valid now: TLS asks the clock."""
    import time

    return certificates.authority("server", int(time.time()))


@pytest.mark.parametrize("name", NAMES)
def test_who_trusts_the_authority_trusts_the_server_by_every_name(today: Pair, name: str) -> None:
    import time

    made = certificates.signed(today, NAMES, int(time.time()))
    assert shake_hands(made, today.certificate, name) == "TLSv1.3"


def test_by_another_name_or_another_authority_nobody_trusts_it(today: Pair) -> None:
    import time

    made = certificates.signed(today, NAMES, int(time.time()))
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        shake_hands(made, today.certificate, "other.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(made, certificates.authority("other", int(time.time())).certificate, "localhost")


def test_a_certificate_says_what_it_was_made_for(authority: Pair, server: Pair) -> None:
    said = certificates.about(server.certificate, "gateway.pem")
    assert set(said.names) == set(NAMES)
    assert said.issuer == "CN=llm-appliance on server"
    assert said.ends == NOW + certificates.SERVER_DAYS * DAY
    assert said.begins == NOW - 3600, "clients' clocks are not all right"
    assert len(said.sha256.split(":")) == 32
    assert server.certificate.endswith(authority.certificate), "the chain is complete"
    assert certificates.about(authority.certificate, "authority.crt").ends == NOW + certificates.AUTHORITY_DAYS * DAY


def test_two_appliances_have_two_authorities(authority: Pair, server: Pair) -> None:
    other = certificates.authority("server", NOW)
    assert certificates.is_signed_by(server.certificate, authority.certificate, "x")
    assert not certificates.is_signed_by(server.certificate, other.certificate, "x")


def test_a_key_of_another_certificate_is_refused(authority: Pair, server: Pair) -> None:
    certificates.check_pair(server, "a.pem", NOW)
    for pair, said in (
        (Pair(certificate=server.certificate, key=authority.key), "do not belong together"),
        (Pair(certificate=server.certificate, key=b"-----BEGIN"), "its key cannot be read"),
        (Pair(certificate=server.key, key=server.key), "holds no certificate"),
    ):
        with pytest.raises(SpecError, match=said) as refused:
            certificates.check_pair(pair, "a.pem", NOW)
        assert "PRIVATE" not in refused.value.message
    with pytest.raises(SpecError, match="not valid since 2027-"):
        certificates.check_pair(server, "a.pem", NOW + 400 * DAY)
    with pytest.raises(SpecError, match="not valid before 2026-"):
        certificates.check_pair(server, "a.pem", NOW - DAY)


@pytest.mark.parametrize("name", ["llm.example", "LLM", "*.llm.example", "10.0.0.7", "fd00::7", "localhost"])
def test_names_that_a_certificate_can_hold(name: str) -> None:
    assert certificates.check_name(name) == name.lower()
    assert certificates.check_name("FD00:0::7") == "fd00::7"


@pytest.mark.parametrize(
    "name", ["", "a b", "-a.example", "a..b", "https://llm.example", "a" * 64, "müller.example", "a_b"]
)
def test_names_that_it_cannot_hold(name: str) -> None:
    with pytest.raises(SpecError, match="neither a host's name nor an address"):
        certificates.check_name(name)


def test_what_a_machine_may_be_called_depends_on_where_it_listens() -> None:
    here, addresses = ("llm.example", "llm"), ("10.0.0.7", "fe80::1", "172.17.0.1", "fd00::7")
    everywhere = certificates.found_names(here, "0.0.0.0", addresses)
    assert everywhere == ("llm.example", "llm", "10.0.0.7", "172.17.0.1", "fd00::7", *certificates.HERE)
    assert certificates.found_names(here, "10.0.0.7", addresses) == (
        "llm.example",
        "llm",
        "10.0.0.7",
        *certificates.HERE,
    )
    assert certificates.found_names(("localhost",), "127.0.0.1", addresses) == certificates.HERE


def test_files_of_no_certificate_are_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"a\.pem: holds no certificate"):
        certificates.about(b"nothing", "a.pem")
