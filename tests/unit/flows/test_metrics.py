"""What Prometheus and Grafana are given, and where it is written."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance.errors import HostError, UsageError
from appliance.flows import metrics, settings
from appliance.flows.site import Site
from appliance.report import progress
from appliance.system.machine import RealMachine
from tests.unit.samples import layout

SPEC = "etc/appliance.yaml"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for name in ("etc", "state"):
        (tmp_path / name).mkdir()
    return Site(layout=layout(str(tmp_path)), machine=RealMachine(), progress=progress(), command="test")


def says(tmp_path: Path, text: str) -> None:
    (tmp_path / SPEC).write_text(f"version: 1\n{text}")


def scrape(site: Site, **more: str) -> dict[str, Any]:
    files = metrics.files(site, more.get("url", ""), more.get("key_file", ""), more.get("ca_file", ""))
    found: dict[str, Any] = yaml.safe_load(files["llm-appliance.yml"])
    return found


@pytest.mark.parametrize(
    ("spec", "url"),
    [
        ("", "http://127.0.0.1:8080"),
        ("listen: 10.0.0.7:80\n", "http://10.0.0.7:80"),
        ("listen: 0.0.0.0:8080\n", "http://127.0.0.1:8080"),
        ('listen: "[::]:8080"\n', "http://[::1]:8080"),
        ('listen: "[::1]:81"\n', "http://[::1]:81"),
        ("tls: {certificate: /c.pem, key: /k.pem}\n", "https://127.0.0.1:8080"),
    ],
)
def test_the_gateway_is_asked_where_it_listens(site: Site, tmp_path: Path, spec: str, url: str) -> None:
    says(tmp_path, spec)
    assert metrics.url(site) == url
    gateway, engines = scrape(site)["scrape_configs"]
    scheme, _, address = url.partition("://")
    assert (gateway["scheme"], gateway["static_configs"][0]["targets"]) == (scheme, [address])
    assert (engines["scheme"], engines["http_sd_configs"][0]["url"]) == (scheme, f"{url}/gateway/engines")


def test_a_key_is_named_by_its_file_and_never_written(site: Site) -> None:
    jobs = scrape(site, key_file="/etc/prometheus/key", url="https://llm.example")["scrape_configs"]
    guarded = {"type": "Bearer", "credentials_file": "/etc/prometheus/key"}
    assert jobs[0]["authorization"] == jobs[1]["authorization"] == guarded
    assert jobs[1]["http_sd_configs"][0]["authorization"] == guarded


def test_where_keys_are_asked_for_one_must_be_named(site: Site, tmp_path: Path) -> None:
    key = {"name": "a", "sha256": "0" * 64, "created": 1}
    (tmp_path / "etc/keys.json").write_text(json.dumps({"version": 1, "keys": [key]}))
    with pytest.raises(UsageError, match="asks for a key") as caught:
        scrape(site)
    assert "--metrics" in caught.value.hint
    assert scrape(site, key_file="/key")


@pytest.mark.parametrize(
    "more", [{"url": "llm.example"}, {"url": "http://a/b"}, {"key_file": "key"}, {"ca_file": "ca"}]
)
def test_what_prometheus_could_not_use_is_refused(site: Site, more: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        scrape(site, **more)


def test_somebodys_own_file_stays(site: Site, tmp_path: Path) -> None:
    wanted = metrics.files(site, "", "", "")
    paths = [str(tmp_path / name) for name in metrics.NAMES]
    assert list(metrics.install(site, str(tmp_path), wanted, force=False)) == paths
    assert metrics.install(site, str(tmp_path), wanted, force=False) == ()
    Path(paths[1]).write_text("{}")
    Path(paths[0]).unlink()
    with pytest.raises(HostError, match="says something else") as caught:
        metrics.install(site, str(tmp_path), wanted, force=False)
    assert "--force" in caught.value.hint
    assert not Path(paths[0]).exists()
    assert len(metrics.install(site, str(tmp_path), wanted, force=True)) == 2
    with pytest.raises(HostError, match="no directory"):
        metrics.install(site, str(tmp_path / "nowhere"), wanted, force=False)


def test_the_status_page_is_a_setting(site: Site, tmp_path: Path) -> None:
    assert settings.values(site)["gateway.page"] == (False, True)
    assert settings.change(site, "gateway.page", "off")
    assert settings.values(site)["gateway.page"] == (True, False)
    assert yaml.safe_load((tmp_path / SPEC).read_text())["gateway"] == {"page": False}
    assert not settings.change(site, "gateway.page", "false")
    assert settings.change(site, "gateway.page", None)
    assert settings.change(site, "gateway.hosts", "chat.example,chat.lan")
    assert settings.values(site)["gateway.hosts"] == (True, "chat.example,chat.lan")
    assert settings.change(site, "gateway.hosts", None)
    assert "gateway" not in yaml.safe_load((tmp_path / SPEC).read_text())
