"""The gateway's own files: nginx's configuration, its Lua, and the routes that Lua reads."""

import json
from dataclasses import replace
from typing import Any

import pytest

from appliance import gateway, resources
from appliance.domain.changes import Page
from appliance.domain.deployment import Deployment, Remote
from appliance.domain.spec import GatewaySpec, Serving, Tuning
from tests.unit.samples import CONTAINER, GIB, deployment, item, layout

TEMPLATES = resources.data("templates/nginx")


def page(plan: Deployment, name: str) -> Page:
    return next(one for one in gateway.pages(plan) if one.path == f"nginx/{name}")


def routes(plan: Deployment) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gateway.routes(plan))
    return found


def test_each_model_is_a_route_to_its_replicas() -> None:
    document = routes(deployment(item("b", replicas=2), item("a")))
    assert document["version"] == 1
    assert {name: model["replicas"] for name, model in document["models"].items()} == {
        "a": [{"name": "a", "address": "unix:/run/llm-appliance/a/engine.sock"}],
        "b": [
            {"name": "b_1", "address": "unix:/run/llm-appliance/b_1/engine.sock"},
            {"name": "b_2", "address": "unix:/run/llm-appliance/b_2/engine.sock"},
        ],
    }
    assert {name: model["upstream_model"] for name, model in document["models"].items()} == {"a": "a", "b": "b"}


def test_a_model_is_asked_what_its_engine_knows() -> None:
    plan = deployment(item("a"), item("b", serving=Serving(expose=("tokenize",))))
    paths = {name: model["paths"] for name, model in routes(plan)["models"].items()}
    assert "/v1/messages" in paths["a"]
    assert "/v1/images/generations" not in paths["a"]
    assert set(paths["b"]) - set(paths["a"]) == {"/tokenize"}


def test_on_loopback_the_names_that_lead_here_are_told() -> None:
    plan = deployment(item("a"))
    named = replace(plan, spec=replace(plan.spec, gateway=GatewaySpec(hosts="Chat.example,chat.lan")))
    any_name = replace(plan, spec=replace(plan.spec, gateway=GatewaySpec(hosts="*")))
    outside = replace(plan, gateway=replace(plan.gateway, host="0.0.0.0"))  # noqa: S104
    assert [routes(one).get("hosts") for one in (plan, named, any_name, outside)] == [
        [],
        ["chat.example", "chat.lan"],
        None,
        None,
    ]


def test_the_operator_says_how_requests_are_handed_out() -> None:
    serving = Serving(
        balance="prefix", limit=3, queue=0, retry="before_first_byte", fallback="b", aliases=("gpt-4o", "small")
    )
    document = routes(deployment(item("a", serving=serving), item("b")))
    model = document["models"]["a"]
    assert (model["balance"], model["queue"], model["retry"], model["fallback"]) == (
        "prefix",
        0,
        "before_first_byte",
        "b",
    )
    assert [replica["limit"] for replica in model["replicas"]] == [3]
    assert document["aliases"] == {"gpt-4o": "a", "small": "a"}
    plain = document["models"]["b"]
    assert {"queue", "retry", "fallback", "remote"}.isdisjoint(plain)
    assert "limit" not in plain["replicas"][0]


def test_an_engine_that_queues_badly_gets_no_more_than_it_works_on() -> None:
    document = routes(deployment(item("a", engine="llama-cpp-python")))
    assert document["models"]["a"]["replicas"][0]["limit"] == 1


def test_everybody_may_come_in_only_where_the_operator_says_so() -> None:
    plan = deployment(item("a"))
    assert routes(plan)["open"] is True
    public = replace(plan, gateway=replace(plan.gateway, open=False))
    assert routes(public)["open"] is False
    assert routes(plan)["keys"] == "/etc/llm-appliance/keys.json"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "https://api.example.cn/v1",
            ("https", "api.example.cn", 443, "api.example.cn", "/v1", "https-api.example.cn-443"),
        ),
        ("http://10.0.0.7:8000/x/v1", ("http", "10.0.0.7", 8000, "10.0.0.7:8000", "/x/v1", "http-10.0.0.7-8000")),
        ("https://[::1]:8443", ("https", "::1", 8443, "[::1]:8443", "", "https---1-8443")),
    ],
)
def test_a_provider_is_known_by_its_address(url: str, expected: tuple[object, ...]) -> None:
    plan = deployment(item("a"))
    remote = Remote(url=url, model="there", key_file="/etc/llm-appliance/secrets/a.key")
    route = replace(plan.gateway.routes[0], remote=remote)
    plan = replace(plan, gateway=replace(plan.gateway, routes=(route,)))
    found = routes(plan)["models"]["a"]["remote"]
    assert tuple(found[key] for key in ("scheme", "host", "port", "authority", "path", "upstream")) == expected
    names = page(plan, "nginx.conf").names
    assert names["remotes"] == [{"upstream": expected[-1]}]
    assert bool(names["ca_file"]) == url.startswith("https")


def test_all_lua_is_there() -> None:
    there = {str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.lua")}
    assert there == set(gateway.LUA)


def test_all_of_the_status_page_is_there() -> None:
    assert {f"page/{path.name}" for path in (TEMPLATES / "page").iterdir()} == set(gateway.PAGE)
    for path in (TEMPLATES / "page").iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, path
        assert "https://" not in text, path


def shown(plan: Deployment) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gateway.shown(plan))
    return found


def test_the_status_page_is_told_what_was_planned() -> None:
    plan = deployment(item("a", replicas=2), item("v", tuning=Tuning(task="embed")))
    document = shown(plan)
    assert document["on"] is True
    assert document["models"]["a"]["engine"] == "llama-cpp 1.0"
    assert document["models"]["v"]["task"] == "embed"
    assert set(document["models"]["a"]["loads"]) == {"a_1", "a_2"}
    ram = {one.name: one.memory for one in plan.services if one.model == "a"}
    assert {name: sum(loads.values()) for name, loads in document["models"]["a"]["loads"].items()} == ram
    assert document["devices"] == [{"device": "ram", "name": "RAM", "memory": 10 * GIB}]


def test_the_status_page_can_be_left_out() -> None:
    plan = deployment(item("a"))
    without = replace(plan, spec=replace(plan.spec, gateway=GatewaySpec(page=False)))
    assert shown(without)["on"] is False
    assert [one.path for one in gateway.pages(without) if one not in gateway.pages(plan)] == ["nginx/page.json"]


def test_engines_that_have_counters_say_where() -> None:
    document = routes(deployment(item("a"), item("b", engine="llama-cpp-python")))
    assert document["models"]["a"]["metrics"] == "/metrics"
    assert "metrics" not in document["models"]["b"]


def test_each_engine_is_asked_for_its_own_health_page() -> None:
    plan = deployment(item("a", engine="llama-cpp-python"), item("b"))
    assert {route.name: route.health for route in plan.gateway.routes} == {"a": "/v1/models", "b": "/health"}


def test_the_order_of_the_models_does_not_change_the_routes() -> None:
    first, second = deployment(item("a"), item("b")), deployment(item("b"), item("a"))
    assert gateway.routes(first) == gateway.routes(second)


def test_a_model_changes_the_routes_and_nothing_else() -> None:
    one, two = deployment(item("a")), deployment(item("a"), item("b"))
    assert [page.path for page in gateway.pages(two) if page not in gateway.pages(one)] == [
        "nginx/gateway.json", "nginx/page.json",
    ]  # fmt: skip


def test_the_address_is_as_nginx_writes_it() -> None:
    plan = deployment(port=81)
    assert page(plan, "nginx.conf").names["listen"] == "127.0.0.1:81"
    plan = replace(plan, spec=replace(plan.spec, host="::1"))
    assert page(plan, "nginx.conf").names["listen"] == "[::1]:81"


def test_requests_are_logged_where_the_runtime_looks() -> None:
    assert page(deployment(), "nginx.conf").names["access_log"] == "/var/log/llm-appliance/gateway/access.log"
    plan = deployment(host=CONTAINER, where=layout("/p"))
    assert page(plan, "nginx.conf").names["access_log"] == "/dev/stdout"


def test_the_configuration_is_checked_where_it_was_written_as_who_will_run_it() -> None:
    plan = deployment()
    (command,) = gateway.check(plan, "/g/7")
    assert command.argv[0] == plan.gateway.program
    assert command.argv[-1] == "-t"
    assert command.argv[command.argv.index("-p") + 1] == "/g/7/nginx/"
    assert (command.user, command.group) == ("llm-gateway", "llm-appliance")
    assert dict(command.env) == {"LD_LIBRARY_PATH": plan.gateway.ld_library_path}
