"""Somebody else's engine: one module, one row of a catalog, one entry point; it is planned for, installed and served."""

import json
import zipfile
from pathlib import Path

from tests.integration import product
from tests.integration.lab import Server

MODULE = Path(__file__).parent / "new_engine/parrot.py"
ROW = """\
- engine: parrot
  version: 1.0.0
  accelerator: cpu
  arch: [x86_64, aarch64]
  source: its own wheel
"""
ABOUT = "parrot-1.0.0.dist-info"
FILES = {
    "parrot.py": MODULE.read_text(),
    f"{ABOUT}/METADATA": "Metadata-Version: 2.1\nName: parrot\nVersion: 1.0.0\n",
    f"{ABOUT}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{ABOUT}/entry_points.txt": "[llm_appliance.engines]\nparrot = parrot\n",
}
"""All that its wheel holds."""
PIP = "/opt/llm-appliance/venv/bin/pip"


def wheel(directory: Path) -> Path:
    path = directory / "parrot-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
        archive.writestr(f"{ABOUT}/RECORD", "".join(f"{name},,\n" for name in (*FILES, f"{ABOUT}/RECORD")))
    return path


def appliance_files(server: Server) -> str:
    words = "cd /opt/llm-appliance/venv/lib/python3*/site-packages/appliance && find . -type f ! -name '*.pyc' | sort"
    return server.run("sh", "-c", f"{words} | xargs sha256sum").stdout


def test_a_stranger_s_engine_is_one_module_a_row_and_an_entry_point(appliance: Server, tmp_path: Path) -> None:
    before = appliance_files(appliance)
    assert "parrot" not in appliance.run("llm-appliance", "catalog", "list").stdout
    built = wheel(tmp_path)
    appliance.put(built, f"/root/{built.name}")
    appliance.run(PIP, "install", "--quiet", "--no-index", "--no-deps", f"/root/{built.name}", timeout=120)
    appliance.run("llm-appliance", "catalog", "export", "-o", "/root/catalog.yaml")
    text = appliance.run("cat", "/root/catalog.yaml").stdout
    (tmp_path / "catalog.yaml").write_text(text.replace("\nreleases:\n", f"\nreleases:\n{ROW}"))
    appliance.put(tmp_path / "catalog.yaml", "/root/catalog.yaml")

    gguf = f"{product.CHECKOUT}/appliance/smoke/smoke.gguf"
    words = ("add-model", "polly", gguf, "--engine", "parrot", "--catalog", "/root/catalog.yaml")
    done = json.loads(appliance.run("llm-appliance", *words, "--json", timeout=300).stdout)
    print(done["data"]["checks"])
    assert product.chat(appliance, "Who is there?", model="polly") == "Who is there? Squawk!"
    assert product.chat(appliance, "Hello.", model="polly", path="/polly/v1") == "Hello. Squawk!"
    assert "parrot 1.0.0" in appliance.run("llm-appliance", "status").stdout
    # It knows ports only: its own is one that nobody else on the machine reaches.
    port = appliance.sh(
        "grep -ohE '127.0.0.1:181[0-9]{2}' /var/lib/llm-appliance/current/launch/polly.json"
    ).stdout.split()[0]
    assert appliance.run("curl", "-s", f"http://{port}/health", check=False).code == 7
    knock = ("curl", "-fsS", "--unix-socket", "/run/llm-appliance/polly/engine.sock", "http://engine/health")
    appliance.run(*knock)
    assert appliance.run(*knock, user="nobody", check=False).code == 7
    assert appliance_files(appliance) == before

    # With the row in the catalog that holds, every other verb knows it, too.
    appliance.run("llm-appliance", "catalog", "update", "/root/catalog.yaml")
    assert "parrot" in appliance.run("llm-appliance", "catalog", "list").stdout
    again = json.loads(appliance.run("llm-appliance", "install", "--json", timeout=300).stdout)
    assert again["data"]["changed"] == 0
    refused = appliance.run(
        "llm-appliance", "add-model", "other", gguf, "--engine", "parrot", "--seed", "7", check=False
    )
    assert refused.code != 0
    assert "parrot" in refused.stderr
    appliance.run("llm-appliance", "remove-model", "polly", timeout=120)

    # A kept catalog that nobody can read stops no verb that does not choose.
    appliance.run("sh", "-c", "echo '{' > /var/lib/llm-appliance/catalog.json")
    for verb in ("status", "stop", "start", "restart"):
        appliance.run("llm-appliance", verb, timeout=120)
    told = appliance.run("llm-appliance", "install", check=False)
    assert told.code in (3, 4)
    assert "llm-appliance catalog update --undo" in told.stderr
    appliance.run("llm-appliance", "catalog", "update", "--undo")
    appliance.run("llm-appliance", "install", timeout=300)
