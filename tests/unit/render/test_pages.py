"""A deployment becomes bytes: the same plan gives the same files, and a change touches only what it is about."""

import json
from dataclasses import replace

import pytest

from appliance import codec, resources
from appliance.domain.changes import File, Page
from appliance.domain.deployment import Deployment
from appliance.errors import ApplianceError, SpecError
from appliance.render import pages
from appliance.render.pages import render
from tests.unit.samples import CONTAINER, GPU_CATALOG, deployment, gpu, gpu_host, item, layout, safetensors


def contents(plan: Deployment) -> dict[str, bytes]:
    return {file.path: file.content for file in render(plan).files}


def changed(before: Deployment, after: Deployment) -> set[str]:
    one, two = contents(before), contents(after)
    return {path.rpartition("/")[2] for path in one.keys() | two.keys() if one.get(path) != two.get(path)}


def test_the_plan_itself_is_the_first_file() -> None:
    plan = deployment()
    first = render(plan).files[0]
    assert first.path == "deployment.json"
    assert codec.load_json(Deployment, first.content, source="x") == plan


def test_the_same_plan_gives_the_same_bytes() -> None:
    assert render(deployment()) == render(deployment())


def test_no_path_is_written_twice() -> None:
    for plan in (deployment(item("a"), item("b", replicas=2)), deployment(host=CONTAINER, where=layout("/p"))):
        paths = [file.path for file in render(plan).files]
        assert len(set(paths)) == len(paths)


def test_the_operators_files_pass_through_byte_for_byte() -> None:
    mine = File(path="/etc/llm-appliance/appliance.yaml", content=b"# mine \xff\n", mode=0o640)
    assert mine in render(deployment(), (mine,)).files


def test_another_model_does_not_change_the_units_of_this_one() -> None:
    assert changed(deployment(item("a")), deployment(item("a"), item("b"))) == {
        "deployment.json", "gateway.json", "page.json", "llm-appliance.service", "llm-appliance-model@b.service",
    }  # fmt: skip


def test_an_option_changes_the_units_of_its_model_only() -> None:
    before = deployment(item("a"), item("b"))
    after = deployment(item("a"), item("b", options=(("temp", "1"),)))
    assert changed(before, after) == {"deployment.json", "llm-appliance-model@b.service"}


def test_another_port_restarts_no_model() -> None:
    names = changed(deployment(), deployment(port=8081))
    assert "nginx.conf" in names
    assert not [name for name in names if "model@" in name]


def test_below_a_prefix_nothing_is_written_elsewhere() -> None:
    where = layout("/home/ann/llm")
    for file in render(deployment(host=CONTAINER, where=where)).files:
        assert not file.path.startswith("/"), file.path


def test_a_name_that_a_template_misses_is_an_error_that_says_where() -> None:
    page = Page(path="x", template="systemd/llm-appliance.service.j2", names={})
    with pytest.raises(ApplianceError, match=r"^template systemd/llm-appliance.service.j2: 'units' is undefined$"):
        pages._file(page)


def test_a_file_that_is_no_template_is_taken_as_it_is() -> None:
    content = contents(deployment())["nginx/gateway.lua"]
    assert content == (resources.data("templates") / "nginx/gateway.lua").read_bytes()


def test_what_no_configuration_file_can_hold_is_refused_before_anything_is_written() -> None:
    plan = deployment(item("a"))
    broken = replace(plan, services=tuple(replace(one, weights="/store/a\nb.gguf") for one in plan.services))
    with pytest.raises(SpecError, match="control character"):
        render(broken)


def test_every_rendered_file_says_which_plan_it_is_from() -> None:
    for path, content in contents(deployment()).items():
        if path.endswith((".service", ".conf")) or "logrotate" in path:
            assert b"Made by llm-appliance (" in content.splitlines()[0], path


def test_an_engine_that_knows_ports_only_is_led_to_from_its_socket_once_it_is_ready() -> None:
    wanted = item("a", engine="sglang")
    plan = deployment(wanted, facts=safetensors(), host=gpu_host(gpu()), catalog=GPU_CATALOG)
    engine, relay = json.loads(contents(plan)["launch/a.json"])
    assert "sglang.launch_server" in engine["argv"]
    assert engine["ready"] == "127.0.0.1:18100/health"
    assert relay["argv"] == [
        "{python}", "-m", "appliance.system.relay", "/run/llm-appliance/a/engine.sock", "127.0.0.1:18100"
    ]  # fmt: skip
    elsewhere = deployment(
        wanted, facts=safetensors(), host=replace(gpu_host(gpu()), systemd=0, init="sleep"), catalog=GPU_CATALOG
    )
    assert "launch/a.json" not in contents(elsewhere)
