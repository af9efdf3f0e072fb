"""What the appliance knows of a server: what it detects, plans for another one, finds broken, and refuses in time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from appliance import codec
from appliance.domain.host import Host
from tests.integration import product
from tests.integration.conftest import Quickstart
from tests.integration.lab import Lab, Server

STAND_IN = "/usr/local/bin/nvidia-smi"
# No GPU here: a program of that name that says what a broken driver's says.
MISMATCH = """#!/bin/sh
# Stand-in for nvidia-smi: the driver was upgraded and the old module is still loaded.
echo 'Failed to initialize NVML: Driver/library version mismatch'
echo 'NVML library version: 550.144'
exit 18
"""
STUCK = "#!/bin/sh\n# Stand-in for nvidia-smi: waits for a GPU that does not answer.\nexec sleep 1000\n"
WEIGHTS = product.ROOT / "appliance/smoke"


@pytest.fixture(scope="module")
def server(lab: Lab, quickstart: Quickstart) -> Iterator[Server]:
    """An installed appliance for all these tests; each leaves it as it found it."""
    assert quickstart.code == 0, quickstart.output
    with product.installed(lab, quickstart.image, "machine") as booted:
        # A saved image keeps whole seconds only, so the weights look as if they had been touched.
        booted.run("llm-appliance", "install", "--offline", timeout=120)
        booted.put(WEIGHTS / "smoke.gguf", "/srv/smoke.gguf", mode="0644")
        yield booted


def told(server: Server, *words: str, code: int = 0) -> dict[str, Any]:
    """Run a command with --json and return its envelope."""
    done = server.run("llm-appliance", *words, "--json", check=False, timeout=120)
    print(f"\n# llm-appliance {' '.join(words)} --json -> {done.code}")
    assert done.code == code, done.stdout + done.stderr
    envelope = json.loads(done.stdout)
    assert isinstance(envelope, dict)
    return envelope


def findings(server: Server, code: int) -> dict[str, dict[str, Any]]:
    """What `doctor` finds, by id."""
    return {found["id"]: found for found in told(server, "doctor", code=code)["data"]["findings"]}


def test_detect_tells_what_the_server_is(server: Server) -> None:
    host = codec.from_data(Host, told(server, "detect")["data"], source="detect")
    assert (host.os, host.os_version, host.init) == ("debian", "12", "systemd")
    assert host.systemd == int(server.run("systemctl", "--version").stdout.split()[1])
    assert host.kernel == server.run("uname", "-r").stdout.strip()
    assert host.root and host.gpus == () and host.drivers == ()
    assert host.machine_cpus >= host.cpus == int(server.run("nproc").stdout)
    assert 8080 in {port.port for port in host.ports}
    assert next(port.holder for port in host.ports if port.port == 8080).startswith("nginx")
    text = server.run("llm-appliance", "detect").stdout
    print(text)
    assert "debian 12" in text and "gpus        none" in text


def test_a_plan_for_another_machine_is_made_from_what_that_one_told(server: Server) -> None:
    host = told(server, "detect")["data"]
    gpus = [
        {
            "vendor": "nvidia", "index": index, "uuid": f"GPU-{index}", "name": "NVIDIA H100 80GB HBM3",
            "memory": 81559 << 20, "memory_free": 81000 << 20, "compute_capability": "9.0",
        }
        for index in range(2)
    ]  # fmt: skip
    host |= {
        "gpus": gpus, "memory": 512 << 30, "memory_available": 500 << 30, "cuda_toolkit": "13.0", "pci": ["nvidia"],
        "drivers": [{"vendor": "nvidia", "version": "580.65.06", "api": "13.0"}],
    }  # fmt: skip
    server.write("/tmp/h100.json", json.dumps(host))
    add = ("add-model", "large", "/srv/smoke.gguf", "--dry-run", "--host", "/tmp/h100.json")
    large, smoke = told(server, *add)["data"]["deployment"]["services"]
    assert (large["model"], large["gpus"]) == ("large", ["GPU-0"])
    assert large["accelerator"].startswith("cuda13")
    assert (smoke["gpus"], smoke["accelerator"]) == ([], "cpu"), "the built-in model needs no GPU anywhere"
    text = server.run("llm-appliance", "plan", "--host", "/tmp/h100.json").stdout
    print(text)
    assert "nvidia:1" in text and "another machine" in text
    assert server.run("llm-appliance", "install").stdout.startswith("changed=0"), "planning elsewhere changes nothing"
    server.write("/tmp/half.json", '{"os": "debian"')
    assert told(server, "plan", "--host", "/tmp/half.json", code=3)["errors"][0]["hint"]


def test_an_installed_appliance_has_nothing_for_the_doctor(server: Server) -> None:
    found = findings(server, 0)
    assert not [item for item in found.values() if item["severity"] == "error"], found
    assert server.run("llm-appliance", "doctor", "--list").stdout.count("\n") > 50


def test_the_doctor_finds_what_was_broken_and_its_own_words_mend_it(server: Server) -> None:
    unit = "/etc/systemd/system/llm-appliance-model@smoke.service"
    server.run("rm", unit)
    found = findings(server, 4)
    assert found["file-missing"]["severity"] == "error" and unit in found["file-missing"]["subject"]
    for line in found["file-missing"]["remedy"]:
        server.sh(line, timeout=120)
    assert "file-missing" not in findings(server, 0)


def test_a_model_file_that_may_not_be_read_is_named_before_anything_is_changed(server: Server) -> None:
    server.sh("useradd -m bob && install -o bob -m 600 /srv/smoke.gguf /home/bob/model.gguf && chmod 700 /home/bob")
    done = server.run(
        "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
        "llm-appliance", "add-model", "bobs", "/home/bob/model.gguf", "--dry-run", check=False,
    )  # fmt: skip
    assert done.code in (4, 5), done
    assert "/home/bob" in done.stderr and "hint" in done.stderr
    server.sh("userdel -r bob")


def test_a_broken_driver_is_told_with_its_remedy_and_stops_no_server_that_needs_no_gpu(server: Server) -> None:
    server.write(STAND_IN, MISMATCH, mode="0755")
    driver = told(server, "detect")["data"]["drivers"][0]
    assert driver["vendor"] == "nvidia" and "mismatch" in driver["failure"] and driver["remedy"]
    assert findings(server, 4)["gpu-driver-broken"]["remedy"]
    done = server.run("llm-appliance", "install", timeout=120)
    assert "changed=0" in done.stdout
    assert "gpu-driver-broken" in done.stderr, "it is said all the same"
    server.run("rm", STAND_IN)


def test_a_stuck_tool_is_named_and_everything_else_is_told(server: Server) -> None:
    server.write(STAND_IN, STUCK, mode="0755")
    host = told(server, "detect")["data"]
    assert "nvidia-smi" in host["silent"]
    assert host["os"] == "debian" and host["ports"]
    assert server.sh("pgrep -f 'sleep 1000' || true").stdout == "", "it was ended"
    server.run("rm", STAND_IN)


def test_what_does_not_fit_is_refused_with_numbers_and_a_way_out_that_fits(server: Server) -> None:
    add = ("llm-appliance", "add-model", "large", "/srv/smoke.gguf")
    done = server.run(*add, "--context", "16000000", "--parallel", "8", check=False)
    print(done.stderr)
    assert done.code == 4 and "GiB" in done.stderr
    hint = done.stderr.partition("hint:")[2].strip()
    assert hint.startswith("try --"), done.stderr
    words = hint.removeprefix("try ").split()
    asked = {"--context": "16000000", "--parallel": "8"} | {words[0]: words[1]}
    planned = server.run(*add, *(word for pair in asked.items() for word in pair), "--dry-run", "--json", check=False)
    assert planned.code == 0, planned.stdout
    strict = server.run(*add, "--gpus", "1", check=False)
    assert strict.code == 4 and "GPU" in strict.stderr


def test_an_ignored_finding_must_be_one(server: Server) -> None:
    done = server.run("llm-appliance", "install", "--ignore", "port-takn", check=False)
    assert done.code == 2 and "port-taken" in done.stderr
