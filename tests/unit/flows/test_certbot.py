"""certbot is not even started where it could not work, and what it says comes back; how its certificate is renewed."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import certbot, codec
from appliance.certbot import Order
from appliance.domain.changes import Record
from appliance.errors import ApplianceError, CommandError, HostError
from appliance.flows.certbot import obtain, renewal
from appliance.flows.site import Site
from appliance.report import progress
from tests.unit.recorded import Answer, RecordedMachine
from tests.unit.samples import deployment, layout

ORDER = Order(hosts=("llm.example",), agreed=True)
CERTBOT = ("certbot", "certonly")
LISTENS = "  0: 00000000:{:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n"
"""A line of /proc/net/tcp."""
PEM = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


@pytest.fixture
def machine() -> RecordedMachine:
    return RecordedMachine(
        answers={CERTBOT: Answer()}, programs={"certbot": "/usr/bin/certbot"}, files={"/etc/os-release": b"ID=debian\n"}
    )


@pytest.fixture
def site(tmp_path: Path, machine: RecordedMachine, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    where = layout(str(tmp_path))
    record = Record(schema=1, generation=1, deployment=deployment(where=where), files=(), confirmed=True)
    machine.files[f"{where.state}/record.json"] = codec.dump_json(record).encode()
    return Site(layout=where, machine=machine, progress=progress(), command="test")


def asked(machine: RecordedMachine) -> list[tuple[str, ...]]:
    return [argv for argv in machine.ran() if argv[0] == "certbot"]


def refused(site: Site, order: Order = ORDER) -> ApplianceError:
    """Return the error of what must not come as far as certbot."""
    with pytest.raises(HostError) as error:
        obtain(site, order)
    machine = site.machine
    assert isinstance(machine, RecordedMachine)
    assert asked(machine) == [] and machine.written() == []
    return error.value


def test_it_is_asked_once_and_the_certificate_lies_where_it_says(site: Site, machine: RecordedMachine) -> None:
    assert obtain(site, ORDER) == certbot.lineage(site.layout)
    assert asked(machine) == [certbot.argv(ORDER, certbot.name(site.layout), "")]


def test_what_it_has_noted_down_decides_whether_it_is_another_authority(site: Site, machine: RecordedMachine) -> None:
    machine.files[certbot.renewal(site.layout)] = b"server = https://trial.example/dir\n"
    obtain(site, ORDER)
    assert "--force-renewal" in asked(machine)[0]


@pytest.mark.parametrize(
    ("system", "hint"),
    [
        ("debian", "apt-get install certbot"),
        ("rocky", "dnf install certbot"),
        ("opensuse-leap", "zypper install certbot"),
        ("arch", "pacman -S certbot"),
    ],
)
def test_where_it_is_missing_what_installs_it_is_named(
    site: Site, machine: RecordedMachine, system: str, hint: str
) -> None:
    machine.programs.clear()
    machine.files["/etc/os-release"] = f"ID={system}\n".encode()
    error = refused(site)
    assert (error.message, error.hint) == ("certbot is not installed", hint)


def test_offline_nobody_is_asked(site: Site, machine: RecordedMachine) -> None:
    machine.files[f"{site.layout.etc}/appliance.yaml"] = b"hub: {offline: true}\n"
    assert "offline no authority is asked" in refused(site).message


def test_without_root_it_could_neither_answer_nor_renew(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "certbot needs root" in refused(site).message


def test_where_nothing_is_installed_there_is_nothing_to_encrypt(site: Site, machine: RecordedMachine) -> None:
    del machine.files[f"{site.layout.state}/record.json"]
    assert refused(site).message == "nothing is installed here"


@pytest.mark.parametrize(("port", "hint"), [(8080, "--webroot DIR"), (80, "install --listen ADDRESS:443")])
def test_a_port_that_is_taken_is_told_before(site: Site, machine: RecordedMachine, port: int, hint: str) -> None:
    machine.files["/proc/net/tcp"] = LISTENS.format(80).encode()
    machine.files[f"{site.layout.etc}/appliance.yaml"] = f"listen: 127.0.0.1:{port}\n".encode()
    error = refused(site)
    assert error.message == "port 80, where the authority asks, is taken"
    assert hint in error.hint


def test_whoever_has_the_port_can_serve_what_it_writes(site: Site, machine: RecordedMachine) -> None:
    machine.files["/proc/net/tcp"] = LISTENS.format(80).encode()
    obtain(site, replace(ORDER, webroot="/srv/www"))
    assert "--webroot-path=/srv/www" in asked(machine)[0]


def test_a_failure_is_told_in_its_own_words(site: Site, machine: RecordedMachine) -> None:
    machine.answers[CERTBOT] = Answer(code=1, stdout="  Detail: no such host\n", stderr="Saving debug log to /x\n")
    with pytest.raises(CommandError) as error:
        obtain(site, ORDER)
    assert error.value.message == "certbot got no certificate for llm.example:\n  Detail: no such host"
    assert certbot.LOG in error.value.hint


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ("active\ninactive\ninactive\n", "certbot, by certbot.timer"),
        ("inactive\nactive\ninactive\n", "certbot, by certbot-renew.timer"),
        ("inactive\ninactive\ninactive\n", "certbot, and none of its timers is active"),
        ("", "certbot"),
    ],
)
def test_by_whom_it_is_renewed(site: Site, machine: RecordedMachine, states: str, said: str) -> None:
    machine.files[f"{certbot.lineage(site.layout)}/fullchain.pem"] = PEM
    machine.files[certbot.hook(site.layout)] = b"#!/bin/sh\n"
    machine.answers["systemctl", "is-active"] = Answer(stdout=states, code=0 if states.startswith("active") else 3)
    found = renewal(site, PEM + b"key")
    assert found.startswith(said) and (":" in found) == ("none" in said)


def test_what_will_not_be_renewed_is_told(site: Site, machine: RecordedMachine) -> None:
    place = certbot.lineage(site.layout)
    assert renewal(site, PEM) == f"none: {place} is gone"
    machine.files[f"{place}/fullchain.pem"] = PEM.replace(b"AA", b"BB")
    assert f"llm-appliance tls use {place}/fullchain.pem {place}/privkey.pem" in renewal(site, PEM)
    machine.files[f"{place}/fullchain.pem"] = PEM
    assert f"{certbot.hook(site.layout)} is gone; llm-appliance install" in renewal(site, PEM)
