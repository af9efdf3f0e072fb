"""Bundles of container images, whoever runs them: made on one server, carried, and installed on another."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from tests.integration import product
from tests.integration.lab import Server
from tests.integration.product import SMOKE
from tests.integration.test_bundle import PLACE, fetch

QUESTION, ANSWER = SMOKE["verify"]["prompt"], SMOKE["verify"]["answer"]
BUNDLE, SECOND, WHOLE = f"{PLACE}/boxed.llmb", f"{PLACE}/second.llmb", f"{PLACE}/whole.llmb"
LOCAL = "lab-base:1"
"""The base that images are built on, where no registry can be reached."""
OTHER = "/srv/second.gguf"
INSTALL = ("llm-appliance", "bundle", "install")
CREATE = ("llm-appliance", "bundle", "create", "--sign", f"{PLACE}/vendor.key", "--runtime", "compose")
BARE = "/root/bare.json"
SERVING = ["llm-appliance-gateway-1", "llm-appliance-smoke-1"]
"""The containers of the built-in model."""


def create(server: Server) -> None:
    """Make a key, the first bundle, which is the same when it is made again, and the file of another model."""
    server.run("llm-appliance", "bundle", "keygen", f"{PLACE}/vendor")
    done = server.run(*CREATE, "-o", BUNDLE, timeout=1200)
    print(done.stderr, done.stdout, flush=True)
    server.run(*CREATE, "-o", f"{PLACE}/again/boxed.llmb", timeout=600)
    server.run("cmp", BUNDLE, f"{PLACE}/again/boxed.llmb")
    server.sh(
        "sed 's/A tiny chat model that shows/A tiny chat model that SHOWS/' "
        f"{product.CHECKOUT}/appliance/smoke/smoke.gguf >{OTHER}"
    )


def describe_bare(server: Server) -> None:
    """Write down a machine like this one that has nothing to run containers with."""
    host = json.loads(server.run("llm-appliance", "detect", "--json").stdout)
    host["data"]["docker"] = {}
    server.write(BARE, json.dumps(host))


def take_away(server: Server, home: Path) -> None:
    """Bring everything that was made here."""
    for name in ("boxed.llmb", "boxed.llmb.install", "second.llmb", "whole.llmb", "whole.llmb.install"):
        fetch(server, f"{PLACE}/{name}", home / name)
    for path in home.glob("*.install"):
        path.chmod(0o755)


def bring(server: Server, home: Path, name: str) -> None:
    """Bring a bundle to a server, and the script beside it."""
    for file in (name, f"{name}.install"):
        server.put(home / file, f"{PLACE}/{file}")


def install(server: Server, bundle: str, *words: str) -> str:
    """Type the first command, and return what it says."""
    process = server.popen(f"{bundle}.install", *words)
    code = process.wait(timeout=600)
    print(process.output, flush=True)
    assert code == 0
    return process.output


def refused_while_a_layer_is_damaged(server: Server, home: Path) -> None:
    """Change one byte near the end of the bundle's largest layer, try, and bring the whole one again."""
    layer = max(payloads(home / "boxed.llmb", "image"), key=lambda one: one["size"])
    place = layer["offset"] + layer["size"] - 7
    server.sh(f"printf X | dd of={BUNDLE} bs=1 seek={place} conv=notrunc status=none")
    done = server.run(f"{BUNDLE}.install", check=False, timeout=300)
    assert (done.code, "damaged in bytes" in done.stderr, "layer-" in done.stderr) == (5, True, True), done
    assert not server.exists("/var/lib/llm-appliance/current")
    server.put(home / "boxed.llmb", BUNDLE)


def payloads(path: Path, kind: str) -> list[dict[str, Any]]:
    """What a bundle's index says of its payloads of a kind."""
    with tarfile.open(path, "r:") as archive:
        stream = archive.extractfile("bundle.json")
        assert stream is not None
        return [one for one in json.load(stream)["payloads"] if one["kind"] == kind]


def without_network(server: Server) -> bool:
    return not any(line.startswith("eth0") for line in server.run("ip", "-br", "link").stdout.splitlines())


def add_second(server: Server, home: Path) -> None:
    """Install the later bundle; its model answers beside the first, after a reboot too."""
    second = home / "second.llmb"
    # What says what an image is, is always carried; nothing that is larger.
    assert max(one["size"] for one in payloads(second, "image")) < 1 << 16
    server.put(second, SECOND)
    server.run(*INSTALL, SECOND, timeout=300)
    for again in (False, True):
        if again:
            server.reboot()
            server.run("llm-appliance", "verify", timeout=120)
        assert product.chat(server, QUESTION, model="second")
        assert product.chat(server, QUESTION) == ANSWER


def inventory(server: Server) -> set[str]:
    """What a server says that it has."""
    return set(json.loads(server.run("llm-appliance", "bundle", "inventory", "--json").stdout)["data"]["keys"])


def chained(row: dict[str, Any]) -> set[str]:
    """The chain IDs of an image's layers, out of what `inspect` says of it."""
    from appliance.bundle.image import chains

    return set(chains([one.removeprefix("sha256:") for one in row["RootFS"]["Layers"]]))


def refused_without_its_base(server: Server) -> None:
    done = server.run(*INSTALL, SECOND, check=False, timeout=120)
    assert (done.code, "builds on what is not on this machine" in done.stderr) == (5, True), done
