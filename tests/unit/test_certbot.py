"""certbot: the words that it is given, what is told of its failures, and the hook that belongs to one installation."""

from dataclasses import replace

import pytest

from appliance import certbot
from appliance.certbot import LETS_ENCRYPT, Order
from appliance.domain.spec import Tls
from appliance.errors import SpecError
from appliance.render.pages import render
from tests.unit.samples import LAYOUT, deployment, layout

ORDER = Order(hosts=("llm.example", "www.llm.example"))
NOTED = """\
# renew_before_expiry = 30 days
version = 2.1.0
archive_dir = /etc/letsencrypt/archive/llm-appliance
cert = /etc/letsencrypt/live/llm-appliance/cert.pem

# Options used in the renewal process
[renewalparams]
account = 9e3ecd93709d6fc0479bb532f7b3e1b5
server = {}
authenticator = standalone
key_type = ecdsa
"""
UNREACHABLE = """\
Saving debug log to /var/log/letsencrypt/letsencrypt.log
Account registered.
Requesting a certificate for nobody.example

Certbot failed to authenticate some domains (authenticator: standalone). The Certificate Authority reported these problems:
  Domain: nobody.example
  Type:   connection
  Detail: Get "http://nobody.example:80/.well-known/acme-challenge/ya4L": "lookup nobody.example: no such host"

Hint: The Certificate Authority failed to download the challenge files from the temporary standalone webserver.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile /var/log/… for more details.
"""
DISAGREED = """\
Saving debug log to /var/log/letsencrypt/letsencrypt.log
Missing command line flag or config entry for this setting:
Please read the Terms of Service at https://letsencrypt.org/documents/LE-SA.pdf. You must agree in order to register.

(You can set this with the --agree-tos flag)
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile /var/log/… for more details.
"""


def test_it_asks_for_these_names_agrees_to_nothing_and_leaves_no_address() -> None:
    words = certbot.argv(ORDER, "llm-appliance", "")
    assert words[:4] == ("certbot", "certonly", "--non-interactive", "--cert-name=llm-appliance")
    assert [word for word in words if word.startswith("--domain")] == [
        "--domain=llm.example",
        "--domain=www.llm.example",
    ]
    assert f"--server={LETS_ENCRYPT}" in words and "--standalone" in words
    assert "--register-unsafely-without-email" in words
    assert "--agree-tos" not in words


def test_what_the_operator_says_is_passed_on_and_nothing_of_it_can_be_another_option() -> None:
    order = replace(ORDER, agreed=True, email="--pre-hook=id", webroot="/srv/www", server="https://ca.corp.example/dir")
    words = certbot.argv(order, "llm-appliance", "")
    assert {"--agree-tos", "--email=--pre-hook=id", "--webroot", "--webroot-path=/srv/www"} < set(words)
    assert "--server=https://ca.corp.example/dir" in words
    assert "--standalone" not in words and "--register-unsafely-without-email" not in words


@pytest.mark.parametrize(
    ("noted", "forced"),
    [
        ("", False),
        (NOTED.format(LETS_ENCRYPT), False),
        (NOTED.format("https://acme-staging-v02.api.letsencrypt.org/directory"), True),
    ],
)
def test_one_that_is_there_is_left_alone_unless_another_authority_is_asked(noted: str, forced: bool) -> None:
    words = certbot.argv(ORDER, "llm-appliance", noted)
    assert ("--force-renewal" in words, "--keep-until-expiring" in words) == (forced, not forced)


def test_of_a_failure_what_the_authority_says_is_left() -> None:
    lines = certbot.essence(UNREACHABLE).splitlines()
    assert lines[0].startswith("Certbot failed to authenticate some domains")
    assert lines[1:3] == ["  Domain: nobody.example", "  Type:   connection"]
    assert "no such host" in lines[3]
    assert lines[-1] == "Some challenges have failed."


def test_who_did_not_agree_is_told_to_what_and_how() -> None:
    said = certbot.essence(DISAGREED)
    assert said.splitlines()[1].startswith("Please read the Terms of Service at https://letsencrypt.org/")
    assert said.endswith("(You can set this with the --agree-tos flag)"), "ours has the same name"


@pytest.mark.parametrize("host", ["10.0.0.7", "fd00::7", "*.llm.example"])
def test_addresses_and_wildcards_are_refused(host: str) -> None:
    with pytest.raises(SpecError, match="an authority asks port 80 of a name"):
        certbot.check_host(host)


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("/", "llm-appliance"), ("/opt/llm", "llm-appliance-opt-llm"), ("/srv/x", "llm-appliance-srv-x")],
)
def test_each_appliance_on_a_machine_has_its_own_certificate_and_hook(prefix: str, name: str) -> None:
    where = LAYOUT if prefix == "/" else layout(prefix)
    assert certbot.lineage(where) == f"/etc/letsencrypt/live/{name}"
    assert certbot.hook(where) == f"/etc/letsencrypt/renewal-hooks/deploy/{name}"


def test_the_hook_is_there_while_the_gateway_s_certificate_is_certbot_s() -> None:
    where = layout("/srv/llm")
    plan = deployment(where=where, tls=certbot.kept(where))
    (hook,) = (file for file in render(plan).files if file.path == certbot.hook(where))
    assert hook.mode == 0o755
    text = hook.content.decode()
    assert text.startswith("#!/bin/sh\n")
    assert f"{plan.python} -m appliance tls use" in text and "--prefix /srv/llm" in text
    assert "= /etc/letsencrypt/live/llm-appliance-srv-llm ]" in text
    for tls in (Tls(), Tls(certificate="/a.pem", key="/a.key"), certbot.kept(LAYOUT)):
        assert certbot.pages(replace(plan, spec=replace(plan.spec, tls=tls))) == ()
