"""An engine that is a Python environment: made by uv, carried in a bundle, started elsewhere under another path."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import acquire, report
from appliance.acquire.bundle import CHUNK, Archive, Bundle, open_bundle, pack, slot
from appliance.acquire.source import Source
from appliance.bundle import cargo
from appliance.bundle.index import SCHEMA, Component, Index, Target
from appliance.domain.deployment import Deployment
from appliance.system.machine import RealMachine
from tests.integration import test_wheels as wheels

QUIET = report.Plain(open(os.devnull, "w"))
indexes, deployment = wheels.indexes, wheels.deployment
TARGET = Target(os="debian", os_version="12", arch="x86_64", glibc="2.36", python="3.11")


def carry(environment: Path, target: Path) -> Path:
    """Write a bundle with this one directory in it."""
    directory = pack.look(environment)
    plan = cargo.dump(cargo.Cargo(specs=(), models=(), artifacts=(wheels.ARTIFACT,)))
    bar = QUIET.bar("", 0)
    room = slot((len(plan), *directory.sizes), 2, CHUNK)
    with Archive(target, slot=room, mark="", split=0, chunk=CHUNK, base=frozenset(), bar=bar) as archive:
        digest = archive.add("plan", plan)
        parts = (
            Component(kind="document", name="plan", key=digest, payloads=(digest,), files=("plan.json",)),
            Component(
                kind="engine", name="engine", key=wheels.ARTIFACT.digest, payloads=(pack.add(archive, directory),),
                unpacked=directory.unpacked,
            ),
        )  # fmt: skip
        archive.finish(
            lambda payloads, base, size: Index(
                schema=SCHEMA, name="site", serial=0, appliance="0.1.0", target=TARGET, size=size, payloads=payloads,
                components=parts, base=base,
            ),
            None,
        )  # fmt: skip
    return target


def test_an_environment_starts_where_it_was_carried_to(
    indexes: tuple[Path, Path], deployment: Deployment, tmp_path: Path
) -> None:
    made = wheels.make(wheels.ARTIFACT, deployment)
    bundle = carry(made, tmp_path / "site.llmb")
    made.rename(tmp_path / "away")  # nothing may lead back to where it was made
    elsewhere = replace(
        deployment,
        layout=replace(deployment.layout, state=str(tmp_path / "elsewhere")),
        artifacts=(wheels.ARTIFACT,),
    )
    with open_bundle(bundle, allow_unsigned=True) as reader:
        carried = Bundle(reader, elsewhere.layout.state, ())
        acquire.engines(elsewhere, RealMachine(), Source(offline=True, bundle=carried), QUIET)
    target = acquire.home(wheels.ARTIFACT, elsewhere)
    assert [wheels.installed(target, name) for name in ("engine", "torch", "small")] == ["1.0", "2.13.0", "3.0"]
    done = subprocess.run((str(target / "bin/engine-version"),), capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "1.0"
    said = subprocess.run(
        (str(target / "bin/python"), "-c", "import json, sys; print(json.dumps(sys.path))"),
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert str(target) in said.stdout
    assert str(made) not in "".join(json.loads(said.stdout))
    assert (target / "requirements.txt").read_bytes() == (tmp_path / "away/requirements.txt").read_bytes()


def test_where_there_is_neither_network_nor_the_engine_it_says_so(
    indexes: tuple[Path, Path], deployment: Deployment, tmp_path: Path
) -> None:
    made = wheels.make(wheels.ARTIFACT, deployment)
    bundle = carry(made, tmp_path / "site.llmb")
    other = replace(wheels.ARTIFACT, digest="e" * 64)
    elsewhere = replace(deployment, layout=replace(deployment.layout, state=str(tmp_path / "x")), artifacts=(other,))
    with open_bundle(bundle, allow_unsigned=True) as reader:
        carried = Bundle(reader, elsewhere.layout.state, ())
        with pytest.raises(Exception, match="--offline forbids"):
            acquire.engines(elsewhere, RealMachine(), Source(offline=True, bundle=carried), QUIET)
