"""A certificate of our own: made where the spec wants one and none is there, and by the authority that clients trust."""

from dataclasses import replace
from pathlib import Path

import pytest

from appliance import certbot, certificates
from appliance.domain.spec import ApplianceSpec, Tls
from appliance.errors import HostError
from appliance.flows import certificate
from appliance.flows.site import Site
from appliance.report import progress
from tests.unit.recorded import Answer, RecordedMachine
from tests.unit.samples import layout

ANSWERS = {
    ("hostname",): Answer(stdout="llm\n"),
    ("hostname", "-f"): Answer(stdout="llm.example\n"),
    ("hostname", "-I"): Answer(stdout="10.0.0.7 fe80::1 \n"),
}


@pytest.fixture
def machine() -> RecordedMachine:
    return RecordedMachine(answers=ANSWERS)


@pytest.fixture
def site(tmp_path: Path, machine: RecordedMachine) -> Site:
    return Site(layout=layout(str(tmp_path)), machine=machine, progress=progress(), command="test")


def wanted(site: Site, host: str = "0.0.0.0") -> ApplianceSpec:
    return ApplianceSpec(host=host, tls=certificate.kept(site.layout))


def names(site: Site, machine: RecordedMachine) -> set[str]:
    place = certificate.kept(site.layout).certificate
    return set(certificates.about(machine.files[place], place).names)


def test_one_that_was_given_is_left_alone(site: Site, machine: RecordedMachine) -> None:
    certificate.ensure(site, replace(wanted(site), tls=Tls(certificate="/a.pem", key="/a.key")), ("llm.example",))
    certificate.ensure(site, replace(wanted(site), tls=Tls()))
    assert machine.effects == []


def test_one_that_certbot_got_is_none_that_could_be_made_here(site: Site, machine: RecordedMachine) -> None:
    spec = replace(wanted(site), tls=certbot.kept(site.layout))
    with pytest.raises(HostError, match=r"certbot\.pem is not there"):
        certificate.ensure(site, spec)
    machine.files[spec.tls.certificate] = b"pem"
    certificate.ensure(site, spec)
    assert machine.effects == []


def test_it_is_for_what_the_machine_is_called_and_certificate_and_key_are_one_file(
    site: Site, machine: RecordedMachine
) -> None:
    certificate.ensure(site, wanted(site))
    etc = site.layout.etc
    assert machine.written() == [f"{etc}/tls/authority.key", f"{etc}/tls/authority.crt", f"{etc}/tls/gateway.pem"]
    assert names(site, machine) == {"llm.example", "llm", "10.0.0.7", *certificates.HERE}
    content = machine.files[f"{etc}/tls/gateway.pem"]
    assert content.count(b"BEGIN CERTIFICATE") == 2 and content.count(b"BEGIN PRIVATE KEY") == 1
    assert b"PRIVATE" not in machine.files[f"{etc}/tls/authority.crt"]
    assert certificate.is_own(site, wanted(site).tls)


def test_a_second_time_nothing_is_written_and_other_names_make_another(site: Site, machine: RecordedMachine) -> None:
    certificate.ensure(site, wanted(site), ("llm.example",))
    before = dict(machine.files)
    certificate.ensure(site, wanted(site), ("llm.example",))
    certificate.ensure(site, wanted(site))
    assert machine.files == before
    certificate.ensure(site, wanted(site), ("other.example",))
    assert names(site, machine) == {"other.example", *certificates.HERE}
    authority = certificate.authority_path(site.layout)
    assert machine.files[authority] == before[authority], "clients trust it still"


def test_where_the_authority_s_key_is_gone_nothing_is_signed_by_another(site: Site, machine: RecordedMachine) -> None:
    certificate.ensure(site, wanted(site))
    del machine.files[f"{site.layout.etc}/tls/authority.key"]
    before = dict(machine.files)
    with pytest.raises(HostError, match=r"authority\.key is gone") as refused:
        certificate.make(site, ("llm.example",))
    assert "rm " in refused.value.hint
    assert machine.files == before
