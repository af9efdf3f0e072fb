"""systemd: where it may be used, which units restart for which files, and how its answers are read."""

from dataclasses import replace

import pytest

from appliance.domain.changes import Command, Completed
from appliance.domain.deployment import Deployment
from appliance.render.pages import launches, render
from appliance.runtimes import systemd
from tests.unit.render import systemd_reader
from tests.unit.samples import GPU_CATALOG, HOST, PYTHON, deployment, gpu, gpu_host, item, safetensors

PLAN = deployment(item("a"), item("b", replicas=2, options=(("chat-template", "a b; $HOME %h \"q\" 'q' \\"),)))
UNITS = "/etc/systemd/system"
A, B1, B2 = (f"llm-appliance-model@{name}.service" for name in ("a", "b_1", "b_2"))
GATEWAY, UMBRELLA = "llm-appliance-gateway.service", "llm-appliance.service"


def words(commands: tuple[Command, ...]) -> list[str]:
    return [" ".join(command.argv).removeprefix("systemctl ") for command in commands]


def activated(*changed: str) -> list[str]:
    return words(systemd.activate(PLAN, frozenset(changed)))


@pytest.mark.parametrize(
    ("changes", "prefix", "why"),
    [
        ({}, "/", None),
        ({"systemd": 247}, "/", None),
        ({"systemd": 246}, "/", "systemd 246 is too old, 247 is needed"),
        ({"systemd": 0, "init": "tini"}, "/", "PID 1 is tini, not systemd"),
        ({"systemd": 0, "init": ""}, "/", "PID 1 is unknown, not systemd"),
        ({"root": False}, "/", "needs root"),
        ({}, "/home/ann", "its units live outside the prefix /home/ann"),
    ],
)
def test_where_it_cannot_be_used(changes: dict[str, object], prefix: str, why: str | None) -> None:
    assert systemd.refuse(replace(HOST, **changes), prefix) == why  # type: ignore[arg-type]


def test_a_unit_for_each_replica_one_for_the_gateway_and_the_umbrella() -> None:
    paths = [page.path for page in systemd.pages(PLAN, launches(PLAN))]
    assert paths == [
        f"{UNITS}/{UMBRELLA}",
        f"{UNITS}/{GATEWAY}",
        "/etc/logrotate.d/llm-appliance",
        *(f"{UNITS}/{name}" for name in (A, B1, B2)),
    ]


def test_the_first_install_enables_and_starts_everything() -> None:
    everything = (f"{UNITS}/{name}" for name in (UMBRELLA, GATEWAY, A, B1, B2))
    assert activated(*everything, "nginx/nginx.conf", "nginx/gateway.lua", "nginx/gateway.json") == [
        "daemon-reload",
        f"enable --quiet {UMBRELLA}",
        f"reset-failed {GATEWAY} {A} {B1} {B2}",
        f"restart --no-block {GATEWAY} {A} {B1} {B2}",
        f"start --no-block {UMBRELLA}",
    ]


def test_nothing_changed_restarts_nothing() -> None:
    assert activated() == [f"enable --quiet {UMBRELLA}", f"start --no-block {UMBRELLA}"]


def test_a_changed_unit_restarts_its_own_service_only() -> None:
    assert activated(f"{UNITS}/{B1}") == [
        "daemon-reload",
        f"enable --quiet {UMBRELLA}",
        f"reset-failed {B1}",
        f"restart --no-block {B1}",
        f"start --no-block {UMBRELLA}",
    ]


@pytest.mark.parametrize("path", ["nginx/nginx.conf", "nginx/gateway.lua", "nginx/scan.lua"])
def test_the_gateway_rereads_its_configuration_without_a_restart(path: str) -> None:
    assert activated(path) == [
        f"enable --quiet {UMBRELLA}", f"reload-or-restart {GATEWAY}", f"start --no-block {UMBRELLA}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path",
    ["nginx/gateway.json", "deployment.json", "/etc/llm-appliance/appliance.yaml", "/etc/logrotate.d/llm-appliance"],
)
def test_what_nobody_has_to_reread_touches_no_service(path: str) -> None:
    assert activated(path) == activated()


def test_a_new_or_a_removed_model_touches_no_other() -> None:
    assert [
        line for line in activated(f"{UNITS}/{UMBRELLA}", f"{UNITS}/{A}", "nginx/gateway.json") if "restart" in line
    ] == [f"restart --no-block {A}"]
    gone = activated(f"{UNITS}/llm-appliance-model@gone.service", f"{UNITS}/{UMBRELLA}", "nginx/gateway.json")
    assert gone == ["daemon-reload", f"enable --quiet {UMBRELLA}", f"start --no-block {UMBRELLA}"]


def test_start_stop_and_restart_reach_one_model_with_all_replicas_or_everything() -> None:
    for verb, function in (("start", systemd.start), ("stop", systemd.stop), ("restart", systemd.restart)):
        assert words(function(PLAN, "b")) == [f"{verb} {B1} {B2}"]
        assert words(function(PLAN, "")) == [f"{verb} {UMBRELLA}"]
        assert all(command.timeout > max(one.start_timeout for one in PLAN.services) for command in function(PLAN, ""))


def test_what_is_not_wanted_any_more_is_stopped_and_forgotten() -> None:
    assert words(systemd.retire(PLAN, ("b_2",))) == [f"stop {B2}", f"reset-failed {B2}"]
    everything = words(systemd.retire(PLAN, ("gateway", "a", "b_1", "b_2")))
    assert everything == [
        f"disable --quiet {UMBRELLA}",
        f"stop {GATEWAY} {A} {B1} {B2} {UMBRELLA}",
        f"reset-failed {GATEWAY} {A} {B1} {B2} {UMBRELLA}",
    ]
    assert words(systemd.settle(PLAN)) == ["daemon-reload"]


def test_the_units_are_checked_where_they_were_written() -> None:
    (command,) = systemd.check(PLAN, "/g/7")
    assert command.argv[:3] == ("systemd-analyze", "verify", "--recursive-errors=no")
    assert set(command.argv[3:]) == {f"/g/7/root{UNITS}/{name}" for name in (GATEWAY, A, B1, B2, UMBRELLA)}


def test_unknown_keys_are_errors_from_250_on() -> None:
    """The version is the plan's, for a plan can be put in force that was made elsewhere."""
    assert PLAN.runtime_version == HOST.systemd == 252
    (new,) = systemd.check(replace(PLAN, runtime_version=250), "/g/7")
    assert new == systemd.check(PLAN, "/g/7")[0]
    for version in (247, 249, 0):
        (old,) = systemd.check(replace(PLAN, runtime_version=version), "/g/7")
        assert old.argv == (*new.argv[:2], *new.argv[3:])


def test_logs_of_one_service_or_of_all() -> None:
    one = systemd.logs(PLAN, ("b_1",), follow=True, lines=7).argv
    assert one[:2] == ("journalctl", "--no-pager")
    assert "--lines=7" in one
    assert "-f" in one
    assert [one[at + 1] for at, word in enumerate(one) if word == "--unit"] == [B1]
    everything = systemd.logs(PLAN, (), follow=False, lines=7).argv
    assert "-f" not in everything
    assert [everything[at + 1] for at, word in enumerate(everything) if word == "--unit"] == [
        UMBRELLA,
        GATEWAY,
        A,
        B1,
        B2,
    ]


def test_logs_since_a_time_are_whole() -> None:
    argv = systemd.logs(PLAN, ("a", "b_1"), follow=False, lines=0, since=1700000000).argv
    assert "--lines=all" in argv
    assert "--since=@1700000000" in argv
    assert [argv[at + 1] for at, word in enumerate(argv) if word == "--unit"] == [A, B1]


def unit(plan: Deployment, name: str) -> dict[str, list[str]]:
    """Return the keys of a rendered unit, each with its values in order."""
    files = {file.path: file.content.decode() for file in render(plan).files}
    found: dict[str, list[str]] = {}
    for line in files[f"{UNITS}/{name}"].splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_a_unit_starts_its_program_with_the_words_of_the_plan() -> None:
    for launched, name in zip(launches(PLAN), (A, B1, B2), strict=True):
        keys = unit(PLAN, name)
        assert systemd_reader.exec_start(keys["ExecStart"][0]) == list(launched.launch.argv)
        assert keys["User"] == ["llm-engine"]
        assert keys["PartOf"] == [UMBRELLA]
        assert keys["RuntimeDirectory"] == [f"llm-appliance/{launched.service.name}"]


def test_a_unit_sets_the_environment_of_the_plan() -> None:
    plan = deployment(item("a", engine="llama-cpp-python", options=(("chat-format", "100% $x \"y\" 'z'"),)))
    (launched,) = launches(plan)
    lines = unit(plan, A)["Environment"]
    pairs = [word for line in lines if line.startswith('"') for word in systemd_reader.environment(line)]
    assert pairs == [f"{name}={value}" for name, value in launched.launch.env]


def test_a_unit_has_started_when_its_health_page_answers() -> None:
    (line,) = unit(PLAN, A)["ExecStartPost"]
    words = systemd_reader.words(line)
    assert words == [
        PYTHON,
        "-m",
        "appliance.system.probe",
        "unix:/run/llm-appliance/a/engine.sock",
        "/health",
        "70",
        "$MAINPID",
    ]
    assert int(unit(PLAN, A)["TimeoutStartSec"][0]) > 70


def on_gpus(engine: str, vendor: str = "nvidia") -> dict[str, list[str]]:
    """Return the unit of a model on two GPUs of that vendor."""
    plan = deployment(
        item("a", gpus=2, engine=engine), facts=safetensors(), host=gpu_host(gpu(), gpu(1)), catalog=GPU_CATALOG
    )
    return unit(replace(plan, services=(replace(plan.services[0], vendor=vendor),)), A)


def test_a_unit_without_gpus_sees_no_device_and_no_network() -> None:
    keys = unit(PLAN, A)
    assert keys["DevicePolicy"] == ["closed"]
    assert keys["PrivateDevices"] == keys["PrivateUsers"] == keys["PrivateNetwork"] == ["yes"]
    assert keys["IPAddressDeny"] == ["any"]
    assert not {"DeviceAllow", "SupplementaryGroups", "IPAddressAllow"} & set(keys)


def test_a_unit_with_gpus_sees_their_devices_and_no_others() -> None:
    keys = on_gpus("vllm")
    assert keys["DevicePolicy"] == ["closed"]
    assert keys["DeviceAllow"] == ["char-nvidia* rw"]
    assert not {"PrivateDevices", "PrivateUsers", "SupplementaryGroups"} & set(keys)
    assert (keys["PrivateNetwork"], keys["IPAddressDeny"], keys["IPAddressAllow"]) == (["yes"], ["any"], ["localhost"])
    assert '"CUDA_VISIBLE_DEVICES=GPU-0,GPU-1"' in keys["Environment"]


@pytest.mark.parametrize(
    ("vendor", "devices", "groups"),
    [
        ("amd", ["char-kfd rw", "char-drm rw"], ["render", "video"]),
        ("intel", ["char-drm rw"], ["render", "video"]),
        ("ascend", ["char-davinci* rw", "char-devdrv-cdev rw", "char-hisi_hdc rw"], []),
    ],
)
def test_devices_that_a_group_opens_need_the_group(vendor: str, devices: list[str], groups: list[str]) -> None:
    keys = on_gpus("vllm", vendor)
    assert (keys["DeviceAllow"], keys.get("SupplementaryGroups", [])) == (devices, groups)


def test_an_engine_that_listens_on_a_port_has_a_loopback_of_its_own() -> None:
    keys = on_gpus("sglang")
    assert keys["PrivateNetwork"] == ["yes"]
    assert (keys["IPAddressDeny"], keys["IPAddressAllow"]) == (["any"], ["localhost"])
    words = systemd_reader.words(keys["ExecStartPost"][0])
    assert words[3][:5] == "unix:" and words[4] == "/health"
    assert systemd_reader.words(keys["ExecStart"][0])[1:3] == ["-m", "appliance.system.launch"]


def test_the_umbrella_wants_every_unit() -> None:
    keys = unit(PLAN, UMBRELLA)
    assert keys["Wants"][0].split() == [GATEWAY, A, B1, B2]


@pytest.mark.parametrize(("port", "capability"), [(80, "CAP_NET_BIND_SERVICE"), (1024, "")])
def test_the_gateway_gets_a_privilege_only_for_a_port_that_needs_it(port: int, capability: str) -> None:
    keys = unit(deployment(port=port), GATEWAY)
    assert keys["AmbientCapabilities"] == keys["CapabilityBoundingSet"] == [capability]


def block(name: str, **properties: object) -> str:
    return "".join(f"{key}={value}\n" for key, value in {"Id": name, **properties}.items())


def read(*blocks: str, code: int = 0) -> dict[str, tuple[str, str]]:
    done = Completed(argv=(), code=code, stdout="\n".join(blocks), stderr="", seconds=0)
    return {state.name: (state.state, state.detail) for state in systemd.read_status(PLAN, done)}


def test_one_question_for_all_units() -> None:
    question = systemd.status(PLAN)
    assert question.argv[:2] == ("systemctl", "show")
    assert question.argv[3:] == (GATEWAY, A, B1, B2)
    for name in ("Id", "ActiveState", "SubState", "Result", "MainPID", "NRestarts", "StateChangeTimestampMonotonic"):
        assert name in question.argv[2].removeprefix("--property=").split(",")


def test_the_states_of_units() -> None:
    assert read(
        block(GATEWAY, MainPID=7, NRestarts=0, Result="success", ActiveState="active", SubState="running"),
        block(A, MainPID=0, NRestarts=0, Result="success", ActiveState="activating", SubState="start-post"),
        block(B1, MainPID=0, NRestarts=3, Result="exit-code", ActiveState="activating", SubState="auto-restart"),
        block(B2, MainPID=0, NRestarts=5, Result="signal", ActiveState="failed", SubState="failed"),
    ) == {
        "gateway": ("running", ""),
        "a": ("starting", ""),
        "b_1": ("failed", "exit-code, restarted 3 times"),
        "b_2": ("failed", "signal, restarted 5 times"),
    }


def test_a_service_that_starts_over_and_over_has_failed() -> None:
    states = read(
        block(GATEWAY, ActiveState="inactive", SubState="dead", NRestarts=0),
        block(A, ActiveState="activating", SubState="start-post", NRestarts=2),
        block(B1, ActiveState="reloading", SubState="reload", NRestarts=0),
        block(B2, ActiveState="deactivating", SubState="stop-sigterm", NRestarts=0),
    )
    assert states == {
        "gateway": ("stopped", ""),
        "a": ("failed", "crash loop, restarted 2 times"),
        "b_1": ("starting", ""),
        "b_2": ("stopped", ""),
    }


def test_one_that_was_up_before_and_starts_again_is_in_no_loop_yet() -> None:
    """A crash after a healthy week, and the minutes of loading after it."""
    up_before = {"ActiveState": "activating", "SubState": "start-post", "ActiveEnterTimestampMonotonic": 5}
    assert read(block(GATEWAY), block(A, **up_before, NRestarts=1))["a"] == ("starting", "")
    assert read(block(GATEWAY), block(A, **up_before, NRestarts=3))["a"] == ("failed", "crash loop, restarted 3 times")


@pytest.mark.parametrize(
    ("result", "status", "said"),
    [
        ("exit-code", 3, "exit status 3"), ("signal", 9, "killed by signal 9"), ("core-dump", 6, "killed by signal 6"),
        ("oom-kill", 9, "out of RAM: the kernel killed it"), ("timeout", 15, "not ready in time"), ("protocol", 0, "protocol"),
    ],
)  # fmt: skip
def test_how_a_service_ended_is_said(result: str, status: int, said: str) -> None:
    states = read(block(A, ActiveState="failed", Result=result, ExecMainStatus=status, NRestarts=1))
    assert states["a"] == ("failed", f"{said}, restarted 1 times")


def test_drop_ins_and_restarts_are_told() -> None:
    text = block(GATEWAY, ActiveState="active", NRestarts=2, DropInPaths="/etc/a.conf /run/b.conf")
    done = Completed(argv=(), code=0, stdout=text, stderr="", seconds=0)
    state = systemd.read_status(PLAN, done)[0]
    assert (state.restarts, state.dropins) == (2, ("/etc/a.conf", "/run/b.conf"))


def test_a_service_that_recovered_runs() -> None:
    assert read(block(GATEWAY), block(A, ActiveState="active", SubState="running", NRestarts=4))["a"] == ("running", "")


def test_pid_and_time_are_read() -> None:
    done = Completed(
        argv=(),
        code=0,
        stdout=block(
            GATEWAY, MainPID=4242, ActiveState="active", SubState="running", StateChangeTimestampMonotonic=1500000
        ),
        stderr="",
        seconds=0,
    )
    state = systemd.read_status(PLAN, done)[0]
    assert (state.pid, state.since) == (4242, 1.5)


@pytest.mark.parametrize("text", ["", "Failed to connect to bus: No such file or directory\n", "\n\n\n"])
def test_every_service_has_a_state_even_when_nothing_answers(text: str) -> None:
    assert read(text, code=1) == dict.fromkeys(("gateway", "a", "b_1", "b_2"), ("stopped", ""))


def test_a_unit_that_is_missing_in_the_answer_does_not_shift_the_others() -> None:
    states = read(block(GATEWAY, ActiveState="active"), block(B2, ActiveState="active"))
    assert {name for name, (state, _) in states.items() if state == "running"} == {"gateway", "b_2"}
