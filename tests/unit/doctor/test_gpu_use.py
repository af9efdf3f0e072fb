"""GPUs: memory that others hold, machines of several GPUs, daemons."""

from dataclasses import replace

from appliance.doctor.facts import Fabric
from appliance.domain.host import GpuProcess, Host
from tests.unit.doctor.sound import ASKS, CUDA, facts, installed, look, only
from tests.unit.samples import GIB

GPU = CUDA.gpus[0]
PYTHON = GpuProcess(pid=4242, name="python3", memory=20 * GIB)


def busy(*processes: GpuProcess, free: int | None = 27 * GIB) -> Host:
    return replace(CUDA, gpus=(replace(GPU, processes=processes, memory_free=free),))


def hgx(count: int = 8) -> Host:
    links = tuple("NV18" for _ in range(count))
    gpus = tuple(
        replace(GPU, index=index, links=(*links[:index], "X", *links[index + 1 :])) for index in range(count)
    )  # fmt: skip
    return replace(CUDA, gpus=gpus)


def test_a_program_that_holds_much_is_named() -> None:
    found = only("gpu-memory-held", busy(PYTHON))
    assert (found.severity, found.subject) == ("warning", "nvidia:0")
    assert found.message == "NVIDIA L40S: 20.0 GiB of 48.0 GiB are held by python3 (pid 4242, 20.0 GiB)"
    assert found.remedy[0] == "ps -f -p 4242"


def test_a_desktop_that_holds_little_is_not() -> None:
    assert look(busy(replace(PYTHON, name="Xorg", memory=GIB // 4), free=47 * GIB)) == {}


def test_our_own_engines_do_not_count() -> None:
    assert look(busy(PYTHON), facts(ours=frozenset({4242}))) == {}


def test_a_program_whose_amount_the_driver_does_not_tell() -> None:
    found = only("gpu-memory-held", busy(replace(PYTHON, memory=None)))
    assert found.message.endswith("21.0 GiB of 48.0 GiB are held by python3 (pid 4242)")


def test_programs_in_other_containers_show_in_what_is_left() -> None:
    assert "cannot be seen here" in only("gpu-memory-held", busy()).message
    assert look(busy(), installed()) == {}  # it may be our own


def test_a_mixture_is_worth_to_know() -> None:
    found = only("gpu-mixed", replace(CUDA, gpus=(GPU, replace(CUDA.gpus[1], compute_capability="7.5"))))
    assert found.severity == "info"
    assert "7.5: 1; 8.9: 0" in found.message


def test_nvswitch_needs_the_fabric_manager() -> None:
    found = only("gpu-fabric", hgx(), facts(spec=ASKS))
    assert (found.severity, found.prevents) == ("error", True)
    assert found.remedy == (
        "apt-get install 'nvidia-fabricmanager-580=580.95.05-*'",
        "systemctl enable --now nvidia-fabricmanager",
    )


def test_the_fabric_manager_must_match_the_driver_exactly() -> None:
    old = Fabric(installed=True, version="580.82.07", active=True)
    assert "580.82.07 does not match driver 580.95.05" in only("gpu-fabric", hgx(), facts(fabric=old)).message
    assert look(hgx(), facts(fabric=replace(old, version="580.95.05"))) == {}


def test_the_fabric_manager_must_run() -> None:
    still = Fabric(installed=True, version="580.95.05", active=False)
    found = only("gpu-fabric", hgx(), facts(fabric=still))
    assert found.remedy == ("systemctl enable --now nvidia-fabricmanager",)


def test_a_virtual_machine_may_have_the_fabric_manager_outside() -> None:
    assert only("gpu-fabric", hgx(), facts(virtual=True)).severity == "warning"


def test_gpus_that_are_wired_directly_need_none() -> None:
    assert look(hgx(4)) == {}
    assert look(replace(hgx(), container="docker")) == {}


def test_persistence_is_worth_to_know() -> None:
    found = only("gpu-persistence", CUDA, facts(persistence=False))
    assert (found.severity, found.remedy) == ("info", ("systemctl enable --now nvidia-persistenced",))
    assert look(replace(CUDA, container="docker"), facts(persistence=False)) == {}
