"""What systemd itself thinks of our units: one of each kind, rendered for machines of the plan table."""

from __future__ import annotations

import re

from appliance import catalog
from appliance.domain.deployment import Deployment
from appliance.domain.spec import ApplianceSpec, ModelSpec
from appliance.plan import plan
from appliance.render.pages import render
from appliance.runtimes.systemd import GATEWAY, UMBRELLA, UNITS, unit
from tests.golden.plans.machines import hosts, models
from tests.golden.plans.page import LAYOUT, PYTHON
from tests.integration.lab import Server

ENGINE_MOST, GATEWAY_MOST = 1.0, 1.5
"""Exposure: 0 is closed and 10 is open."""
CASES = {
    "llama.cpp on the CPU": ("cpu-16", "smoke", "auto"),
    "llama.cpp on an NVIDIA GPU": ("l4", "qwen3-8b-q4", "auto"),
    "vLLM on an NVIDIA GPU": ("h100", "qwen3-8b", "vllm"),
    "vLLM on two NVIDIA GPUs": ("h100x2", "qwen3-32b", "vllm"),
    "vLLM on an AMD GPU": ("mi300x8", "qwen3-8b", "vllm"),
    "SGLang, on a port": ("h100", "qwen3-8b", "sglang"),
    "LMDeploy, on a port": ("h100", "qwen3-8b", "lmdeploy"),
    "transformers, on a port": ("cpu-64", "qwen3-0.6b", "transformers"),
}


def units(machine: str, name: str, engine: str, port: int) -> tuple[Deployment, dict[str, bytes]]:
    """Plan a model there and return the plan with its units."""
    chosen = (models()[name],)
    items = (ModelSpec(name=name, source=chosen[0].source, engine=engine),)
    spec = ApplianceSpec(runtime="systemd", port=port, models=items)
    deployment = plan(spec, chosen, hosts()[machine], LAYOUT, catalog.load(), python=PYTHON)
    changes = render(deployment)
    found = {file.path.rpartition("/")[2]: file.content for file in changes.files if file.path.startswith(UNITS)}
    return deployment, found


def exposure(server: Server, name: str, content: bytes) -> float:
    """Ask systemd's own judge."""
    server.write(f"/tmp/units/{name}", content.decode())
    said = server.run("systemd-analyze", "security", "--offline=true", "--no-pager", f"/tmp/units/{name}").stdout
    found = re.search(r"Overall exposure level for .*: ([0-9.]+) ", said)
    assert found, said
    return float(found[1])


def test_no_unit_is_more_open_than_it_has_to_be(server: Server) -> None:
    print()
    for case, (machine, model, engine) in CASES.items():
        deployment, found = units(machine, model, engine, 8080)
        (service,) = deployment.services
        assert bool(service.port) == ("on a port" in case)
        level = exposure(server, unit(service.name), found[unit(service.name)])
        print(f"{level:4.1f}  {case}")
        assert level <= ENGINE_MOST, case
    for port in (8080, 443):
        found = units("cpu-16", "smoke", "auto", port)[1]
        level = exposure(server, GATEWAY, found[GATEWAY])
        print(f"{level:4.1f}  the gateway on port {port}")
        assert level <= GATEWAY_MOST
    umbrella = units("cpu-16", "smoke", "auto", 8080)[1][UMBRELLA]
    print(f"{exposure(server, UMBRELLA, umbrella):4.1f}  the umbrella: two commands of root's, nothing stays")
