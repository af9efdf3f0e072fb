"""The appliance itself: what an operator finds broken after a crash, an edit, or a hand that slipped."""

from dataclasses import replace

import pytest

from appliance import certbot
from appliance.doctor.access import Account
from appliance.doctor.validity import Validity
from appliance.domain.changes import ServiceState
from appliance.domain.spec import ApplianceSpec
from tests.unit.doctor.sound import SOUND, facts, installed, look, only, record
from tests.unit.samples import LAYOUT

UNIT = "/etc/systemd/system/llm-appliance-gateway.service"
SPEC = "/etc/llm-appliance/models.d/tiny.yaml"


def test_nothing_is_wrong_with_one_that_runs() -> None:
    assert look(SOUND, installed()) == {}


def test_a_spec_that_cannot_be_read() -> None:
    found = only("spec-broken", SOUND, facts(spec_failure=("appliance.yaml: not valid YAML", "")))
    assert (found.subject, found.remedy) == ("/etc/llm-appliance", ())


def test_a_record_that_cannot_be_read() -> None:
    found = only("record-broken", SOUND, facts(record_failure=("record.json: not JSON", "move it away")))
    assert found.remedy == ("move it away",)


def test_a_kept_catalog_that_cannot_be_read() -> None:
    found = only("catalog-broken", SOUND, facts(catalog_failure=("catalog.json: not JSON", "take it back")))
    assert found.remedy == ("take it back",)


def test_a_run_that_was_killed() -> None:
    killed = replace(installed(), record=record(confirmed=False))
    assert only("run-unfinished", SOUND, killed).remedy == ("llm-appliance install",)


@pytest.mark.parametrize(
    ("days", "severity"), [(31, ""), (29, "warning"), (0, "warning"), (-1, "error"), (-90, "error")]
)
@pytest.mark.parametrize(("own", "remedy"), [(True, "llm-appliance tls renew"), (False, "llm-appliance tls use")])
def test_a_certificate_that_ends(days: int, severity: str, own: bool, remedy: str) -> None:
    now = 1_795_000_000
    valid = Validity(begins=now - 366 * 86400, ends=now + days * 86400 + 60)
    one = replace(installed(), now=now, certificate=valid, certificate_own=own)
    found = look(SOUND, one).get("certificate-ends", ())
    assert "".join(item.severity for item in found) == severity
    assert all(item.remedy[0].startswith(remedy) for item in found)


def test_a_certificate_of_certbot_s_is_renewed_by_it_and_then_taken_over() -> None:
    one = replace(
        installed(), spec=ApplianceSpec(tls=certbot.kept(LAYOUT)), now=1_795_000_000,
        certificate=Validity(begins=1_790_000_000, ends=1_796_000_000),
    )  # fmt: skip
    live = "/etc/letsencrypt/live/llm-appliance"
    assert only("certificate-ends", SOUND, one).remedy == (
        "certbot renew", f"llm-appliance tls use {live}/fullchain.pem {live}/privkey.pem",
    )  # fmt: skip


def test_a_certificate_that_is_not_valid_yet() -> None:
    one = replace(installed(), now=1_795_000_000, certificate=Validity(begins=1_795_500_000, ends=1_895_000_000))
    found = only("certificate-ends", SOUND, one)
    assert (found.severity, found.message) == ("error", "the gateway's certificate is not valid before 2026-11-24")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"link": ""}, "/var/lib/llm-appliance/current is not there"),
        (
            {"link": "generations/2"},
            "/var/lib/llm-appliance/current points to generations/2, the record says generations/3",
        ),
        ({"generation_there": False}, "/var/lib/llm-appliance/generations/3 is gone"),
    ],
)
def test_a_broken_link(changed: dict[str, object], message: str) -> None:
    assert only("generation-link", SOUND, installed(**changed)).message == message


def test_a_unit_that_was_edited_belongs_into_a_drop_in() -> None:
    found = only("file-edited", SOUND, installed(edited=(UNIT,)))
    assert found.severity == "warning"
    assert found.remedy[0] == "systemctl edit llm-appliance-gateway.service   # the place for it"


def test_the_operator_s_own_files_are_theirs_to_edit() -> None:
    assert only("file-edited", SOUND, installed(edited=(SPEC,))).severity == "info"
    assert only("file-missing", SOUND, installed(missing=(SPEC,))).severity == "info"
    assert only("file-missing", SOUND, installed(missing=(UNIT,))).severity == "error"


def test_a_service_that_failed_and_one_that_was_stopped() -> None:
    failed = ServiceState(name="tiny", state="failed", detail="exit-code, restarted 7 times")
    found = only("service-down", SOUND, installed(states=(failed,)))
    assert (found.severity, found.message) == ("error", "failed: exit-code, restarted 7 times")
    assert found.remedy == ("llm-appliance logs tiny",)
    stopped = tuple(ServiceState(name=name, state="stopped") for name in ("gateway", "tiny"))
    found = only("service-down", SOUND, installed(states=stopped, answers=None))
    assert (found.severity, found.subject, found.remedy) == ("warning", "gateway, tiny", ("llm-appliance start",))


def test_a_gateway_that_runs_must_answer() -> None:
    assert only("gateway-silent", SOUND, installed(answers=False)).remedy == ("llm-appliance logs gateway",)


def test_an_account_that_was_deleted() -> None:
    gone = replace(installed(), engine=Account(name="llm-engine"))
    assert only("account-missing", SOUND, gone).subject == "llm-engine"


def test_a_program_that_was_deleted_has_a_directory_in_the_way() -> None:
    path = "/var/lib/llm-appliance/engines/llama-cpp-0123/bin/llama-server"
    found = only("engine-missing", SOUND, installed(programs_missing=(("tiny", path),)))
    assert found.remedy == ("rm -rf /var/lib/llm-appliance/engines/llama-cpp-0123", "llm-appliance install")
    other = only("engine-missing", SOUND, installed(programs_missing=(("tiny", "/opt/x/bin/python"),)))
    assert other.remedy == ("llm-appliance install",)


def test_none_of_it_keeps_an_installation_from_mending_it() -> None:
    everything = installed(
        link="", edited=(UNIT,), missing=(UNIT,), programs_missing=(("tiny", "/x"),), answers=False,
        states=(ServiceState(name="gateway", state="failed"),),
    )  # fmt: skip
    found = look(SOUND, replace(everything, record=record(confirmed=False)))
    assert not any(item.prevents for group in found.values() for item in group)
