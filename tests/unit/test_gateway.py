"""The gateway's own files: nginx's configuration, its Lua, and the routes that Lua reads."""

import json
from dataclasses import replace

from appliance import gateway
from appliance.domain.changes import Page
from appliance.domain.deployment import Deployment
from tests.unit.samples import CONTAINER, deployment, item, layout


def page(plan: Deployment, name: str) -> Page:
    return next(one for one in gateway.pages(plan) if one.path == f"nginx/{name}")


def test_each_model_is_a_route_to_its_replicas() -> None:
    plan = deployment(item("b", replicas=2), item("a"))
    assert json.loads(gateway.routes(plan.gateway)) == {
        "version": 1,
        "models": {
            "a": {
                "upstream_model": "a",
                "health": "/health",
                "replicas": [{"name": "a", "address": "unix:/run/llm-appliance/a/engine.sock"}],
            },
            "b": {
                "upstream_model": "b",
                "health": "/health",
                "replicas": [
                    {"name": "b_1", "address": "unix:/run/llm-appliance/b_1/engine.sock"},
                    {"name": "b_2", "address": "unix:/run/llm-appliance/b_2/engine.sock"},
                ],
            },
        },
    }


def test_each_engine_is_asked_for_its_own_health_page() -> None:
    plan = deployment(item("a", engine="llama-cpp-python"), item("b"))
    assert {route.name: route.health for route in plan.gateway.routes} == {"a": "/v1/models", "b": "/health"}


def test_the_order_of_the_models_does_not_change_the_routes() -> None:
    first, second = deployment(item("a"), item("b")), deployment(item("b"), item("a"))
    assert gateway.routes(first.gateway) == gateway.routes(second.gateway)


def test_a_model_changes_the_routes_and_nothing_else() -> None:
    one, two = deployment(item("a")), deployment(item("a"), item("b"))
    assert [page.path for page in gateway.pages(two) if page not in gateway.pages(one)] == ["nginx/gateway.json"]


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
