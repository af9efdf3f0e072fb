"""Models that providers serve: nothing is started here, and the gateway knows where they are."""

from dataclasses import replace
from typing import Any

import pytest

from appliance import codec
from appliance.catalog import load
from appliance.domain.deployment import Deployment
from appliance.domain.service import Remote
from appliance.domain.spec import ApplianceSpec, ModelSpec, Proxy
from appliance.errors import HostError
from appliance.plan import plan
from appliance.render.pages import launches, render
from appliance.runtimes import runtimes
from tests.unit.samples import HOST, LAYOUT, PYTHON, item, model, weights

KEY = "/etc/llm-appliance/secrets/kimi.key"
REMOTE = Remote(url="https://api.moonshot.cn/v1", model="moonshot-v1-32k", key_file=KEY)


def planned(**more: Any) -> Deployment:
    facts: dict[str, Any] = {"source": "remote:moonshot/moonshot-v1-32k", "key_file": KEY}
    spec = {key: more.pop(key) for key in ("proxy", "runtime") if key in more}
    host = more.pop("host", HOST)
    asked = ModelSpec(name="kimi", **facts | more)
    known = model("kimi", weights(format="remote", architecture="remote", files=(), size=0))
    models = (replace(known, source=asked.source), model())
    wanted = ApplianceSpec(models=(asked, item(gpus=0)), **spec)
    return plan(wanted, models, host, LAYOUT, load(), python=PYTHON)


def test_it_is_served_by_its_provider_under_our_name() -> None:
    found = planned()
    (service,) = (one for one in found.services if one.model == "kimi")
    assert (service.engine, service.program, service.remote) == ("remote", "", REMOTE)
    route = found.gateway.routes[0]
    assert (route.name, route.upstream_model, route.remote) == ("kimi", "moonshot-v1-32k", REMOTE)
    assert route.replicas == (("kimi", "https://api.moonshot.cn/v1"),)


def test_nothing_is_started_for_it_and_nothing_is_acquired() -> None:
    found = planned()
    assert [service.name for service in found.started] == ["tiny"]
    assert [unit.service.name for unit in launches(found)] == ["tiny"]
    assert not any("kimi" in file.path for file in render(found).files)


@pytest.mark.parametrize("name", sorted(runtimes()))
def test_no_runtime_is_asked_for_what_nobody_started(name: str) -> None:
    found = replace(planned(), runtime=name)
    words = [word for command in runtimes()[name].stop(found, "") for word in command.argv]
    assert not any("kimi" in word for word in words)


def test_replicas_are_places_each_with_its_limit() -> None:
    found = planned(replicas=3, parallel=8)
    places = [one for one in found.services if one.model == "kimi"]
    assert [one.name for one in places] == ["kimi_1", "kimi_2", "kimi_3"]
    assert {one.setting.parallel for one in places} == {8}
    assert {one.remote for one in places} == {REMOTE}


def test_without_a_limit_as_many_as_come() -> None:
    (service,) = (one for one in planned().services if one.model == "kimi")
    assert service.setting.parallel == 0


PROXY = Proxy(https="http://proxy.corp:3128", none="localhost,.corp,10.0.0.7")


def test_behind_a_proxy_one_tunnel_serves_all_replicas() -> None:
    found = planned(proxy=PROXY, replicas=2)
    first, second = (one for one in found.services if one.model == "kimi")
    assert (first.program, second.program) == (PYTHON, "")
    (unit,) = (unit for unit in launches(found) if unit.service.model == "kimi")
    assert unit.launch.argv == (
        PYTHON, "-m", "appliance.system.tunnel", "/run/llm-appliance/kimi_1/engine.sock", "api.moonshot.cn:443",
        "proxy.corp:3128",
    )  # fmt: skip
    address = "unix:/run/llm-appliance/kimi_1/engine.sock"
    assert found.gateway.routes[0].replicas == (("kimi_1", address), ("kimi_2", address))


def test_the_tunnel_reaches_out_and_an_engine_does_not() -> None:
    files = {file.path.rpartition("/")[2]: file.content.decode() for file in render(planned(proxy=PROXY)).files}
    tunnel, engine = files["llm-appliance-model@kimi.service"], files["llm-appliance-model@tiny.service"]
    assert "PrivateNetwork=yes" in engine
    assert "PrivateNetwork=yes" not in tunnel
    assert "IPAddressDeny" not in tunnel
    assert "ExecStartPost" not in tunnel


@pytest.mark.parametrize(
    "url", ["http://10.0.0.7:8000/v1", "https://llm.corp/v1", "http://127.0.0.1:9000/v1", "https://a.llm.corp:8443/v1"]
)
def test_who_is_named_as_near_is_asked_directly(url: str) -> None:
    found = planned(proxy=PROXY, source=f"remote:{url}#m")
    (service,) = (one for one in found.services if one.model == "kimi")
    assert service.address == url
    assert not service.program


@pytest.mark.parametrize(
    ("url", "told"),
    [("http://10.0.0.7:8000/v1", True), ("https://10.0.0.7/v1", False), ("http://127.0.0.1:8000/v1", False)],
)
def test_a_key_that_leaves_the_machine_unencrypted_is_told(url: str, told: bool) -> None:
    reasons = planned(source=f"remote:{url}#m").reasons
    assert any("leave this machine unencrypted" in one.why for one in reasons) == told


def test_the_key_stands_in_no_file() -> None:
    for file in render(planned()).files:
        assert KEY.encode() not in file.content or file.path in ("deployment.json", "nginx/gateway.json")


def test_the_plan_is_read_again_as_it_was_written() -> None:
    found = planned(proxy=PROXY)
    assert codec.load_json(Deployment, codec.dump_json(found).encode(), source="plan") == found


def test_more_processors_than_there_are_is_an_error() -> None:
    with pytest.raises(HostError, match="16 processors are asked for, 8 are here"):
        plan(
            ApplianceSpec(models=(item(cpus=16),)), (model(),), HOST, LAYOUT, load(), python=PYTHON
        )  # fmt: skip
