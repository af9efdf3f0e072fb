"""Machines on which all is well; a test changes what it is about."""

from dataclasses import replace
from typing import Any

from appliance import doctor
from appliance.doctor.access import Account, Step, Trail
from appliance.doctor.facts import Facts, Installed
from appliance.domain.changes import Record, ServiceState
from appliance.domain.finding import Finding
from appliance.domain.host import Docker, Driver, Gpu, Host
from appliance.domain.spec import ApplianceSpec, ModelSpec
from tests.unit.samples import GIB, HOST, LAYOUT, deployment

SOUND = replace(HOST, swap=4 * GIB, tools=(("apt-get", "/usr/bin/apt-get"), ("dpkg-deb", "/usr/bin/dpkg-deb")))
WORKS = Driver(vendor="nvidia", version="580.95.05", api="13.0", module="open")
CUDA = replace(
    SOUND,
    gpus=tuple(
        Gpu(
            vendor="nvidia", index=index, uuid=f"GPU-{index}", name="NVIDIA L40S", memory=48 * GIB,
            memory_free=47 * GIB, compute_capability="8.9", links=("X", "SYS") if index == 0 else ("SYS", "X"),
        )
        for index in range(2)
    ),
    drivers=(WORKS,),
    modules=("nvidia", "nvidia_modeset", "nvidia_uvm"),
    pci=("nvidia",),
    docker=Docker(client="28.5", server="28.5", compose="2.40", runtimes=("runc", "nvidia"), toolkit="1.18"),
)  # fmt: skip
"""Two GPUs that work, also in containers."""
SYSTEMS = {
    "debian": SOUND,
    "rocky": replace(SOUND, os="rocky", os_version="9.6"),
    "opensuse-leap": replace(SOUND, os="opensuse-leap", os_version="15.6"),
    "arch": replace(SOUND, os="arch", os_version=""),
}
LLM_ENGINE = Account(name="llm-engine", uid=996, gids=(995,))
ASKS = ApplianceSpec(models=(ModelSpec(name="big", source="/srv/big", gpus=1),))
"""A model that asks for a GPU."""


def facts(**more: Any) -> Facts:
    """Return the facts of a machine where all is well."""
    given: dict[str, Any] = {"spec": ApplianceSpec(), "layout": LAYOUT}
    return Facts(**given | more)


def record(**more: Any) -> Record:
    """Return the record of an installation that went well."""
    given: dict[str, Any] = {"schema": 1, "generation": 3, "deployment": deployment(), "files": (), "confirmed": True}
    return Record(**given | more)


def installed(**more: Any) -> Facts:
    """Return the facts of a machine where the appliance is installed and runs."""
    states = tuple(ServiceState(name=name, state="running") for name in ("gateway", "tiny"))
    given: dict[str, Any] = {"states": states, "answers": True, "link": "generations/3"}
    there = Installed(**given | more)
    return facts(record=record(), engine=LLM_ENGINE, installed=there)


def step(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0, **more: Any) -> Step:
    """Return one step, a directory of root's that everybody may enter unless said otherwise."""
    given: dict[str, Any] = {"path": path, "mode": mode, "uid": uid, "gid": gid}
    return Step(**given | more)


def trail(*steps: Step, failure: str = "") -> Trail:
    """Return the way to the last of the steps."""
    return Trail(path=steps[-1].path, steps=steps, failure=failure)


def file(path: str, mode: int = 0o644, **more: Any) -> Step:
    """Return a file that everybody may read."""
    return step(path, mode, **{"directory": False, "size": GIB} | more)


def look(host: Host, known: Facts | None = None) -> dict[str, tuple[Finding, ...]]:
    """Return what is found, by check."""
    found = doctor.check(host, known or facts())
    return {name: tuple(item for item in found if item.id == name) for name in {item.id for item in found}}


def only(name: str, host: Host, known: Facts | None = None) -> Finding:
    """Return the one finding there is, which is of this check."""
    found = look(host, known)
    assert set(found) == {name}, found
    assert len(found[name]) == 1, found
    return found[name][0]
