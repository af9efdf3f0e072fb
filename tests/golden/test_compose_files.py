"""compose.yaml for every machine of the plan table, as it would be with Docker there: one page each, to be read.

An integration test lets Compose itself read them all.
"""

from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import catalog
from appliance.domain.deployment import Deployment
from appliance.domain.host import Docker, Host
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.errors import HostError
from appliance.plan import plan
from appliance.render.pages import render
from tests.golden.plans.machines import hosts, models, table
from tests.golden.plans.page import LAYOUT, PYTHON, TOGETHER

HERE = Path(__file__).parent / "compose"
NAMES = [row.name for row in table().hosts]


def with_docker(host: Host) -> Host:
    """Return the host with Docker: CDI on Ubuntu 24.04, the container toolkit elsewhere."""
    nvidia = any(gpu.vendor == "nvidia" for gpu in host.gpus)
    cdi = ("nvidia.com/gpu",) if nvidia and host.os_version == "24.04" else ()
    runtimes = ("nvidia", "runc") if nvidia and not cdi else ("runc",)
    docker = Docker(
        client="28.3.0", server="28.3.0", compose="2.38.2", runtimes=runtimes, cdi=cdi,
        toolkit="1.17.8" if nvidia else "",
    )  # fmt: skip
    return replace(host, docker=docker, root=True, groups=(("render", 105), ("video", 44)))


@cache
def deployment(machine: str) -> Deployment:
    """Plan as many of the models as the machine holds."""
    *fewer, fewest = (TOGETHER, TOGETHER[:2], TOGETHER[:1], TOGETHER[1:2], ("smoke",))
    for names in fewer:
        with suppress(HostError):
            return planned(machine, names)
    return planned(machine, fewest)


def planned(machine: str, names: tuple[str, ...]) -> Deployment:
    chosen = tuple(models()[name] for name in names)
    items = tuple(ModelSpec(name=model.name, source=model.source) for model in chosen)
    spec = ApplianceSpec(runtime="compose", models=items)
    return plan(spec, chosen, with_docker(hosts()[machine]), LAYOUT, catalog.load(), python=PYTHON)


def compose_file(machine: str) -> str:
    """Return the file without what changes with every byte of a recipe, the tags of images of ours."""
    (file,) = (one for one in render(deployment(machine)).files if one.path == "compose.yaml")
    text = file.content.decode()
    for artifact in deployment(machine).artifacts:
        if artifact.recipe:
            text = text.replace(artifact.ref, artifact.ref[: -len("0123456789ab")] + "DIGEST")
    head, _, body = text.partition("\n")
    return head[: head.index("(")] + head[head.index(")") + 2 :] + "\n" + body


def services(machine: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(compose_file(machine))["services"]
    return found


def test_there_is_a_file_for_each_machine_and_no_other(update: bool) -> None:
    kept = {path.stem for path in HERE.glob("*.yaml")}
    if update:
        for name in kept - {*NAMES}:
            (HERE / f"{name}.yaml").unlink()
        return
    assert kept == {*NAMES}


@pytest.mark.parametrize("machine", NAMES)
def test_a_file_comes_out_as_it_is_kept(machine: str, update: bool) -> None:
    path, wanted = HERE / f"{machine}.yaml", compose_file(machine)
    if update:
        path.write_text(wanted)
    assert path.read_text() == wanted, f"compose/{machine}.yaml; --update-golden keeps it"


@pytest.mark.parametrize("machine", NAMES)
def test_every_container_is_hardened(machine: str) -> None:
    for name, service in services(machine).items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] in ("60700:60700", "60701:60700"), name
        assert service["pids_limit"] > 0 and service["mem_limit"], name
        assert not {"privileged", "cap_add", "ipc", "pid", "env_file"} & {*service}, name
        assert service["pull_policy"] == "never" and service["restart"] == "unless-stopped", name
        assert service["logging"]["options"]["max-size"] == "20m", name
        for volume in service["volumes"]:
            assert not volume["source"].endswith("docker.sock"), name
            writable = (f"/sockets/{name.removesuffix('_relay')}", f"{LAYOUT.cache}/{name}")
            assert volume.get("read_only") or volume["source"].endswith(writable), f"{name}: {volume}"
        if name != "gateway":
            assert "ports" not in service and "networks" not in service, name
            assert service["network_mode"] in ("none", f"service:{name}_relay"), name


@pytest.mark.parametrize("machine", NAMES)
def test_gpus_are_handed_over_in_one_way_and_only_where_they_are_used(machine: str) -> None:
    for service in deployment(machine).services:
        entry = services(machine)[service.name]
        asked = "deploy" in entry or "devices" in entry
        assert asked == bool(service.gpus), service.name
        assert not ("deploy" in entry and "devices" in entry), service.name
        if "deploy" in entry:
            (request,) = entry["deploy"]["resources"]["reservations"]["devices"]
            assert tuple(request["device_ids"]) == service.gpus
        elif service.vendor == "nvidia":
            assert len(entry["devices"]) == len(service.gpus)
            assert all(device.startswith("nvidia.com/gpu=") for device in entry["devices"])


@pytest.mark.parametrize("machine", NAMES)
def test_one_argv_for_all_runtimes(machine: str) -> None:
    """What follows the program's name is what a unit of systemd would say."""
    for service in deployment(machine).services:
        words = services(machine)[service.name]["entrypoint"]
        assert service.program in words, service.name
        for word in (service.weights, str(service.port)) if service.port else (service.weights, service.socket):
            assert any(word in part for part in words), f"{service.name}: {word}"
