"""`status` for people: one line for each service, why it is so, what devices hold, what was edited."""

from dataclasses import replace

from appliance.cli.looks import duration, lines
from appliance.domain.status import DeviceStatus, HandEdit, ServiceStatus, Status

GATEWAY = ServiceStatus(
    name="gateway", model="", engine="nginx", version="", accelerator="", state="running", pid=7, seconds=90,
    endpoint="http://127.0.0.1:8080/v1",
)  # fmt: skip
TINY = ServiceStatus(
    name="tiny", model="tiny", engine="vllm", version="0.32.0", accelerator="cuda12.9", state="running", pid=8,
    seconds=7300, endpoint="http://127.0.0.1:8080/tiny/v1", memory=3 << 30, planned=(("ram", 6 << 30), ("nvidia:0", 9)),
    gpus=("nvidia:0",),
)  # fmt: skip
RAM = DeviceStatus(name="ram", label="", total=64 << 30, used=8 << 30, planned=6 << 30, held=(("tiny", 3 << 30),))
GPU = DeviceStatus(name="nvidia:0", label="NVIDIA L4", total=24 << 30, used=22 << 30, planned=21 << 30,
                   held=(("others", 1 << 30), ("tiny", 21 << 30)))  # fmt: skip
ALL = Status(
    runtime="systemd", generation=2, endpoint="http://127.0.0.1:8080/v1", services=(GATEWAY, TINY), devices=(RAM, GPU)
)


def text(found: Status, width: int = 0) -> str:
    return "\n".join(lines(found, width))


def test_engine_memory_and_endpoint_stand_in_the_line_of_a_replica() -> None:
    [line] = [line for line in lines(ALL) if line.startswith("tiny")]
    assert line.split() == (
        "tiny running 2 h 8 vllm 0.32.0 cuda12.9 3.0 GiB of 6.0 GiB + nvidia:0 http://127.0.0.1:8080/tiny/v1".split()
    )


def test_devices_tell_used_planned_and_by_whom() -> None:
    [line] = [line for line in lines(ALL) if line.startswith("nvidia:0")]
    assert "22.0 GiB   21.0 GiB   24.0 GiB  tiny 21.0 GiB, others 1.0 GiB" in line
    unknown = replace(ALL, devices=(replace(GPU, total=None, used=None, held=(), failure="requires reset"),))
    assert text(unknown).splitlines()[-1].split()[3:] == ["?", "21.0", "GiB", "?", "requires", "reset"]


def test_why_something_failed_stands_below_it_whole_however_narrow_the_terminal_is() -> None:
    why = "crash loop: CUDA out of memory"
    failed = replace(TINY, state="failed", detail=why, hint="see `llm-appliance logs tiny`")
    narrow = lines(replace(ALL, services=(failed,)), width=60)
    assert len(narrow[1]) == 60
    assert narrow[2].strip() == "crash loop: CUDA out of memory, see `llm-appliance logs tiny`"


def test_a_certificate_that_ends_is_told_with_what_mends_it() -> None:
    said = "the gateway's certificate ends in 6 days: llm-appliance tls renew"
    assert said in lines(replace(ALL, certificate=said))
    assert "certificate" not in text(ALL)


def test_edits_say_what_becomes_of_them() -> None:
    edits = (
        HandEdit(path="/etc/a.service", yours=False, diff=""),
        HandEdit(path="/etc/b.yaml", yours=True, diff="", gone=True),
    )
    said = text(replace(ALL, edits=edits, services=(replace(TINY, dropins=("/etc/x.conf",)),)))
    assert "edited by hand: /etc/a.service\n" in said
    assert "not in force yet: /etc/b.yaml (removed)\n" in said
    assert "drop-in of yours: /etc/x.conf" in said
    assert "edited" not in text(ALL)


def test_a_gateway_that_tells_nothing_is_no_secret() -> None:
    assert "the gateway tells nothing: Connection refused" in text(replace(ALL, problem="Connection refused"))


def test_durations_are_said_in_their_largest_unit() -> None:
    assert [duration(seconds) for seconds in (0, 119, 120, 7200, 172800)] == ["0 s", "119 s", "2 min", "2 h", "2 d"]
