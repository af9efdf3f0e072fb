"""The gateway's port, and proxies."""

from dataclasses import replace

from appliance.domain.host import Port
from appliance.domain.spec import ApplianceSpec
from tests.unit.doctor.sound import SOUND, facts, look, only

PROXY = ("http_proxy", "http://proxy:3128")
BOTH = (PROXY, ("HTTP_PROXY", PROXY[1]))


def test_the_holder_of_the_port_is_named() -> None:
    found = only("port-taken", SOUND, facts(port_taken=True, port_holder="ollama (pid 7)"))
    assert (found.subject, found.message) == ("127.0.0.1:8080", "port 8080 is taken by ollama (pid 7)")
    assert found.prevents
    assert found.remedy[-1].endswith("--listen 127.0.0.1:8081")


def test_the_holder_may_be_known_from_detection() -> None:
    host = replace(SOUND, ports=(Port(port=8080, holder="java (pid 9)"),))
    assert "java (pid 9)" in only("port-taken", host, facts(port_taken=True)).message


def test_another_port_is_one_that_exists() -> None:
    known = facts(spec=ApplianceSpec(host="::1", port=65535), port_taken=True)
    assert only("port-taken", SOUND, known).remedy[-1].endswith("--listen [::1]:8080")


def test_a_port_that_is_taken_elsewhere_does_not_matter() -> None:
    assert look(replace(SOUND, ports=(Port(port=22), Port(port=8080)))) == {}


def test_a_proxy_in_one_spelling_only() -> None:
    spared = ("no_proxy", "localhost"), ("NO_PROXY", "localhost")
    lower = only("proxy-case", replace(SOUND, proxies=(PROXY, *spared)))
    assert (lower.severity, lower.remedy) == ("info", ('export HTTP_PROXY="$http_proxy"',))
    upper = only("proxy-case", replace(SOUND, proxies=(("HTTP_PROXY", "http://proxy:3128"), *spared)))
    assert (upper.severity, upper.remedy) == ("warning", ('export http_proxy="$HTTP_PROXY"',))
    assert look(replace(SOUND, proxies=(*BOTH, *spared))) == {}


def test_this_machine_must_not_be_asked_for_through_the_proxy() -> None:
    assert only("proxy-local", replace(SOUND, proxies=BOTH)).severity == "warning"
    others = (("no_proxy", ".example.com"), ("NO_PROXY", ".example.com"))
    assert only("proxy-local", replace(SOUND, proxies=(*BOTH, *others))).subject == "no_proxy"
    for value in ("localhost,.example.com", "10.0.0.0/8, 127.0.0.1", "*"):
        pair = (("no_proxy", value), ("NO_PROXY", value))
        assert look(replace(SOUND, proxies=(*BOTH, *pair))) == {}
